"""Bytes -> a file that is either the old one or the new one, never half of it."""

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
    """Write beside the target, flush to disk, rename. Raises ResiduaError that names the file."""
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
            f"{path}: cannot be written: {error.strerror or error}. Free some space or choose "
            "another folder, then `residua resume` goes on from the last state."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file with a heading; None is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def refuse_inside(target: Path, data: str) -> None:
    """Raise ResiduaError if `target` would lie in the data folder, which is never written to."""
    folder = Path(data).expanduser()
    if folder.is_dir() and target.expanduser().resolve().is_relative_to(folder.resolve()):
        raise ResiduaError(
            f"{target}: lies inside the data folder {folder}, which is never written to. "
            "Name another place, or start from another folder."
        )


def cache_folder() -> Path:
    """Where this platform keeps what a user can delete at any time; $RESIDUA_CACHE wins.

    Raises ResiduaError if there is no such place.
    """
    if own := os.environ.get("RESIDUA_CACHE"):
        return Path(own).expanduser().absolute()
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if chosen.is_absolute():  # the standard tells to ignore others
        return chosen / "residua"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ResiduaError("There is no home folder: set RESIDUA_CACHE.") from error
    places = {"darwin": "Library/Caches", "win32": "AppData/Local"}
    return home / places.get(sys.platform, ".cache") / "residua"


def _umask() -> int:
    """The process's file mode mask; mkstemp makes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
