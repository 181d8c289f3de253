"""Arrays of images and their labels -> a Dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from residua.data.dataset import Dataset, Entry, Header, Pixels, Range, SplitName
from residua.data.random import Integers
from residua.errors import ResiduaError

Block = tuple[Pixels, Integers]  # uint8 [N, H, W, C] and int64 [N]


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayDataset(Dataset):
    """Images in memory or in a mapped file, each uint8 [H, W, C]."""

    images: Sequence[Pixels]
    format: str

    def content(self, index: int) -> bytes:
        """The pixels of one image, row by row, channels last."""
        content: bytes = self.images[index].tobytes()
        return content

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """Size and channels; `max_pixels` has no effect."""
        height, width, channels = self.images[index].shape
        return Header(width, height, self.format, "RGB" if channels == 3 else "L")

    def pixels(
        self, index: int, content: bytes, channels: int, max_pixels: int, value_range: Range = None
    ) -> Pixels:
        """uint8 [H, W, channels]; greyscale by Pillow's weights."""
        pixels = np.frombuffer(content, np.uint8).reshape(self.images[index].shape)
        if self.images[index].shape[2] == channels:
            return pixels
        if channels == 3:
            return np.repeat(pixels, 3, axis=2)
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]

    def selected(self, indices: Sequence[int]) -> Self:
        """See Dataset."""
        images = [self.images[index] for index in indices]
        return dataclasses.replace(super().selected(indices), images=images)


def array_dataset(
    name: str,
    description: str,
    format: str,
    classes: tuple[str, ...],
    blocks: Mapping[SplitName | None, Block],
) -> ArrayDataset:
    """The data set of these splits. Raises ResiduaError if sizes differ or there is no image."""
    shapes = {pixels.shape[1:] for pixels, _ in blocks.values()}
    array = np.concatenate([pixels for pixels, _ in blocks.values()]) if len(shapes) == 1 else None
    if array is None or array.size == 0:
        raise ResiduaError(f"{name}: no images, or images of different sizes: {sorted(shapes)}.")
    digits = len(str(len(array)))
    entries = [
        Entry(f"{split or name}/{number:0{digits}}", int(label), split)
        for split, (_, labels) in blocks.items()
        for number, label in enumerate(labels)
    ]
    return ArrayDataset(
        name=name,
        description=description,
        classes=classes,
        entries=entries,
        images=list(array),
        format=format,
    )


def checked_block(pixels: Pixels, labels: Integers, classes: int, where: str) -> Block:
    """The block. Raises ResiduaError unless each image has one label from 0 to classes - 1."""
    if len(pixels) != len(labels):
        raise ResiduaError(f"{where}: {len(pixels):,} images but {len(labels):,} labels.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ResiduaError(
            f"{where}: expected labels from 0 to {classes - 1}, found {labels.min()} to "
            f"{labels.max()}."
        )
    return pixels, labels
