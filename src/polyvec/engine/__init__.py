"""Many texts on one machine: plan batches, run layers, return vectors."""
