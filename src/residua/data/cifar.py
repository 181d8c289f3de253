"""CIFAR-10 and CIFAR-100, binary and python form, packed or unpacked -> a PackedSource.

No code in a file is ever executed: the pickles of the python form are read by an unpickler that can
build records and nothing else.
"""

from __future__ import annotations

import io
import pickle
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residua.data import folder
from residua.data.arrays import Block, PackedSource, checked_block, packed
from residua.data.dataset import Pixels, SplitName
from residua.errors import ResiduaError

_BYTES = 2**28  # the largest file, train of CIFAR-100, has 0.16e9


@dataclass(frozen=True)
class _Cifar:
    """One of the four forms that CIFAR is published in; `labels` is a key or a count of bytes."""

    title: str
    train: str
    test: str
    meta: str
    count: int
    labels: str | int


_FORMS = (
    _Cifar("CIFAR-10, binary", r"data_batch_\d\.bin", "test_batch.bin", "batches.meta.txt", 10, 1),
    _Cifar("CIFAR-10, python", r"data_batch_\d", "test_batch", "batches.meta", 10, "labels"),
    _Cifar("CIFAR-100, binary", r"train\.bin", "test.bin", "fine_label_names.txt", 100, 2),
    _Cifar("CIFAR-100, python", "train", "test", "meta", 100, "fine_labels"),
)


def from_archive(path: Path) -> PackedSource:
    """The data set in a tar archive. Raises ResiduaError."""
    files = _archived(path)
    form = _form(files)
    if form is None:
        raise ResiduaError(f"{path} holds neither CIFAR-10 nor CIFAR-100: unpack it first.")
    return _source(path, form, files)


def from_files(root: Path, paths: Mapping[str, Path]) -> PackedSource | None:
    """The data set in these files, by name; None if they are no CIFAR. Raises ResiduaError."""
    form = _form(paths)
    if form is None:
        return None
    kept = {name: path for name, path in paths.items() if _wanted(form, name)}
    return _source(root, form, {name: _read_limited(path) for name, path in kept.items()})


def _form(names: Iterable[str]) -> _Cifar | None:
    """The form that a set of file names has; a training file and one other must be there."""
    found = set(names)
    for form in _FORMS:
        if any(re.fullmatch(form.train, name) for name in found) and {form.test, form.meta} & found:
            return form
    return None


def _wanted(form: _Cifar, name: str) -> bool:
    return name in (form.test, form.meta) or re.fullmatch(form.train, name) is not None


def _source(root: Path, form: _Cifar, files: Mapping[str, bytes]) -> PackedSource:
    if form.meta not in files:
        raise ResiduaError(f"{root}: looks like {form.title}, but {form.meta} is missing.")
    where = f"{root}, {form.meta}"
    if isinstance(form.labels, str):
        found = _unpickled(files[form.meta], where)
        listed = found.get(form.labels.removesuffix("s") + "_names")
        classes = tuple(map(_text, listed)) if isinstance(listed, list) else ()
    else:
        classes = tuple(files[form.meta].decode("utf-8", "replace").split())
    if len(classes) != form.count:
        raise ResiduaError(f"{where}: expected {form.count} class names, found {len(classes)}.")
    train = sorted(name for name in files if re.fullmatch(form.train, name))
    named_parts: list[tuple[SplitName, list[str]]] = [("train", train)]
    if form.test in files:
        named_parts.append(("test", [form.test]))
    blocks: dict[SplitName | None, Block] = {}
    for part, names in named_parts:
        read = [_block(form, files[name], f"{root}, {name}") for name in names]
        blocks[part] = (
            np.concatenate([pixels for pixels, _ in read]),
            np.concatenate([labels for _, labels in read]),
        )
    name = re.sub(r"\.(tar|tgz)(\.\w+)?$", "", folder.short_name(root))
    return packed(name, form.title, "CIFAR", classes, blocks)


def _block(form: _Cifar, content: bytes, where: str) -> Block:
    """One file of images: uint8 [N, 32, 32, 3] and their (fine) labels."""
    if isinstance(form.labels, int):
        row = form.labels + 3072
        if len(content) % row:
            raise ResiduaError(
                f"{where}: expected rows of {row:,} bytes, but {len(content):,} is no multiple."
            )
        rows = np.frombuffer(content, np.uint8).reshape(-1, row)
        flat, labels = rows[:, form.labels :], rows[:, form.labels - 1].astype(np.int64)
    else:
        found = _unpickled(content, where)
        flat = _recorded_array(found.get("data"), where)
        listed = found.get(form.labels)
        if not isinstance(listed, list) or not all(type(label) is int for label in listed):
            raise ResiduaError(f"{where}: expected a list of whole numbers as {form.labels!r}.")
        labels = np.array(listed, dtype=object).clip(-1, form.count).astype(np.int64)
    pixels = flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return checked_block(pixels, labels, form.count, where)


def _read_limited(path: Path) -> bytes:
    try:
        if path.stat().st_size > _BYTES:
            raise ResiduaError(f"{path}: is larger than any file of CIFAR.")
        return path.read_bytes()
    except OSError as error:
        raise ResiduaError(f"{path}: cannot be read: {error.strerror or error}.") from error


def _archived(path: Path) -> dict[str, bytes]:
    """Name -> content of the members of a tar archive that CIFAR could have."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if not member.isfile() or not any(_wanted(form, name) for form in _FORMS):
                    continue
                if member.size > _BYTES:
                    raise ResiduaError(f"{path}, {name}: is larger than any file of CIFAR.")
                file = archive.extractfile(member)
                contents[name] = file.read() if file else b""
    except ResiduaError:
        raise
    except Exception as error:  # tarfile, gzip, bz2 and lzma have their own, and not all are listed
        raise ResiduaError(
            f"{path} is a file, and cannot be read as a CIFAR archive: {error}.\n{folder.LAYOUT}"
        ) from error
    return contents


class _Record:
    """What stands for anything that a pickle would build: its arguments and state, no behaviour."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Reader(pickle._Unpickler):
    """Reads plain values, and records where numpy would have been called.

    Python's own implementation, not the one in C: that one allocates whatever size a file names.
    """

    dispatch = {  # noqa: RUF012 - a table of the base class, without BYTEARRAY8 (it allocates too)
        code: method for code, method in pickle._Unpickler.dispatch.items() if code != 0x96
    }

    def find_class(self, module: str, name: str) -> type[_Record]:
        if (module.replace("numpy._core", "numpy.core"), name) in _RECORDED:
            return _Record
        raise ResiduaError(f"asks for {module}.{name}, which no data needs; nothing was executed")


_RECORDED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
}


def _unpickled(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary in a pickle, keys as text. Raises ResiduaError; executes nothing."""
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
        return {_text(key): value for key, value in found.items()}
    except Exception as error:  # damaged pickles raise anything
        raise ResiduaError(f"{where}: is no pickle of CIFAR: {error!s}.") from error


def _recorded_array(record: object, where: str) -> Pixels:
    """uint8 [N, 3072] from what numpy would have been called with."""
    try:
        _, shape, kind, by_columns, raw = record.state  # type: ignore[attr-defined]
        if isinstance(raw, _Record):
            raw = raw.arguments[0]
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if _text(kind.arguments[0]) != "u1" or by_columns or shape[1:] != (3072,):
            raise ValueError(f"found an array of {kind.arguments[0]!r} of shape {shape}")
        return np.frombuffer(raw, np.uint8).reshape(shape)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise ResiduaError(f"{where}: expected 'data' as uint8 [N, 3072]: {error}.") from error


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
