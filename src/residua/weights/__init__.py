"""Tensors and what they mean <-> files of weights."""
