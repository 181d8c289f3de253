"""Fixtures that the tests of this folder share."""

from references.contexts import blind, context_of, feature_folder, weights, with_splits

__all__ = ["blind", "context_of", "feature_folder", "weights", "with_splits"]
