"""DATA -> a Dataset: the built-in digits, a table, IDX files, CIFAR, or a folder of images.

IDX, CIFAR and the digits are read at once into uint8 [N, H, W, C].
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from residua.config.schema import Data
from residua.data import archive, cifar, folder, listing, store
from residua.data.arrays import ArrayDataset, Block, array_dataset, checked_block
from residua.data.dataset import Dataset, Pixels, SplitName
from residua.data.recognition import objection
from residua.data.scan import FileDataset
from residua.data.table import is_table
from residua.errors import ResiduaError, UnreadableImages
from residua.system.files import is_there, user_path
from residua.system.words import counted

NO_CHOICE = Data()
EMBEDDED = "digits"  # a data set's name that is no path
_DIGITS = tuple(str(digit) for digit in range(10))
_IDX = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_IDX_DIMENSIONS = {"images": 3, "labels": 1}


def resolved(data: str) -> str:
    """The absolute path of a data set, as runs record it; "digits" for the embedded one."""
    if data == EMBEDDED and not Path(data).exists():
        return data
    return str(user_path(data).absolute())


def open_recorded(data: str, settings: Data = NO_CHOICE) -> Dataset:
    """The data set that a run recorded by its absolute path. Raises ResiduaError."""
    if data == EMBEDDED:
        return _digits()
    if not is_there(user_path(data)):
        if store.is_stored(user_path(data)):
            raise ResiduaError(
                f"{data}: the data that this run was given in Python were stored here, and are "
                "gone. Give them again: evaluate or resume with data_path=..."
            )
        raise ResiduaError(
            f"{data}: the data of this run were here and are gone. If they were moved, name their "
            "present path with --data; it is compared with split.csv."
        )
    return open_dataset(data, settings=settings)


def open_dataset(data: str, *, training: bool = True, settings: Data = NO_CHOICE) -> Dataset:
    """The data set of this name or path; an existing path comes first.

    training: False accepts a folder with a validation or test set alone. settings: columns of a
    table.
    Raises ResiduaError if it is missing or damaged, or if columns of another data set are chosen.
    """
    if data == EMBEDDED and not Path(data).exists():
        return _digits()
    if not data:
        raise ResiduaError(f"No data given.\n{folder.LAYOUT}\nOr the name 'digits'.")
    try:
        root = user_path(data)
        is_file = root.is_file()
    except (OSError, ValueError) as error:  # such as no permission above it
        raise ResiduaError(f"{data} cannot be reached: {error}.") from error
    if is_file and is_table(root):
        return _table(root, settings, training)
    if store.is_stored(root) and (root / store.INDEX).exists():
        return store.open_images(root, settings.group_by, settings.weight_column)
    if is_file and (kind := archive.kind_of(root)):
        return _archive(root, kind, settings, training)
    for name in ("path_column", "label_column", "split_column", "weight_column"):
        if getattr(settings, name):
            raise ResiduaError(
                f"data.{name} has no effect: {data} is no table (.csv, .tsv, .jsonl, .parquet)."
            )
    if is_file:
        kind = "an image" if objection(root) is None else "neither a table nor an archive"
        raise ResiduaError(f"{data}: is {kind}, not a data set.\n{folder.LAYOUT}")
    for path in (root, root / "raw"):  # torchvision stores MNIST in raw/
        files = {file.name: file for file in _files(path)}
        if any(map(_IDX.fullmatch, files)):
            return _idx(root, files)
        if dataset := cifar.from_files(root, files):
            return dataset
    return folder.find(root, training=training)


def _table(file: Path, settings: Data, training: bool) -> Dataset:
    """The data set of a table; its name in messages is not that of a file in the cache."""
    if not store.is_stored(file):
        return listing.find(file, settings, training=training)
    stored = replace(settings, path_column="path", label_column="label", split_column="split")
    try:
        return listing.find(file, stored, training=training)
    except UnreadableImages as error:
        path, reason = error.first
        raise UnreadableImages(
            f"the list given as data: none of its {counted(error.count, 'image')} can be used. The "
            f"first is {path}: {reason}.",
            error.count,
            error.first,
        ) from error
    except ResiduaError as error:
        raise ResiduaError(str(error).replace(str(file), "the list given as data")) from error


def _archive(file: Path, kind: str, settings: Data, training: bool) -> Dataset:
    """The data set in an archive: CIFAR, class folders, or a table with its images."""
    if kind not in ("zip", "tar"):
        raise ResiduaError(f"{file}: is {kind}: unpack it, and give the folder.\n{folder.LAYOUT}")
    if kind == "tar" and (images := cifar.from_archive(file)):
        return images
    root = archive.unpacked(file)
    tables = [entry for entry in _files(root) if is_table(entry)]
    name, title = archive.short_name(file), f"{kind} archive, "
    try:
        if len(tables) == 1:
            dataset: FileDataset = listing.find(tables[0], settings, training=training)
        else:
            dataset = folder.find(root, training=training)
    except ResiduaError as error:
        raise ResiduaError(str(error).replace(str(root), str(file))) from error
    return replace(dataset, name=name, description=title + dataset.description)


def _files(path: Path) -> list[Path]:
    """The files directly in a folder; none if it cannot be read: `folder.find` reports that."""
    try:
        return [file for file in path.iterdir() if file.is_file()]
    except OSError:
        return []


def _digits() -> ArrayDataset:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8, scaled from 0..16 to 0..255."""
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    block = (pixels, digits.target.astype(np.int64))
    return array_dataset("digits", "the digits of scikit-learn", "digits", _DIGITS, {None: block})


