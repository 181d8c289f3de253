"""Images with structure at every scale, as photos have, and copies of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

SIDE = 96  # px


def scene(seed: int, side: int = SIDE) -> Image.Image:
    """A random RGB image whose detail falls off with its frequency."""
    generator = np.random.default_rng(seed)
    total = np.zeros((side, side, 3))
    for cells in (3, 6, 12, 24, 48):
        noise = generator.normal(size=(cells, cells, 3)) / cells**0.7
        layers = [
            Image.fromarray(noise[..., channel].astype(np.float32)).resize((side, side), 3)
            for channel in range(3)
        ]
        total += np.stack([np.asarray(layer) for layer in layers], axis=-1)
    total = (total - total.mean()) / total.std() * 50 + 128
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def _recompressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=40)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized": lambda image: image.resize((61, 61), 3),
    "recompressed": _recompressed,
    "cropped": lambda image: image.crop((9, 2, 96, 90)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
}


def write_scenes(folder: Path, classes: int = 2, count: int = 12) -> Path:
    """`count` different scenes per class as PNG."""
    for label in range(classes):
        for number in range(count):
            file = folder / f"class{label}" / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            scene(1000 * label + number).save(file)
    return folder
