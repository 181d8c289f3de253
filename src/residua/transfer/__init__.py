"""Weights and images -> the way of learning that suits them, measured."""
