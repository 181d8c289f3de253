"""Content -> files, written atomically; new folders; the user's cache folder."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

from residua.errors import ResiduaError, UsageError

TEMPORARY = ".residua-"  # how the names of unfinished files begin
UNFINISHED = "unfinished-"  # how the names of folders of such files begin
DAY = 86_400.0  # seconds
DRAWN = "drawn by residua"  # in figures that residua may replace

_ADVICE = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free disk space or choose another folder.")
_ADVICE |= dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS), "Choose a folder in which you may write."
)
_ADVICE[errno.EFBIG] = "Raise the limit of file sizes (ulimit -f) or choose another disk."
_ADVICE[errno.ENAMETOOLONG] = "Choose a shorter name."


class Unwritable(ResiduaError):  # noqa: N818 - what is wrong with the file or its disk
    """A file that cannot be written, because of its folder or disk."""


def write_atomically(path: Path, content: str | bytes, advice: str = "") -> None:
    """Write a temporary file beside `path`, flush it to disk, rename it.

    A link at `path` is replaced, not followed. advice: end of the message of an error. Raises
    ResiduaError.
    """
    if isinstance(content, str):
        content = content.encode()
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error, advice) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError, advice: str = "") -> Unwritable:
    """The error of a file or folder that cannot be written, with what to do about its cause."""
    cause = _ADVICE.get(error.errno or 0, "Choose another folder.")
    name = "the working directory" if path == Path() else path
    return Unwritable(f"{name}: cannot be written: {reason_of(error)}. {cause} {advice}".rstrip())


def check_space(folder: Path, size: int) -> None:
    """Raise Unwritable unless a file of `size` bytes can be written in a temporary folder.

    Called after a library failed that hides why a file could not be written.
    """
    probe = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        with probe.open("xb") as stream:
            for written in range(0, size, 1 << 20):
                stream.write(bytes(min(1 << 20, size - written)))
    except OSError as error:
        advice = "TMPDIR sets the folder for temporary files."
        raise unwritable(folder.parent, error, advice) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise ResiduaError unless `folder`, or the nearest folder above that exists, is writable.

    Called before work whose result goes there.
    """
    path = user_path(folder).absolute()
    try:
        while not path.exists() and path != path.parent:
            path = path.parent
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{path} is not a folder")
        probe = path / f"{TEMPORARY}{secrets.token_hex(8)}"
        probe.touch(exist_ok=False)  # permissions do not show that a disk is mounted read-only
        probe.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error


def check_output(
    file: Path, endings: Sequence[str], inputs: Iterable[str | Path] = (), drawn: bool = False
) -> None:
    """Raise ResiduaError unless `file`, named by the user, can be written without any loss.

    endings: of its name. inputs: files and folders that are read. drawn: an earlier file that
    residua drew may be replaced; no other existing file is.
    """
    target = user_path(file)
    if not target.name.lower().endswith(tuple(endings)):
        raise UsageError(f"{file}: expected a file name that ends in {' or '.join(endings)}.")
    for entry in map(str, inputs):
        refuse_inside(target, entry)
        with contextlib.suppress(OSError, ValueError):
            if user_path(entry).samefile(target):
                raise ResiduaError(f"{file}: is also an input: choose another name.")
    try:
        mode = target.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise ResiduaError(f"{file}: is a folder, a link or a device: choose another name.")
        with target.open("rb") as stream:
            is_own = drawn and DRAWN.encode() in stream.read(4096)
        if not is_own:
            raise ResiduaError(f"{file}: exists already: choose another name, or remove it first.")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unwritable(file, error) from error
    check_writable(target.parent)


def user_path(text: str | os.PathLike[str]) -> Path:
    """The path that a user typed; a "~" that names no home folder is part of a file's name.

    Raises ResiduaError for what is no path.
    """
    if not isinstance(text, str | os.PathLike):
        raise ResiduaError(f"{text!r}: expected a path.")
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def shown_path(path: str) -> str:
    """A path as reports show it: relative to the working directory, if it is below that."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (OSError, ValueError):
        return path


def is_there(path: Path, *, folder: bool = False) -> bool:
    """Whether a file or folder exists, or is a folder. Raises ResiduaError where that is unknown:
    without permission, or for a name that is too long or has a null character."""
    try:
        return path.is_dir() if folder else path.exists()
    except (OSError, ValueError) as error:
        raise ResiduaError(f"{path}: cannot be reached: {reason_of(error)}.") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 digits. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, without the number and the path that Python adds."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV text with a header row; None is an empty cell."""
    stream = io.StringIO()
    write_csv(stream, [columns, *rows])
    return stream.getvalue()


def write_csv(stream: IO[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows of CSV; None is an empty cell."""
    plain = csv.writer(stream, lineterminator="\n")
    quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:  # csv does not quote a "\r", but reads it as the end of the row
        (quoted if any("\r" in str(cell) for cell in row) else plain).writerow(row)


def refuse_undecodable(path: str | os.PathLike[str]) -> None:
    """Raise ResiduaError if a path is not UTF-8, so that no file could record it, or if no file can
    have it."""
    if "\0" in os.fsdecode(path):
        raise ResiduaError(
            f"{os.fsdecode(path)!r}: contains a null character: choose another name."
        )
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ResiduaError(f"{shown}: is not UTF-8: rename the file or folder.") from error


def refuse_inside(target: Path, data: str) -> None:
    """Raise ResiduaError if `target` is inside the data folder."""
    folder = user_path(data)
    try:
        is_inside = folder.is_dir() and user_path(target).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # reading it explains what is wrong
        return
    if is_inside:
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


def short_name(name: str) -> str:
    """At most 200 bytes of a name: prefixes and numbers then fit into the 255 of a file name."""
    content = name.encode(errors="surrogateescape")
    return name if len(content) <= 200 else content[:200].decode(errors="ignore")


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
        raise unwritable(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left half-written in a cache folder, a day after.

    Only under the names that residua gives: $RESIDUA_CACHE may be a folder of the user's.
    """
    before = time.time() - DAY
    old_form = ".*.safetensors.*"  # of version 0.1.0
    for pattern in (f"{TEMPORARY}*", old_form, f"{UNFINISHED}*/pixels"):
        for path in folder.rglob(pattern):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < before:
                    path.unlink()
                    if path.parent.name.startswith(UNFINISHED):
                        path.parent.rmdir()


def stored_folder(parent: Path, write: Callable[[Path], str]) -> Path:
    """The folder in `parent`, a folder of residua's, that `write` fills; it appears complete.

    write: fills an empty folder and returns its name. An earlier folder of that name stays if it
    has the same files, in their sizes. Raises OSError.
    """
    parent.mkdir(parents=True, exist_ok=True)
    before = time.time() - DAY
    for path in parent.glob(f"{UNFINISHED}*"):  # of a killed process
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=UNFINISHED, dir=parent, ignore_cleanup_errors=True
    ) as temporary:
        fresh = Path(temporary)
        stored = parent / write(fresh)
        if _sizes(stored) != _sizes(fresh):
            shutil.rmtree(stored, ignore_errors=True)
            try:
                fresh.rename(stored)
            except OSError:  # another process was faster
                if _sizes(stored) != _sizes(fresh):
                    raise
    return stored


def _sizes(folder: Path) -> dict[str, int]:
    """Path -> bytes of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


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
