"""Records to a trained model: losses, packed batches, checkpoints, the loop."""
