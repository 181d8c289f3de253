"""Images of one size and their labels, in arrays -> a Source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.data.dataset import Entry, Header, Pixels, SplitName
from residua.errors import ResiduaError

Labels = npt.NDArray[np.int64]
Block = tuple[Pixels, Labels]  # uint8 [N, H, W, C] and int64 [N]


@dataclass(frozen=True, eq=False)
class PackedSource:
    """Images of one size in one array, uint8 [N, H, W, C]; implements `Source`."""

    name: str
    description: str
    classes: tuple[str, ...]
    entries: Sequence[Entry]
    array: Pixels
    format: str
    rejected: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()

    def content(self, index: int) -> bytes:
        """The pixels of one image, row by row, channels last."""
        content: bytes = self.array[index].tobytes()
        return content

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """The same for every image; nothing here is large enough for `max_pixels`."""
        height, width, channels = self.array.shape[1:]
        return Header(width, height, self.format, "RGB" if channels == 3 else "L")

    def pixels(self, index: int, content: bytes, channels: int, max_pixels: int) -> Pixels:
        """uint8 [H, W, channels]; grey by Pillow's weights."""
        found = np.frombuffer(content, np.uint8).reshape(self.array.shape[1:])
        if self.array.shape[3] == channels:
            return found
        if channels == 3:
            return np.repeat(found, 3, axis=2)
        return np.asarray(Image.fromarray(found).convert("L"))[:, :, None]


def packed(
    name: str,
    description: str,
    format: str,
    classes: tuple[str, ...],
    blocks: Mapping[SplitName | None, Block],
) -> PackedSource:
    """Joins the parts; refuses those that do not fit together or hold nothing."""
    shapes = {pixels.shape[1:] for pixels, _ in blocks.values()}
    array = np.concatenate([pixels for pixels, _ in blocks.values()]) if len(shapes) == 1 else None
    if array is None or array.size == 0:
        raise ResiduaError(f"{name}: no images, or parts of different size: {sorted(shapes)}.")
    digits = len(str(len(array)))
    entries = [
        Entry(f"{part or name}/{number:0{digits}}", int(label), part)
        for part, (_, labels) in blocks.items()
        for number, label in enumerate(labels)
    ]
    return PackedSource(name, description, classes, entries, array, format)


def checked_block(pixels: Pixels, labels: Labels, count: int, where: str) -> Block:
    """The block, if it has one label in 0..count-1 for each image."""
    if len(pixels) != len(labels):
        raise ResiduaError(f"{where}: {len(pixels):,} images but {len(labels):,} labels.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < count:
        raise ResiduaError(
            f"{where}: expected labels from 0 to {count - 1}, found some from {labels.min()} to "
            f"{labels.max()}."
        )
    return pixels, labels
