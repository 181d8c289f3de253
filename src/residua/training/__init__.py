"""Batches and a network -> a run folder."""
