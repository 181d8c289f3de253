"""What the user calls DATA -> a Source: embedded digits, IDX files, CIFAR archives, or a folder.

Packed sets are read whole into uint8 [N, H, W, C]. No code in a file is ever executed: the pickles
of CIFAR's python form are read by an unpickler that can build records and nothing else.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.data import folder
from residua.data.source import Entry, Header, Part, Pixels, Source
from residua.errors import ResiduaError

Labels = npt.NDArray[np.int64]
Block = tuple[Pixels, Labels]  # uint8 [N, H, W, C] and int64 [N]

_TEN = tuple(str(digit) for digit in range(10))
_IDX = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_IDX_DIMENSIONS = {"images": 3, "labels": 1}
_CIFAR_BYTES = 2**28  # the largest file, train of CIFAR-100, has 0.16e9


@dataclass(frozen=True)
class _Cifar:
    """One of the four forms that CIFAR is published in; `labels` is a key or a count of bytes."""

    title: str
    train: str
    test: str
    meta: str
    count: int
    labels: str | int


_CIFAR_FORMS = (
    _Cifar("CIFAR-10, binary", r"data_batch_\d\.bin", "test_batch.bin", "batches.meta.txt", 10, 1),
    _Cifar("CIFAR-10, python", r"data_batch_\d", "test_batch", "batches.meta", 10, "labels"),
    _Cifar("CIFAR-100, binary", r"train\.bin", "test.bin", "fine_label_names.txt", 100, 2),
    _Cifar("CIFAR-100, python", "train", "test", "meta", 100, "fine_labels"),
)


@dataclass(frozen=True, eq=False)
class PackedSource:
    """Pictures of one size in one array, uint8 [N, H, W, C]; implements `Source`."""

    name: str
    description: str
    classes: tuple[str, ...]
    entries: Sequence[Entry]
    array: Pixels
    format: str
    rejected: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()

    def content(self, index: int) -> bytes:
        """The pixels of one picture, row by row, channels last."""
        content: bytes = self.array[index].tobytes()
        return content

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """The same for every picture; nothing here is large enough for `max_pixels`."""
        height, width, channels = self.array.shape[1:]
        return Header(width, height, self.format, "RGB" if channels == 3 else "L")

    def pixels(self, index: int, content: bytes, channels: int, max_pixels: int) -> Pixels:
        """uint8 [H, W, channels]; grey by Pillow's weights."""
        found = np.frombuffer(content, np.uint8).reshape(self.array.shape[1:])
        if self.array.shape[3] == channels:
            return found
        if channels == 3:
            return np.repeat(found, 3, axis=2)
        return np.asarray(Image.fromarray(found).convert("L"))[:, :, None]


def open_source(data: str) -> Source:
    """The data set of this name or path; "digits" is the one of scikit-learn.

    Raises ResiduaError for what is missing, damaged or not recognised.
    """
    if data == "digits":
        return _digits()
    if not data:
        raise ResiduaError(f"No data given.\n{folder.LAYOUT}\nOr the name 'digits'.")
    try:
        root = Path(data).expanduser()
        is_file = root.is_file()
    except (OSError, RuntimeError) as error:  # a closed folder above it; "~" without a home
        raise ResiduaError(f"{data} cannot be reached: {error}.") from error
    if is_file:
        files = _archived(root)
        form = _cifar_form(files)
        if form is None:
            raise ResiduaError(f"{root} holds neither CIFAR-10 nor CIFAR-100: unpack it first.")
        return _cifar(root, form, files)
    for place in (root, root / "raw"):  # torchvision keeps MNIST in raw/
        paths = {path.name: path for path in _files(place)}
        if any(map(_IDX.fullmatch, paths)):
            return _idx(root, paths)
        form = _cifar_form(paths)
        if form is not None:
            kept = {name: path for name, path in paths.items() if _wanted(form, name)}
            return _cifar(root, form, {name: _read_limited(path) for name, path in kept.items()})
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
    return _packed("digits", "the digits of scikit-learn", "digits", _TEN, {None: block})


