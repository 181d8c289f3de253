"""CIFAR-10 and CIFAR-100, binary or Python version, archive or folder -> an ArrayDataset.

No code in a file is ever executed: pickles are read by an unpickler that builds plain values and
plain containers and arrays only.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residua.data import folder
from residua.data.arrays import ArrayDataset, Block, array_dataset, checked_block
from residua.data.dataset import Pixels, SplitName
from residua.errors import ResiduaError
from residua.system.files import reason_of

_MAX_BYTES = 2**28  # the largest file, train of CIFAR-100, has 0.16e9


@dataclass(frozen=True)
class _Version:
    """A published version of CIFAR. train: a pattern of file names; test, meta: file names.

    labels: key of the labels in a pickle, or bytes of labels in a binary row.
    """

    title: str
    train: str
    test: str
    meta: str
    classes: int
    labels: str | int


_VERSIONS = (
    _Version(
        "CIFAR-10, binary", r"data_batch_\d\.bin", "test_batch.bin", "batches.meta.txt", 10, 1
    ),
    _Version("CIFAR-10, python", r"data_batch_\d", "test_batch", "batches.meta", 10, "labels"),
    _Version("CIFAR-100, binary", r"train\.bin", "test.bin", "fine_label_names.txt", 100, 2),
    _Version("CIFAR-100, python", "train", "test", "meta", 100, "fine_labels"),
)


def from_archive(path: Path) -> ArrayDataset | None:
    """The data set in a tar archive; None if it is not CIFAR. Raises ResiduaError."""
    files = _archive_files(path)
    version = _version(files)
    return None if version is None else _dataset(path, version, files)


def from_files(root: Path, paths: Mapping[str, Path]) -> ArrayDataset | None:
    """The data set in these files, by name; None if they are not CIFAR. Raises ResiduaError."""
    version = _version(paths)
    if version is None:
        return None
    files = {name: _read(path) for name, path in paths.items() if _belongs(version, name)}
    return _dataset(root, version, files)


def _version(names: Iterable[str]) -> _Version | None:
    """The version with these file names: a training file and the test or metadata file."""
    names = set(names)
    for version in _VERSIONS:
        has_train = any(re.fullmatch(version.train, name) for name in names)
        if has_train and {version.test, version.meta} & names:
            return version
    return None


def _belongs(version: _Version, name: str) -> bool:
    return name in (version.test, version.meta) or re.fullmatch(version.train, name) is not None


def _dataset(root: Path, version: _Version, files: Mapping[str, bytes]) -> ArrayDataset:
    if version.meta not in files:
        raise ResiduaError(f"{root}: seems to be {version.title}, but {version.meta} is missing.")
    where = f"{root}, {version.meta}"
    if isinstance(version.labels, str):
        names = _unpickled(files[version.meta], where).get(f"{version.labels[:-1]}_names")
        classes = tuple(map(_text, names)) if isinstance(names, list) else ()
    else:
        classes = tuple(files[version.meta].decode("utf-8", "replace").split())
    if len(classes) != version.classes:
        raise ResiduaError(
            f"{where}: expected {version.classes} class names, found {len(classes)}."
        )
    of_split: dict[SplitName, list[str]] = {
        "train": sorted(name for name in files if re.fullmatch(version.train, name)),
        "test": [version.test] if version.test in files else [],
    }
    blocks: dict[SplitName | None, Block] = {}
    for split, names in of_split.items():
        if names:
            read = [_block(version, files[name], f"{root}, {name}") for name in names]
            blocks[split] = (
                np.concatenate([pixels for pixels, _ in read]),
                np.concatenate([labels for _, labels in read]),
            )
    name = re.sub(r"\.(tar|tgz)(\.\w+)?$", "", folder.short_name(root))
    return array_dataset(name, version.title, "CIFAR", classes, blocks)


def _block(version: _Version, content: bytes, where: str) -> Block:
    """One file of images: uint8 [N, 32, 32, 3] and their (fine) labels."""
    if isinstance(version.labels, int):
        row = version.labels + 3072
        if len(content) % row:
            raise ResiduaError(
                f"{where}: expected rows of {row:,} bytes, but {len(content):,} is no multiple."
            )
        rows = np.frombuffer(content, np.uint8).reshape(-1, row)
        flat, labels = rows[:, version.labels :], rows[:, version.labels - 1].astype(np.int64)
    else:
        batch = _unpickled(content, where)
        flat = _recorded_array(batch.get("data"), where)
        listed = batch.get(version.labels)
        if not isinstance(listed, list) or not all(type(label) is int for label in listed):
            raise ResiduaError(f"{where}: expected a list of whole numbers as {version.labels!r}.")
        labels = np.array(listed, dtype=object).clip(-1, version.classes).astype(np.int64)
    pixels = flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return checked_block(pixels, labels, version.classes, where)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ResiduaError(f"{path}: is larger than any file of CIFAR.")
        return path.read_bytes()
    except OSError as error:
        raise ResiduaError(f"{path}: cannot be read: {reason_of(error)}.") from error


def _archive_files(path: Path) -> dict[str, bytes]:
    """Name -> content of the members of a tar archive that have a name of CIFAR."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            read = 0
            for member in archive:
                read += member.size
                if not contents and read > _MAX_BYTES:  # no version has as much beside its files
                    break
                name = member.name.rpartition("/")[2]
                if not member.isfile() or not any(_belongs(version, name) for version in _VERSIONS):
                    continue
                if member.size > _MAX_BYTES:
                    raise ResiduaError(f"{path}, {name}: is larger than any file of CIFAR.")
                file = archive.extractfile(member)
                contents[name] = file.read() if file else b""
    except ResiduaError:
        raise
    except Exception as error:  # tarfile, gzip, bz2 and lzma raise their own, undocumented ones
        raise ResiduaError(
            f"{path} is a file, and cannot be read as an archive: {error}.\n{folder.LAYOUT}"
        ) from error
    return contents


class _Record:
    """Replaces any object of a pickle: its arguments and state, without behaviour."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Builds plain values, and a record wherever NumPy would be called."""

    def find_class(self, module: str, name: str) -> type[_Record]:
        if (module.replace("numpy._core", "numpy.core"), name) in _RECORDED:
            return _Record
        raise ResiduaError(f"requests {module}.{name}, which no data needs; nothing was executed")


_RECORDED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
}


def _unpickled(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary in a pickle, keys as text. Raises ResiduaError; executes nothing."""
    try:
        _check_sizes(content)
        values = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        return {_text(key): value for key, value in values.items()}
    except Exception as error:  # damaged pickles raise anything
        raise ResiduaError(f"{where}: is not a pickle of CIFAR: {error!s}.") from error


def _check_sizes(content: bytes) -> None:
    """Raise ValueError where the unpickler would allocate memory that the content does not fill.

    `genops` itself refuses strings longer than the content; memo slots must be used in order.
    """
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name.endswith("PUT") and int(argument or 0) > number:
            raise ValueError(f"memo slot {argument} after {number} operations")


def _recorded_array(record: object, where: str) -> Pixels:
    """uint8 [N, 3072] from the arguments that NumPy would have received."""
    try:
        _, shape, kind, by_columns, raw = record.state  # type: ignore[attr-defined]
        if isinstance(raw, _Record):
            raw = raw.arguments[0]
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if _text(kind.arguments[0]) != "u1" or by_columns or shape[1:] != (3072,):
            raise ValueError(f"found {kind.arguments[0]!r} of shape {shape}")
        return np.frombuffer(raw, np.uint8).reshape(shape)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise ResiduaError(f"{where}: expected 'data' as uint8 [N, 3072]: {error}.") from error


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
