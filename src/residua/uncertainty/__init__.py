"""Logits, features and labels -> probabilities, intervals and sets that hold; unknown images."""
