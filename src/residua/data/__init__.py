"""Images on disk -> batches: source -> survey -> split -> cache -> batches."""
