"""A table of paths and labels -> a Dataset: files found, classes, splits, groups, and what is
wrong with each row.

Paths are relative to the table's folder; files elsewhere may be listed too. Rows whose file or
label is missing are rejected like damaged files; rows that contradict each other are errors.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from residua.config.schema import Data
from residua.data import recognition
from residua.data.columns import Columns, path_column, roles_of, shown_columns, weight_of
from residua.data.dataset import SPLITS, SplitName
from residua.data.folder import files_below
from residua.data.properties import properties_in
from residua.data.scan import (
    LINE_BREAK,
    FileDataset,
    LabelledFile,
    Scan,
    classes_of,
    entries_of,
    split_named,
)
from residua.data.table import Table, read_table, text_of
from residua.errors import ResiduaError, UnreadableImages
from residua.system.files import reason_of
from residua.system.words import counted

_MAX_LABEL = 200  # characters
_MAX_SEARCHED = 2_000_000  # files below the table's folder
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_WHOLE = re.compile(r"([+-]?\d{1,18})(?:\.0+)?")
_MISSING = ("nan", "none", "null", "n/a", "#n/a", "<na>")  # as programs write an empty cell
_FRACTION = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_GENERIC = ("train", "training", "test", "labels", "metadata", "data", "annotations")


def find(file: Path, settings: Data, *, training: bool = True) -> FileDataset:
    """The data set that a table file lists.

    training: whether the training set defines the classes; else all sets do, and none is needed.
    Raises ResiduaError that names the table, the row and what to do.
    """
    table = read_table(file)
    roles = roles_of(list(table.columns), settings, _with_others(table))
    scan, repeated = _listed(table, roles)
    if not scan.labelled:
        path, reason = (*scan.rejected, ("", "has no rows"))[0]
        raise UnreadableImages(
            f"{file}: has no usable row. The first: {path}: {reason}. Expected paths relative to "
            f"the table's folder in the column {roles.path!r}, and class names in "
            f"{roles.label!r}: to read other columns, --set data.path_column=COLUMN and --set "
            "data.label_column=COLUMN.",
            len(scan.rejected),
            (path, reason),
        )
    present = {image.split for image in scan.labelled}
    splits = [split for split in SPLITS if split in present]
    if splits and None in present:
        scan.labelled = [replace(image, split=image.split or "train") for image in scan.labelled]
        scan.warnings.append("Rows without a split are in the training set.")
        splits = [split for split in SPLITS if split in present | {"train"}]
    if training and splits and splits[0] != "train":
        raise ResiduaError(f"{file}: no row has the split 'train': its splits are {splits}.")
    if repeated:
        repeat = counted(repeated, "row repeats", "rows repeat")
        scan.warnings.append(f"{repeat} an earlier row exactly.")
    names = {image.name for image in scan.labelled}
    scan.warnings += [
        f"{name!r} is a class: if it marks images without a label, leave these cells empty."
        for name in sorted(names)
        if name.casefold() in _MISSING
    ]
    order = _order(names)
    try:
        classes = classes_of(scan, splits if training else [], order)
    except ResiduaError as error:  # a class that the training set lacks
        raise ResiduaError(f"{file}: {error}") from error
    images = sorted(scan.labelled, key=attrgetter("path"))
    rows = [image.row for image in images]
    parent = file.absolute().parent.name
    return FileDataset(
        root=file.parent,
        name=file.stem if file.stem.lower() not in _GENERIC else parent or file.stem,
        description=f"table of images (columns {roles.path!r}, {roles.label!r})"
        + (f", split into {', '.join(splits)}" if splits else "")
        + (f", grouped by {roles.group!r}" if roles.group else "")
        + (f", weighted by {roles.weight!r}" if roles.weight else ""),
        classes=classes,
        entries=entries_of(images, classes),
        rejected=sorted(scan.rejected),
        warnings=scan.warnings,
        columns=properties_in(table.columns, rows, dataclasses.astuple(roles)),
    )


def listed_files(file: Path) -> list[tuple[str, Path | str]]:
    """Path as shown, and file or reason why there is none, of each row of a table; labels are not
    needed. Raises ResiduaError."""
    table = read_table(file)
    try:
        name = path_column(list(table.columns), _with_others(table))
    except ResiduaError as error:  # which advises settings of a training
        raise ResiduaError(
            f"{file}: expected one column named path, with a file in each row. Its columns are "
            f"{shown_columns(list(table.columns))}."
        ) from error
    files = _Files(file.parent)
    rows: list[tuple[str, Path | str]] = []
    for cell in _texts(table, name, "path"):
        path, reason = files.locate(cell)
        shown = str(file.parent / path) if path else cell
        rows.append((shown, reason or file.parent / path))
    return rows


def _with_others(table: Table) -> str:
    """The table's name for messages on its columns, with the columns that hold something else."""
    if not table.others:
        return str(table.file)
    return (
        f"{table.file} (whose columns {', '.join(table.others)} hold neither text nor numbers, so "
        "not paths)"
    )


