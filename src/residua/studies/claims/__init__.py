"""Closed studies: claims that are computed, not trained."""
