"""Which device runs a model, how fast, how well, and where one is cheapest to rent."""
