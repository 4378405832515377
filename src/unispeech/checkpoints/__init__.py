"""Checkpoints: Hugging Face directories, and the original's fairseq files turned into them."""
