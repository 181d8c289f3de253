"""Content -> files that are complete or absent; new folders; the user's cache folder."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from residua.errors import ResiduaError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a temporary file beside `path`, flush it to disk, rename it. Raises ResiduaError."""
    if isinstance(content, str):
        content = content.encode()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        raise ResiduaError(
            f"{path}: cannot be written: {error.strerror or error}. Free disk space or choose "
            "another folder; `residua resume` continues from the last checkpoint."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV text with a header row; None is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def refuse_inside(target: Path, data: str) -> None:
    """Raise ResiduaError if `target` is inside the data folder."""
    folder = Path(data).expanduser()
    if folder.is_dir() and target.expanduser().resolve().is_relative_to(folder.resolve()):
        raise ResiduaError(
            f"{target}: is inside the data folder {folder}, which residua never writes to. "
            "Choose another folder, or change to another working directory."
        )


def check_unused(folder: Path, purpose: str, advice: str = "") -> None:
    """Raise ResiduaError unless `folder` does not exist or is empty.

    purpose: what the folder is for, such as "the run". advice: end of the message.
    """
    try:
        used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise ResiduaError(f"{folder}: cannot be used: {error.strerror}.") from error
    if used:
        message = f"{folder}: is not empty: expected a new folder for {purpose}. {advice}"
        raise ResiduaError(message.rstrip())


def new_folder(path: Path, prefix: str | None = None) -> Path:
    """Create the folder `path`; with a prefix, the next free <path>/<prefix><n>, n from 1.

    Raises ResiduaError.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if prefix is None:
            return path
        number = 0
        while True:
            number += 1
            with contextlib.suppress(FileExistsError):  # also if another process was faster
                folder = path / f"{prefix}{number}"
                folder.mkdir()
                return folder
    except OSError as error:
        raise ResiduaError(f"{path}: cannot be created: {error.strerror}.") from error


def cache_folder() -> Path:
    """The platform's folder for files that a user may delete at any time, or $RESIDUA_CACHE.

    Raises ResiduaError if there is none.
    """
    if chosen := os.environ.get("RESIDUA_CACHE"):
        return Path(chosen).expanduser().absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if xdg.is_absolute():  # the XDG standard ignores relative paths
        return xdg / "residua"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ResiduaError("There is no home folder: set RESIDUA_CACHE.") from error
    caches = {"darwin": "Library/Caches", "win32": "AppData/Local"}
    return home / caches.get(sys.platform, ".cache") / "residua"


def _umask() -> int:
    """The umask of the process; files of mkstemp are readable by their owner only."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