def _listed(table: Table, roles: Columns) -> tuple[Scan, int]:
    """Every row as a labelled image, or rejected; and how many repeat an earlier row. Raises
    ResiduaError on contradicting rows."""
    scan, files = Scan(), _Files(table.file.parent)
    first_of: dict[str, LabelledFile] = {}
    repeated = 0
    empty = [""] * len(table.numbers)
    label = roles.label
    labels = _labels(_texts(table, label, "label"), table, label)
    groups = _texts(table, roles.group, "group") if roles.group else empty
    splits = _splits(table, roles.split) if roles.split else [None] * len(empty)
    weights = _weights(table, roles.weight) if roles.weight else [1.0] * len(empty)
    texts = _texts(table, roles.path, "path")
    for at, (text, name, part, group, weight) in enumerate(
        zip(texts, labels, splits, groups, weights, strict=True)
    ):
        path, reason = files.locate(text)
        if not reason and not name:
            reason = f"has no label in the column {label!r}"
        if reason:
            number = table.numbers[at]
            shown = path or text[:_MAX_LABEL] or f"row {number}"
            scan.rejected.append((shown, f"row {number}: {reason}"))
            continue
        image = LabelledFile(path, name, part, group, weight, at)
        first = first_of.setdefault(path, image)
        if first is image:
            scan.labelled.append(image)
        else:
            _check_repeated(table, first, image)
            repeated += 1
    return scan, repeated


def _check_repeated(table: Table, first: LabelledFile, image: LabelledFile) -> None:
    """Raise ResiduaError if two rows of an image differ."""
    for role, before, now in (
        ("label", first.name, image.name),
        ("split", first.split, image.split),
        ("weight", first.weight, image.weight),
    ):
        if before != now:
            raise ResiduaError(
                f"{table.file}, row {table.numbers[image.row]}: {image.path} has the {role} "
                f"{now!r}, but {before!r} in row {table.numbers[first.row]}: delete one of the "
                f"rows. An image has one {role}."
            )


def _texts(table: Table, column: str, role: str) -> list[str]:
    """The cells of a column as text. Raises ResiduaError for lists and objects."""
    texts = []
    for cell, number in zip(table.columns[column], table.numbers, strict=True):
        if (text := text_of(cell)) is None:
            raise ResiduaError(
                f"{table.file}, row {number}: the {role} in the column {column!r} is of type "
                f"{type(cell).__name__}: expected text or a number, one {role} for each image."
            )
        texts.append(text)
    return texts


