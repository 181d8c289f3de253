"""The protocol of a data set: class names, and labelled images that are read by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # [H, W, C], C = 3 (RGB) or 1 (greyscale)
ColumnValues = Sequence[str] | npt.NDArray[np.float64]  # text, or numbers: one for each image
Range = tuple[float, float] | None  # values of 16-bit and float images that become 0 and 255
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Unreadable(Exception):  # noqa: N818 - the state of a file, not a fault of the program
    """One image cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Entry:
    """One labelled image of a data set.

    path: relative to the data set, with '/' on every platform; made up for arrays ("train/00012").
    label: index into the classes. split: as the data set defines it, None where it defines none.
    group: images of a group must share a split, "" without one.
    weight: factor of the image's loss in training, above 0.
    """

    path: str
    label: int
    split: SplitName | None
    group: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Header:
    """The metadata of an image before decoding; width and height are after EXIF rotation."""

    width: int
    height: int
    format: str
    mode: str


class Dataset(Protocol):
    """A data set; its images are read by index, from several threads at once."""

    @property
    def name(self) -> str:
        """A short name for run folders, such as "birds6"."""

    @property
    def description(self) -> str:
        """The kind of data set, such as "a folder of class folders"."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the label of an entry is an index into them."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Every candidate image, in an order that depends on the paths alone."""

    @property
    def rejected(self) -> Sequence[tuple[str, str]]:
        """(path, reason) of files that are unusable by their name and first bytes alone."""

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences for the user, such as on empty class folders."""

    @property
    def columns(self) -> Mapping[str, ColumnValues]:
        """Further columns of a table by name: a value for each entry, "" or NaN without one."""

    def content(self, index: int) -> bytes:
        """The bytes that define image `index`: its file, or its pixels. Raises Unreadable."""

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """The header, read from `content`. Raises Unreadable, also above `max_pixels`."""

    def pixels(
        self, index: int, content: bytes, channels: int, max_pixels: int, value_range: Range = None
    ) -> Pixels:
        """The decoded, upright image, uint8 [H, W, channels]. Raises Unreadable."""


def values_at(
    columns: Mapping[str, ColumnValues], indices: Sequence[int]
) -> dict[str, ColumnValues]:
    """The values of some entries, in the order of `indices`."""
    return {
        name: values[indices]
        if isinstance(values, np.ndarray)
        else [values[index] for index in indices]
        for name, values in columns.items()
    }


class Selection:
    """Some images of a data set, as a data set: entry i is entry `indices[i]` of the other."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self.name, self.description = dataset.name, dataset.description
        self.classes, self.warnings = dataset.classes, dataset.warnings
        self.entries = [dataset.entries[index] for index in indices]
        self.columns = values_at(dataset.columns, indices)
        self.rejected: Sequence[tuple[str, str]] = ()

    def content(self, index: int) -> bytes:
        return self.dataset.content(self.indices[index])

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        return self.dataset.header(self.indices[index], content, max_pixels)

    def pixels(
        self, index: int, content: bytes, channels: int, max_pixels: int, value_range: Range = None
    ) -> Pixels:
        return self.dataset.pixels(self.indices[index], content, channels, max_pixels, value_range)
