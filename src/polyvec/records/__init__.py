"""Training data: records, the files they are in, and the order they are read in."""
