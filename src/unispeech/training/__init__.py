"""From batches to checkpoint: recipes, the loop that every stage shares, and the stages."""
