"""Files of others -> tensors and what the files say, nothing interpreted."""
