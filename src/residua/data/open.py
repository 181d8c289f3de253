"""What the user calls DATA -> a Source: embedded digits, IDX files, CIFAR archives, or a folder.

Packed sets are read whole into uint8 [N, H, W, C].
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from residua.data import cifar, folder
from residua.data.arrays import Block, PackedSource, checked_block, packed
from residua.data.dataset import Dataset, Pixels, SplitName
from residua.errors import ResiduaError

_TEN = tuple(str(digit) for digit in range(10))
_IDX = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_IDX_DIMENSIONS = {"images": 3, "labels": 1}


EMBEDDED = "digits"  # the name that is no path


def open_dataset(data: str) -> Dataset:
    """The data set of this name or path; "digits" is the one of scikit-learn.

    Raises ResiduaError for what is missing, damaged or not recognised.
    """
    if data == EMBEDDED:
        return _digits()
    if not data:
        raise ResiduaError(f"No data given.\n{folder.LAYOUT}\nOr the name 'digits'.")
    try:
        root = Path(data).expanduser()
        is_file = root.is_file()
    except (OSError, RuntimeError) as error:  # a closed folder above it; "~" without a home
        raise ResiduaError(f"{data} cannot be reached: {error}.") from error
    if is_file:
        return cifar.from_archive(root)
    for place in (root, root / "raw"):  # torchvision keeps MNIST in raw/
        paths = {path.name: path for path in _files(place)}
        if any(map(_IDX.fullmatch, paths)):
            return _idx(root, paths)
        found = cifar.from_files(root, paths)
        if found:
            return found
    return folder.find(root)


def _files(place: Path) -> list[Path]:
    """The files directly in a folder; none if it cannot be listed, which `folder.find` explains."""
    try:
        return [path for path in place.iterdir() if path.is_file()]
    except OSError:
        return []


def _digits() -> PackedSource:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8, 0..16 stretched to 0..255."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    found = load_digits()
    pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
    block = (pixels, found.target.astype(np.int64))
    return packed("digits", "the digits of scikit-learn", "digits", _TEN, {None: block})


def _idx(root: Path, paths: Mapping[str, Path]) -> PackedSource:
    """Parts train and test of the customary files; which data set it is, the files do not say."""
    found: dict[tuple[str, str], Path] = {}
    for name in sorted(paths):  # "x" before "x.gz": what is unpacked already is read
        match = _IDX.fullmatch(name)
        if match:
            part = "train" if match[1] == "train" else "test"
            found.setdefault((part, match[2]), paths[name])
    blocks: dict[SplitName | None, Block] = {}
    for part in ("train", "test"):
        if part == "test" and not any(key[0] == part for key in found):
            continue
        for what in ("images", "labels"):
            if (part, what) not in found:
                raise ResiduaError(
                    f"{root}: {part} {what} are missing: expected files like those of MNIST, "
                    f"train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., also as .gz."
                )
        images = _read_idx(found[part, "images"], "images")
        labels = _read_idx(found[part, "labels"], "labels").astype(np.int64)
        where = str(found[part, "labels"])
        blocks["train" if part == "train" else "test"] = checked_block(
            images[..., None], labels, len(_TEN), where
        )
    return packed(folder.short_name(root), "IDX files as of MNIST", "IDX", _TEN, blocks)


def _read_idx(path: Path, what: str) -> Pixels:
    """uint8 [N, H, W] of images, [N] of labels. Memory is bounded by what the header declares."""
    dimensions = _IDX_DIMENSIONS[what]
    magic = bytes((0, 0, 8, dimensions))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != magic:
                raise ResiduaError(
                    f"{path}: expected an IDX file of {what}, which starts with {magic.hex()}; "
                    f"found {head[:4].hex() or 'nothing'}."
                )
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4", offset=4))
            size = math.prod(shape)
            possible = size <= 1032 * path.stat().st_size  # gzip cannot pack more tightly
            body = file.read(size + 1) if possible else b""
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise ResiduaError(f"{path}: cannot be read: {error or 'too large'}.") from error
    if len(body) != size:
        more = "more" if len(body) > size else f"{len(body):,}" if possible else "fewer"
        raise ResiduaError(f"{path}: the header declares {size:,} bytes of {what}, found {more}.")
    return np.frombuffer(body, np.uint8).reshape(shape)
