"""A path -> the first bytes, header or members of its file, within limits; errors in one sentence.

Sizes that a file declares are checked against its length.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from residua.errors import ResiduaError
from residua.system.console import printable

FLOATS = ("float64", "float32", "float16", "bfloat16")  # dtypes of weights
MAX_RATIO = 16  # declared bytes per byte on disk: weights hardly compress
MAX_HEADER = 2**24  # bytes of JSON; a network with 1,000 layers needs 2**20
MAX_NAME = 500  # characters
EXPECTED = (
    "a Keras file (.h5, .weights.h5, .keras), a PyTorch checkpoint (.pth, .th, .pt) or .safetensors"
)

INSTEAD = (
    "Use the weights that it was saved from, or an export in another format: predict, evaluate and "
    "serve accept .onnx and .xml files."
)


def first_bytes(path: Path) -> bytes:
    """The first 64 bytes of a regular file. Raises ResiduaError."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe could block forever
            raise ResiduaError(f"{path}: is no regular file: expected {EXPECTED}.")
        with path.open("rb") as stream:
            return stream.read(64)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResiduaError(f"{path}: cannot be read: {reason}.") from error


def is_safetensors(start: bytes) -> bool:
    """Whether a file starts like safetensors: the length of a JSON header, then its brace."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= MAX_HEADER


def safetensors_header(path: Path) -> dict[str, Any]:
    """The JSON header of a .safetensors file, free of duplicate names. Raises ValueError."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(MAX_HEADER, path.stat().st_size - 8):
            raise ValueError(f"its header declares {length:,} bytes, more than the file has")
        header = json.loads(stream.read(length), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError(f"it names {first_duplicate(name for name, _ in pairs)!r} twice")
    return entries


def first_duplicate(names: Iterable[str]) -> str | None:
    """The first name that occurs more than once, if any."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def zip_names(path: Path) -> list[str]:
    """The member names of an archive that unpacks to a plausible size. Raises ResiduaError."""
    with translated(path, "a zip archive"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    if duplicate := first_duplicate(names):
        raise damaged(path, f"contains {duplicate} twice")
    total, size = sum(member.file_size for member in members), path.stat().st_size
    if total > MAX_RATIO * size + 2**16:
        raise ResiduaError(
            f"{path}: would grow from {size:,} to {total:,} bytes: weights do not, so it is not "
            "unpacked. Download or save it again."
        )
    return names


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member, at most as many as it declares. Raises what zipfile raises."""
    member = archive.getinfo(name)
    with archive.open(member) as stream:
        return stream.read(member.file_size)


@contextmanager
def translated(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file (almost anything) into a ResiduaError."""
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
        reason = one_line(error).rstrip(".") or type(error).__name__
        raise damaged(path, f"cannot be read as {kind} ({reason})") from error


def damaged(path: Path, problem: str) -> ResiduaError:
    """The error for a file whose content contradicts itself."""
    return ResiduaError(
        f"{path}: {one_line(problem)}: it is truncated or damaged. Download or save it again."
    )


def one_line(text: object) -> str:
    """Text from a file or a library as one printable line of at most 240 characters."""
    return printable(" ".join(str(text).split())[:240])
