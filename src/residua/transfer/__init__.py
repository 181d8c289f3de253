"""Weights and pictures -> the way of learning that suits them, measured."""
