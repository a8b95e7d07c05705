"""Checkpoints to model folders and files, and the proof that their vectors agree."""
