"""One text's way to a vector: files, tokens, weights, the transformer block, pooling."""
