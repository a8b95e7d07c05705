"""Each command's own options: what its help says of them and how they are read."""
