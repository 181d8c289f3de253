"""Trained weights and images -> metrics and predictions."""
