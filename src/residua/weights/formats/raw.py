"""A file of any framework, told by its content -> its layers as stored, under their own names."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from residua.errors import ResiduaError
from residua.system.console import printable

if TYPE_CHECKING:
    from torch import Tensor

    from residua.weights.formats.keras_config import Described

HDF5 = b"\x89HDF\r\n\x1a\n"
FLOATS = ("float64", "float32", "float16", "bfloat16")  # kinds of numbers that weights may be
LARGEST_RATIO = 16  # of declared bytes to bytes on disk: weights hardly compress
LONGEST_HEADER = 2**24  # bytes of JSON; that of a network with 1,000 layers has 2**20
LONGEST_NAME = 500  # characters
READABLE = (
    "a Keras file (.h5, .weights.h5, .keras), a PyTorch checkpoint (.pth, .th, .pt) or .safetensors"
)


@dataclass(frozen=True)
class Stored:
    """What a file holds, nothing interpreted yet.

    form: the kind of file in words. layers: name -> part -> tensor. PyTorch's parts are weight,
    bias, running_mean, ...; Keras' are its places 0, 1, ..., whose order is the contract. Names
    are true ones, unless numbered_by_place: then they say only the class and the place of a layer
    among Keras' model.layers. described: what a whole model of Keras says of its layers.
    """

    path: Path
    framework: Literal["keras", "pytorch"]
    form: str
    layers: Mapping[str, Mapping[str, Tensor]]
    numbered_by_place: bool = False
    described: Described | None = None


def read_stored(path: Path) -> Stored:
    """The layers of a Keras or PyTorch file, recognised by content; runs no code of the file.

    Raises ResiduaError that names the file for anything that is no such file, is damaged, declares
    more than it holds, or would need code to be run.
    """
    found = _read(path, first_bytes(path))
    if not found.layers:
        raise ResiduaError(f"{path}: is {found.form} without a tensor in it: expected {READABLE}.")
    for name in (*found.layers, *(part for parts in found.layers.values() for part in parts)):
        if len(name) > LONGEST_NAME or not name.isprintable():
            said = f"expected a name of at most {LONGEST_NAME} printable characters"
            raise damaged(path, f"{said}, found {ascii(name)[:80]}")
    return found


def _read(path: Path, start: bytes) -> Stored:
    from residua.weights.formats import checkpoints

    if start.startswith(HDF5):
        return _read_keras(path, archive=False)
    if start.startswith(b"PK\3\4"):
        names = zip_names(path)
        if "model.weights.h5" in names:
            return _read_keras(path, archive=True)
        if any(name.endswith("data.pkl") for name in names):
            return checkpoints.read_pickle(path)
        raise ResiduaError(
            f"{path}: is a zip archive without weights in it ({plain(', '.join(names[:3]))}, ...): "
            f"expected {READABLE}."
        )
    if is_safetensors(start):
        return checkpoints.read_safetensors(path)
    if start[:1] == b"\x80":
        return checkpoints.read_pickle(path)
    raise ResiduaError(f"{path}: {_foreign(start)}: expected {READABLE}.")


def _read_keras(path: Path, *, archive: bool) -> Stored:
    try:
        from residua.weights.formats import keras_files
    except ImportError as error:
        raise ResiduaError(
            f"{path}: is a Keras file, and reading it needs h5py: pip install h5py."
        ) from error
    return keras_files.read_archive(path) if archive else keras_files.read_hdf5(path)


def first_bytes(path: Path) -> bytes:
    """The start of a regular file. Raises ResiduaError."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ResiduaError(f"{path}: is no regular file: expected {READABLE}.")
        with path.open("rb") as stream:
            return stream.read(64)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ResiduaError(f"{path}: cannot be read: {said}.") from error


def is_safetensors(start: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a header, and the header's brace."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= LONGEST_HEADER


def safetensors_header(path: Path) -> dict[str, Any]:
    """The header of a .safetensors file that names nothing twice. Raises ValueError."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(LONGEST_HEADER, path.stat().st_size - 8):
            raise ValueError(f"its header should have {length:,} bytes, more than there are")
        header = json.loads(stream.read(length), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"it names {first_twice(name for name, _ in pairs)!r} twice")
    return found


def first_twice(names: Iterable[str]) -> str | None:
    """The first name that occurs twice, if one does."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def zip_names(path: Path) -> list[str]:
    """The members of an archive that declares nothing absurd. Raises ResiduaError."""
    with translated(path, "a zip archive"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [each.filename for each in members]
    if twice := first_twice(names):
        raise damaged(path, f"holds {twice} twice")
    total, size = sum(each.file_size for each in members), path.stat().st_size
    if total > LARGEST_RATIO * size + 2**16:
        raise ResiduaError(
            f"{path}: would grow from {size:,} to {total:,} bytes: weights do not, so it is not "
            "unpacked. Download or save it again."
        )
    return names


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of an archive, never more than it declares. Raises what zipfile raises."""
    found = archive.getinfo(name)
    with archive.open(found) as stream:
        return stream.read(found.file_size)


@contextmanager
def translated(path: Path, what: str) -> Iterator[None]:
    """Turns whatever the libraries raise on damaged files (nearly anything) into a sentence."""
    try:
        yield
    except ResiduaError:
        raise
    except MemoryError as error:
        raise ResiduaError(
            f"{path}: needs more memory than there is. Close other programs, or use a smaller file."
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise ResiduaError(f"{path}: cannot be read: {error.strerror}.") from error
        said = plain(error).rstrip(".") or type(error).__name__
        raise damaged(path, f"cannot be read as {what} ({said})") from error


def damaged(path: Path, said: str) -> ResiduaError:
    """An error to be raised: a file is in itself not as its writer must have meant it."""
    return ResiduaError(
        f"{path}: {plain(said)}: it is cut off or damaged. Download or save it again."
    )


def flaw_of(name: str, tensor: Tensor) -> str | None:
    """Why the floating-point numbers of a part make every output useless, if they do."""
    import torch

    numbers = tensor.float()  # what is too large for it becomes infinite in use
    if not bool(numbers.sum().isfinite() or torch.isfinite(numbers).all()):  # the sum is fast
        return "numbers that are not finite (NaN or infinity)"
    if name.rpartition(".")[2] == "running_var" and bool((numbers < 0).any()):
        return "negative variances"
    return None


def plain(said: object) -> str:
    """What a file or a library says, on one line, without control characters, shortened."""
    return printable(" ".join(str(said).split())[:240])


def _foreign(start: bytes) -> str:
    """Why a file that begins like this holds no weights."""
    if not start:
        return "is empty"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not weights: its download went wrong"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, not the file itself: run `git lfs pull`"
    return f"holds no weights that are known here: starts with {start[:8]!r}"
