"""A data set: class names, and labelled images that are read by index."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

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


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset(ABC):
    """A data set; its images are read by index, from several threads at once.

    name: short, for run folders, such as "birds6". description: the kind, such as "class folders".
    classes: their names; the label of an entry is an index into them. entries: every candidate
    image, in an order that depends on the paths alone. rejected: (path, reason) of files that are
    unusable by their name and first bytes alone. warnings: sentences for the user. columns: further
    columns of a table by name: a value for each entry, "" or NaN without one.
    """

    name: str
    description: str
    classes: tuple[str, ...]
    entries: Sequence[Entry]
    rejected: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    columns: Mapping[str, ColumnValues] = field(default_factory=dict)

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes that define image `index`: its file, or its pixels. Raises Unreadable."""

    @abstractmethod
    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """The header, read from `content`. Raises Unreadable, also above `max_pixels`."""

    @abstractmethod
    def pixels(
        self, index: int, content: bytes, channels: int, max_pixels: int, value_range: Range = None
    ) -> Pixels:
        """The decoded, upright image, uint8 [H, W, channels]. Raises Unreadable."""

    def selected(self, indices: Sequence[int]) -> Self:
        """These images as a data set, without rejected files."""
        entries = [self.entries[index] for index in indices]
        columns = values_at(self.columns, indices)
        return dataclasses.replace(self, entries=entries, columns=columns, rejected=())


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
