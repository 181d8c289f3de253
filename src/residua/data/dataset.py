"""What every data set looks like to the rest: named classes and numbered, labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # [H, W, C], C = 3 (RGB) or 1 (grey)
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Unreadable(Exception):  # noqa: N818 - a state of a file, not a fault
    """One image that cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Entry:
    """One labelled image of a source.

    path: relative to the source, '/' between parts, the same on every platform; made up for packed
        sets ("train/00012"). label: index into the source's classes. part: where the data set
        itself puts it, None where the split decides.
    """

    path: str
    label: int
    split: SplitName | None


@dataclass(frozen=True)
class Header:
    """What an image says of itself before it is decoded; width and height are upright (EXIF)."""

    width: int
    height: int
    format: str
    mode: str


class Dataset(Protocol):
    """A data set that can be asked for its images one by one, from several threads at once."""

    @property
    def name(self) -> str:
        """A short name for run folders, such as "birds6"."""

    @property
    def description(self) -> str:
        """What it was recognised as, such as "a folder with train and test parts"."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; an entry's label is an index into them."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Every candidate image, in an order that depends on the paths alone."""

    @property
    def rejected(self) -> Sequence[tuple[str, str]]:
        """(path, reason) of files known to be unusable from their name and kind alone."""

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences for the user: empty class folders, classes missing from a part."""

    def content(self, index: int) -> bytes:
        """The bytes that make image `index` what it is: the file, or the packed pixels."""

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """Read from `content` without decoding. Raises Unreadable, also above `max_pixels`."""

    def pixels(self, index: int, content: bytes, channels: int, max_pixels: int) -> Pixels:
        """Decoded, upright, uint8 [H, W, channels]. Raises Unreadable."""


class Selection:
    """Some images of a source, as a source; entry i is the source's entry `chosen[i]`."""

    def __init__(self, source: Dataset, chosen: Sequence[int]) -> None:
        self.source, self.chosen = source, chosen
        self.name, self.description = source.name, source.description
        self.classes, self.warnings = source.classes, source.warnings
        self.entries = [source.entries[each] for each in chosen]
        self.rejected: Sequence[tuple[str, str]] = ()

    def content(self, index: int) -> bytes:
        """See Source."""
        return self.source.content(self.chosen[index])

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """See Source."""
        return self.source.header(self.chosen[index], content, max_pixels)

    def pixels(self, index: int, content: bytes, channels: int, max_pixels: int) -> Pixels:
        """See Source."""
        return self.source.pixels(self.chosen[index], content, channels, max_pixels)
