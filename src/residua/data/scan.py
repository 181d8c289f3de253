"""Labelled image files -> class names, entries, and warnings; what folders and tables share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from residua.data import image, recognition
from residua.data.dataset import Dataset, Entry, Header, Pixels, Range, SplitName
from residua.errors import ResiduaError

SPLIT_NAMES: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "training_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing", "test_set"), "test"),
}
LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def split_named(text: str, where: str) -> SplitName:
    """The split that a table or program names. where: for messages. Raises ResiduaError."""
    if (split := SPLIT_NAMES.get(text.casefold())) is None:
        raise ResiduaError(
            f"{where}: the split {text[:60]!r} is unknown: expected train, validation (or val) or "
            "test. Rename it, or its column if that is not a split."
        )
    return split


@dataclass(frozen=True, eq=False, kw_only=True)
class FileDataset(Dataset):
    """Images in files below a folder."""

    root: Path

    def content(self, index: int) -> bytes:
        """The bytes of the file. Raises Unreadable, also if it has been deleted."""
        return recognition.read_file(self.root / self.entries[index].path)

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        return image.header(content, max_pixels)

    def pixels(
        self, index: int, content: bytes, channels: int, max_pixels: int, value_range: Range = None
    ) -> Pixels:
        return image.decode(content, channels, max_pixels, value_range)


@dataclass(frozen=True)
class LabelledFile:
    """An image file and its class by name; see Entry. row: position in a table."""

    path: str
    name: str
    split: SplitName | None
    group: str = ""
    weight: float = 1.0
    row: int = 0


@dataclass
class Scan:
    """The result of a scan. rejected: (path, reason)."""

    labelled: list[LabelledFile] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def classes_of(
    scan: Scan, splits: Sequence[SplitName | None], order: Callable[[str], object] = str
) -> tuple[str, ...]:
    """Class names, those of the first split, or of all images if no split is given; adds warnings
    on missing classes.

    order: the key by which the names are sorted. Raises ResiduaError if a later split has a class
    that the first lacks.
    """
    names: dict[SplitName | None, dict[str, str]] = {split: {} for split in splits}
    known: dict[str, str] = {}
    for labelled in sorted(scan.labelled, key=attrgetter("name")):
        name = labelled.name
        (names[labelled.split] if splits else known).setdefault(class_key(name), name)
    if splits:
        known = names[splits[0]]
    ordered = sorted(known, key=order)  # type: ignore[arg-type]
    for split in splits[1:]:
        unknown = [name for key, name in names[split].items() if key not in known]
        if unknown:
            raise ResiduaError(
                f"The {split} set has the class {unknown[0]!r}, which the training set lacks (its "
                f"classes: {', '.join(known.values()) or 'none'}). Give it the same name in both, "
                "or move it out."
            )
        missing = [known[key] for key in ordered if key not in names[split]]
        if not names[split]:
            scan.warnings.append(f"Not used: the {split} folder has no images in class folders.")
        elif missing:
            scan.warnings.append(f"The {split} set has no images of: {', '.join(missing)}.")
    folded: dict[str, str] = {}
    for key, name in known.items():
        other = folded.setdefault("".join(key.casefold().split()), name)
        if other != name:
            differ = "differ only in case or spaces"
            scan.warnings.append(f"The classes {other!r} and {name!r} {differ}.")
    return tuple(known[key] for key in ordered)


def class_key(name: str) -> str:
    """The identity of a class name: macOS may store accents as separate characters."""
    return unicodedata.normalize("NFC", name)


def entries_of(labelled: Iterable[LabelledFile], classes: Sequence[str]) -> list[Entry]:
    """The entries in the order of `labelled`."""
    labels = {class_key(name): label for label, name in enumerate(classes)}
    return [
        Entry(row.path, labels[class_key(row.name)], row.split, row.group, row.weight)
        for row in labelled
    ]
