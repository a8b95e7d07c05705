"""What is in a file of records, and what is wrong with it."""
