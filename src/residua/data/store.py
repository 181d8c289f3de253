"""Labelled images that are not in files of the user -> a stored data set, and back.

A data set is a folder residua-<digest>, by default in the user's cache, so equal images are stored
once and runs find them again. Pixels are in one file, one image after the other; index.json
describes them. The digest is that of the index, which has the digest of the pixels: both are
verified when they are opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from residua.data.arrays import ArrayDataset
from residua.data.columns import column_of, weight_of
from residua.data.dataset import Entry, Pixels, SplitName
from residua.data.properties import properties_in
from residua.errors import ResiduaError
from residua.system.files import cache_folder, reason_of, sha256_of, stored_folder

Cells = Mapping[str, str]
_NAME = re.compile("residua-[0-9a-f]{32}")
INDEX, PIXELS, ROWS = "index.json", "pixels", "images.jsonl"
_GIVEN = "the data given"  # in messages
_AGAIN = (
    "Delete the folder, and give the images again: train(data), or evaluate(run, data_path=...)."
)


@dataclass(frozen=True)
class Labelled:
    """An image of a data set: uint8 [H, W, C], the name of its class, its split if it has one.

    cells: of further columns by name, "" without a value.
    """

    pixels: Pixels
    label: str
    split: SplitName | None
    cells: Cells = field(default_factory=dict)


def is_stored(root: Path) -> bool:
    """Whether a path is of a stored data set, by its name; it may be gone."""
    folder = root.parent if root.name == ROWS else root
    return bool(_NAME.fullmatch(folder.name))


def store_rows(rows: Iterable[Mapping[str, object]], parent: Path | None) -> Path:
    """Store a table of paths, labels, splits and so on; returns its file. Raises ResiduaError.

    parent: the folder to store it in; None: one in the user's cache.
    """
    text = "".join(f"{json.dumps(row)}\n" for row in rows)

    def write(folder: Path) -> str:
        (folder / ROWS).write_text(text, "utf-8")
        return _name(hashlib.sha256(text.encode()))

    return _stored(write, parent) / ROWS


def store_images(
    images: Iterable[Labelled],
    order: Callable[[Sequence[str]], Sequence[str]],
    parent: Path | None,
) -> Path:
    """Store images one by one; returns the folder. Raises ResiduaError.

    order: names of classes -> the same names in the order of the labels. parent: see `store_rows`.
    """

    def write(folder: Path) -> str:
        digest = hashlib.sha256()
        rows: list[tuple[str, SplitName | None, tuple[int, ...]]] = []
        cells: list[Cells] = []
        with (folder / PIXELS).open("xb") as file:
            for image in images:
                content = image.pixels.tobytes()
                file.write(content)
                digest.update(content)
                rows.append((image.label, image.split, image.pixels.shape))
                cells.append(image.cells)
        classes = list(order(sorted({label for label, _, _ in rows})))
        index = {"classes": classes, "images": rows, "sha256": digest.hexdigest()}
        if names := sorted({name for row in cells for name in row}):
            index["columns"] = {name: [row.get(name, "") for row in cells] for name in names}
        text = json.dumps(index)
        (folder / INDEX).write_text(text, "utf-8")
        return _name(hashlib.sha256(text.encode()))

    return _stored(write, parent)


def open_images(root: Path, group: str, weight: str) -> ArrayDataset:
    """The images in a folder that `store_images` wrote. Raises ResiduaError if it is damaged.

    group, weight: the settings data.group_by and data.weight_column, which may be columns.
    """
    try:
        text = (root / INDEX).read_text("utf-8")
        index = json.loads(text)
        is_changed = sha256_of(root / PIXELS) != index["sha256"]
        if is_changed or root.name != _name(hashlib.sha256(text.encode())):
            raise ValueError("it has changed")
        pixels = np.memmap(root / PIXELS, np.uint8, "r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResiduaError(f"{root}: stored images are damaged: {error}. {_AGAIN}") from error
    images: list[Pixels] = []
    start = 0
    for _, _, shape in index["images"]:
        end = start + math.prod(shape)
        images.append(pixels[start:end].reshape(shape))
        start = end
    labels = {name: label for label, name in enumerate(index["classes"])}
    digits = len(str(len(images)))
    cells: dict[str, list[str]] = index.get("columns", {})
    grouping = column_of("group", list(cells), group, _GIVEN)
    groups = cells.get(grouping) or [""] * len(images)
    weighting = column_of("weight", list(cells), weight, _GIVEN)
    weights = [
        weight_of(text, weighting, f"image {number} of {_GIVEN}")
        for number, text in enumerate(cells.get(weighting, ()))
    ] or [1.0] * len(images)
    entries = [
        Entry(
            f"{split or 'images'}/{number:0{digits}}",
            labels[name],
            split,
            groups[number],
            weights[number],
        )
        for number, (name, split, _) in enumerate(index["images"])
    ]
    return ArrayDataset(
        name="images",
        description="images given in Python"
        + (f", grouped by {grouping!r}" if grouping else "")
        + (f", weighted by {weighting!r}" if weighting else ""),
        classes=tuple(index["classes"]),
        entries=entries,
        images=images,
        format="array",
        columns=properties_in(cells, range(len(images)), {grouping, weighting}),
    )


def _name(digest: hashlib._Hash) -> str:
    return f"residua-{digest.hexdigest()[:32]}"


def _stored(write: Callable[[Path], str], parent: Path | None) -> Path:
    """See `stored_folder`; the folder of the user's cache without `parent`."""
    folder = parent or cache_folder() / "data"
    try:
        return stored_folder(folder, write)
    except OSError as error:
        raise ResiduaError(
            f"the images cannot be stored in {folder}: {reason_of(error)}. Set "
            f"{'TMPDIR' if parent else 'RESIDUA_CACHE'} to a folder on another disk."
        ) from error
