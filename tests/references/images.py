"""Class folders of small images that a network can tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_shapes(folder: Path, count: int, size: int = 16, classes: int = 3) -> Path:
    """`count` noisy PNG per class, each with a bright square whose place and colour tell it."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        for number in range(count):
            pixels = generator.integers(0, 90, (size, size, 3), dtype=np.uint8)
            at = 2 + label * (size - 6) // classes
            pixels[at : at + 4, at : at + 4, label % 3] = 255
            file = folder / f"class{label}" / f"{number:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return folder


def write_colours(
    folder: Path, channels: Mapping[str, int], count: int, shape: tuple[int, int], seed: int
) -> None:
    """`count` noisy PNG of `shape` (height, width) per class, which is bright in one channel."""
    generator = np.random.default_rng(seed)
    for name, channel in channels.items():
        for number in range(count):
            pixels = generator.integers(0, 60, (*shape, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            file = folder / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
