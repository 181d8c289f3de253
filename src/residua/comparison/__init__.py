"""Runs -> their differences, with intervals."""
