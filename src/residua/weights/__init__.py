"""Tensors with their metadata <-> weights files."""
