"""Weights -> a file for another runtime, compared with PyTorch before it gets its name."""