def _packed(
    name: str,
    description: str,
    format: str,
    classes: tuple[str, ...],
    blocks: Mapping[Part | None, Block],
) -> PackedSource:
    """Joins the parts; refuses those that do not fit together or hold nothing."""
    shapes = {pixels.shape[1:] for pixels, _ in blocks.values()}
    array = np.concatenate([pixels for pixels, _ in blocks.values()]) if len(shapes) == 1 else None
    if array is None or array.size == 0:
        raise ResiduaError(f"{name}: no pictures, or parts of different size: {sorted(shapes)}.")
    digits = len(str(len(array)))
    entries = [
        Entry(f"{part or name}/{number:0{digits}}", int(label), part)
        for part, (_, labels) in blocks.items()
        for number, label in enumerate(labels)
    ]
    return PackedSource(name, description, classes, entries, array, format)


def _check_labels(pixels: Pixels, labels: Labels, count: int, where: str) -> Block:
    """The block, if it has one label in 0..count-1 for each picture."""
    if len(pixels) != len(labels):
        raise ResiduaError(f"{where}: {len(pixels):,} pictures but {len(labels):,} labels.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < count:
        raise ResiduaError(
            f"{where}: expected labels from 0 to {count - 1}, found some from {labels.min()} to "
            f"{labels.max()}."
        )
    return pixels, labels


# IDX: MNIST, Fashion-MNIST and their relatives.


def _idx(root: Path, paths: Mapping[str, Path]) -> PackedSource:
    """Parts train and test of the customary files; which data set it is, the files do not say."""
    found: dict[tuple[str, str], Path] = {}
    for name in sorted(paths):  # "x" before "x.gz": what is unpacked already is read
        match = _IDX.fullmatch(name)
        if match:
            part = "train" if match[1] == "train" else "test"
            found.setdefault((part, match[2]), paths[name])
    blocks: dict[Part | None, Block] = {}
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
        blocks["train" if part == "train" else "test"] = _check_labels(
            images[..., None], labels, len(_TEN), where
        )
    return _packed(folder.short_name(root), "IDX files as of MNIST", "IDX", _TEN, blocks)


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


# CIFAR-10 and CIFAR-100, binary and python form, packed or unpacked.


def _cifar_form(names: Iterable[str]) -> _Cifar | None:
    """The form that a set of file names has; a training file and one other must be there."""
    found = set(names)
    for form in _CIFAR_FORMS:
        if any(re.fullmatch(form.train, name) for name in found) and {form.test, form.meta} & found:
            return form
    return None


def _wanted(form: _Cifar, name: str) -> bool:
    return name in (form.test, form.meta) or re.fullmatch(form.train, name) is not None


def _cifar(root: Path, form: _Cifar, files: Mapping[str, bytes]) -> PackedSource:
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
    named_parts: list[tuple[Part, list[str]]] = [("train", train)]
    if form.test in files:
        named_parts.append(("test", [form.test]))
    blocks: dict[Part | None, Block] = {}
    for part, names in named_parts:
        read = [_cifar_block(form, files[name], f"{root}, {name}") for name in names]
        blocks[part] = (
            np.concatenate([pixels for pixels, _ in read]),
            np.concatenate([labels for _, labels in read]),
        )
    name = re.sub(r"\.(tar|tgz)(\.\w+)?$", "", folder.short_name(root))
    return _packed(name, form.title, "CIFAR", classes, blocks)


def _cifar_block(form: _Cifar, content: bytes, where: str) -> Block:
    """One file of pictures: uint8 [N, 32, 32, 3] and their (fine) labels."""
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
    return _check_labels(pixels, labels, form.count, where)


def _read_limited(path: Path) -> bytes:
    try:
        if path.stat().st_size > _CIFAR_BYTES:
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
                if not member.isfile() or not any(_wanted(form, name) for form in _CIFAR_FORMS):
                    continue
                if member.size > _CIFAR_BYTES:
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
