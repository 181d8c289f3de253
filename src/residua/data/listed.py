"""Images of a program, or the paths of images, with a label each -> a Dataset."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from residua.data import image as files
from residua.data.dataset import Entry, Header, Pixels, Unreadable
from residua.data.pixels import ImageLike, pixels_of
from residua.data.recognition import read_file
from residua.data.value_range import ValueRange
from residua.system.files import user_path


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images of any size and kind, see `pixels_of`; implements `Dataset`.

    images: one for each entry. values: (black, white) of arrays and tensors with other values than
    usual.
    """

    name: str
    description: str
    classes: tuple[str, ...]
    entries: Sequence[Entry]
    images: Sequence[ImageLike]
    values: ValueRange | None = None
    max_pixels: int = 100_000_000
    rejected: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()

    def content(self, index: int) -> bytes:
        """The bytes of a file; pixels in memory as those of a PPM file."""
        image = self.images[index]
        if isinstance(image, str | os.PathLike):
            with self._named(index):
                return read_file(user_path(image))
        if isinstance(image, bytes | bytearray | memoryview):
            return bytes(image)
        pixels = pixels_of(image, channels_of(image), self.max_pixels, self.values)
        height, width, channels = pixels.shape
        head = f"P{5 if channels == 1 else 6} {width} {height} 255\n"
        return head.encode() + pixels.tobytes()

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """See `image.header`."""
        with self._named(index):
            return files.header(content, max_pixels)

    def pixels(
        self,
        index: int,
        content: bytes,
        channels: int,
        max_pixels: int,
        value_range: ValueRange | None = None,
    ) -> Pixels:
        """See `image.decode`."""
        with self._named(index):
            return files.decode(content, channels, max_pixels, value_range)

    @contextlib.contextmanager
    def _named(self, index: int) -> Iterator[None]:
        """Name the file where it is unreadable: entries have numbers."""
        try:
            yield
        except Unreadable as error:
            image = self.images[index]
            name = f"{os.fspath(image)}: " if isinstance(image, str | os.PathLike) else ""
            raise Unreadable(f"{name}{error}") from error


def labelled(
    images: Sequence[ImageLike],
    labels: Sequence[int],
    classes: tuple[str, ...],
    values: ValueRange | None = None,
) -> ImageList:
    """The data set of images and their labels, indices into `classes`."""
    digits = len(str(len(images)))
    entries = [
        Entry(f"image {number:0{digits}}", label, None)  # random splits depend on these names
        for number, label in zip(range(len(images)), labels, strict=True)
    ]
    kinds = sorted({type(image).__name__ for image in images})
    description = f"{len(images):,} images in memory ({', '.join(kinds)})"
    return ImageList("images", description, classes, entries, images, values)


def channels_of(image: object) -> int:
    """1 for a greyscale image, 3 for any other; what is no image has any."""
    if isinstance(image, Image.Image):
        return 1 if image.mode in ("1", "L", "F") or image.mode.startswith("I") else 3
    if isinstance(image, np.ndarray | torch.Tensor) and image.ndim == 3:
        return 1 if image.shape[0 if isinstance(image, torch.Tensor) else 2] == 1 else 3
    return 1
