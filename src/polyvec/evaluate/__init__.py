"""How good vectors are: a person's own question, benchmarks, classifiers, and the page about it."""
