"""Tables to tensors: reading, verdicts, splits, the pixel store, packs, batches."""
