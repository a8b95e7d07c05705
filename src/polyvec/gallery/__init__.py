"""The catalogue as people see it: scores, comparisons, and one page that needs nothing else."""
