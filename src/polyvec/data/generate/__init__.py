"""Training records written by language models."""
