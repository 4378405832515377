"""From corpora to batches: readers, checks, cuts, samplers, synthetic speech, phones from text."""
