"""Hard negatives: documents near a query that do not answer it."""
