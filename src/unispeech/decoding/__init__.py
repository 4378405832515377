"""Log-probabilities -> hypotheses."""
