"""Labelled normal clouds of features that a linear head can mostly tell apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def clouds(
    rows: int, width: int, classes: int, distance: float = 1.0, seed: int = 0
) -> tuple[Floats, Labels]:
    """Features whose columns differ in scale, offset and correlation; every class is present."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = distance * random.normal(size=(classes, width))
    mixing = np.eye(width) + random.normal(size=(width, width)) / np.sqrt(width)
    values = (centres[labels] + random.normal(size=(rows, width))) @ mixing
    scaled = values * np.geomspace(0.3, 30, width) + np.linspace(-5, 50, width)
    return scaled.astype(np.float32), labels
