"""Studies with their own code, most of them without training."""
