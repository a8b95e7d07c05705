"""Training data made, checked and mined."""