def _idx(root: Path, files: Mapping[str, Path]) -> ArrayDataset:
    """A training and perhaps a test set in files named like those of MNIST."""
    paths: dict[tuple[SplitName, str], Path] = {}
    for name in sorted(files):  # "x" before "x.gz": the unpacked file is read
        if match := _IDX.fullmatch(name):
            split: SplitName = "train" if match[1] == "train" else "test"
            paths.setdefault((split, match[2]), files[name])
    blocks: dict[SplitName | None, Block] = {}
    for split in ("train", "test"):
        if split == "test" and not any(key[0] == "test" for key in paths):
            continue
        for kind in ("images", "labels"):
            if (split, kind) not in paths:
                raise ResiduaError(
                    f"{root}: {split} {kind} are missing: expected files like those of MNIST, "
                    f"train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., also as .gz."
                )
        images = _read_idx(paths[split, "images"], "images")[..., None]
        labels = _read_idx(paths[split, "labels"], "labels").astype(np.int64)
        where = str(paths[split, "labels"])
        blocks[split] = checked_block(images, labels, len(_DIGITS), where)
    return array_dataset(folder.short_name(root), "IDX files as of MNIST", "IDX", _DIGITS, blocks)


def _read_idx(path: Path, kind: str) -> Pixels:
    """uint8 [N, H, W] of images, [N] of labels. Memory is bounded by the size in the header."""
    dimensions = _IDX_DIMENSIONS[kind]
    magic = bytes((0, 0, 8, dimensions))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != magic:
                raise ResiduaError(
                    f"{path}: expected an IDX file of {kind}, which starts with {magic.hex()}; "
                    f"found {head[:4].hex() or 'nothing'}."
                )
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4", offset=4))
            size = math.prod(shape)
            is_possible = size <= 1032 * path.stat().st_size  # the best ratio of gzip
            body = file.read(size + 1) if is_possible else b""
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise ResiduaError(f"{path}: cannot be read: {error or 'too large'}.") from error
    if len(body) != size:
        number = "more" if len(body) > size else f"{len(body):,}" if is_possible else "fewer"
        raise ResiduaError(f"{path}: the header declares {size:,} bytes of {kind}, found {number}.")
    return np.frombuffer(body, np.uint8).reshape(shape)