def _labels(texts: list[str], table: Table, column: str) -> list[str]:
    """Class names; "1.0", as pandas writes whole numbers beside empty cells, becomes "1"."""
    used = [text for text in texts if text]
    if used and all(_WHOLE.fullmatch(text) for text in used):
        texts = [_WHOLE.sub(r"\1", text) for text in texts]
    elif used and all(_FRACTION.fullmatch(text) for text in used):
        raise ResiduaError(
            f"{table.file}: the column {column!r} holds measurements such as {used[0]}: expected "
            "classes. Choose another with --set data.label_column=COLUMN."
        )
    for number, text in zip(table.numbers, texts, strict=True):
        problem = ""
        if len(text) > _MAX_LABEL:
            problem = f"has {len(text):,} characters: expected at most {_MAX_LABEL}"
        elif LINE_BREAK.search(text) or any(ord(letter) < 32 for letter in text):
            problem = f"{text!r} contains a line break or control character: remove it"
        elif any("\ud800" <= letter <= "\udfff" for letter in text):
            problem = f"{text!r} is not valid Unicode"
        if problem:
            raise ResiduaError(f"{table.file}, row {number}: the label {problem}.")
    return texts


def _weights(table: Table, column: str) -> list[float]:
    return [
        weight_of(text, column, f"{table.file}, row {number}")
        for number, text in zip(table.numbers, _texts(table, column, "weight"), strict=True)
    ]


def _splits(table: Table, column: str) -> list[SplitName | None]:
    return [
        split_named(text, f"{table.file}, row {number}") if text else None
        for number, text in zip(table.numbers, _texts(table, column, "split"), strict=True)
    ]


def class_order(names: Collection[str]) -> list[str]:
    """Names of classes in order: whole numbers by value, anything else by text."""
    return sorted(names, key=_order(names))


def _order(names: Collection[str]) -> Callable[[str], Any]:
    return (lambda name: (int(name), name)) if all(map(_INTEGER.fullmatch, names)) else str


class _Files:
    """The files that paths of a table mean."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as written

    def locate(self, text: str) -> tuple[str, str]:
        """Path relative to the folder (absolute for a file elsewhere), and why it is unusable.

        A path without a file, as Kaggle's ids, may be the name of a file in any folder below, with
        or without suffix.
        """
        if not text:
            return "", "has no path"
        if _ADDRESS.match(text):
            return "", "is an address: download the image, and list the file"
        try:
            forms = [text, text.replace("\\", "/"), *(normalize(f, text) for f in ("NFC", "NFD"))]
            path = next(filter(None, map(self._existing, dict.fromkeys(forms))), "")
            named = [path] if path else self._named(text.replace("\\", "/"))
            if len(named) != 1:
                missing = "there is no such file" if not named else "may be "
                return "", missing + " or ".join(sorted(named)[:3])
            (path,) = named
            path.encode()
            reason = recognition.objection(self._folder / path)
        except (OSError, ValueError) as error:
            return "", f"cannot be read: {reason_of(error)}"
        if LINE_BREAK.search(path):
            return "", "has a line break in its name: rename it"
        return path, reason or ""

    def _existing(self, text: str) -> str:
        path = os.path.normpath(self._absolute / text)
        if not os.path.exists(path):  # noqa: PTH110 - of text, twice as fast
            return ""
        plain = PurePosixPath(Path(path).as_posix())
        if plain.is_relative_to(self._absolute.as_posix()):
            return plain.relative_to(self._absolute.as_posix()).as_posix()
        relative = os.path.normpath(text).replace(os.sep, "/")
        return plain.as_posix() if Path(text).is_absolute() else relative

    def _named(self, text: str) -> list[str]:
        target = PurePosixPath(text)
        if target.is_absolute() or ".." in target.parts:
            return []
        return [
            path
            for path in self._by_name.get(target.name, ())
            if f"/{path}".endswith(f"/{text}")
            or f"/{path.removesuffix(PurePosixPath(path).suffix)}".endswith(f"/{text}")
        ]

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[str]]:
        """Image files below the folder by their name, with and without suffix."""
        index: dict[str, list[str]] = {}
        for path in islice(files_below(self._folder), _MAX_SEARCHED):
            if recognition.is_claimed(path):
                shown = path.relative_to(self._folder).as_posix()
                for name in {path.name, path.stem}:
                    index.setdefault(name, []).append(shown)
        return index
