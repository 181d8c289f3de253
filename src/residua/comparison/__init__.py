"""Runs -> differences, with their intervals."""
