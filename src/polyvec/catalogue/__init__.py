"""Known embedding models: what is stated of each, and by whom."""
