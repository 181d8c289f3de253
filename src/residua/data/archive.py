"""A zip or tar file of images -> the folder in the user's cache to which it is unpacked once.

Images are read in random order, several times, by several threads, which a compressed tar file
cannot serve; a folder can, and everything that reads folders reads it. The folder is named after
the SHA-256 of the archive, and a list of its files is compared at each use. Only images and tables
are unpacked, and nothing is ever written beside the user's file.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from residua.data import recognition
from residua.data.folder import is_system
from residua.data.table import is_table
from residua.errors import ResiduaError
from residua.system.files import cache_folder, reason_of, sha256_of, stored_folder

MAX_MEMBERS = 2_000_000
MAX_FILE = 2**30  # bytes of a member
MAX_RATIO, FREE_BYTES = 100, 2**30  # unpacked: at most FREE_BYTES + MAX_RATIO x the archive
_CHUNK = 2**20
_LIST = "files.json"
_TAR = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # compressed; a plain tar is known by byte 257
_OTHER = {b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive"}
_LEAVES = re.compile(r"(.*/)?\.\.(/.*)?|/.*|[a-zA-Z]:.*", re.DOTALL)

_Member = tuple[str, int, IO[bytes]]  # name, stated size, content


class _Strict(tarfile.TarInfo):
    """A member of a tar file; damage after the first member is an error, not the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise ValueError(f"it is truncated or damaged ({error})") from error


def kind_of(file: Path) -> str | None:
    """ "zip", "tar", or a description of an archive that is not read; None for any other file."""
    try:
        with file.open("rb") as stream:
            start = stream.read(512)
    except OSError:
        return None
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if start.startswith(_TAR) or start[257:262] == b"ustar":
        return "tar"
    return next((text for magic, text in _OTHER.items() if start.startswith(magic)), None)


def is_archive(file: Path) -> bool:
    """Whether a file is a zip or tar archive, by its suffix and first bytes."""
    return recognition.PACKED.fullmatch(file.suffix) is not None and kind_of(file) in ("zip", "tar")


def unpacked(file: Path) -> Path:
    """The folder with the images of an archive. Raises ResiduaError that names the archive."""
    with _readable_errors(file):
        folder = cache_folder() / "archives" / sha256_of(file)[:32]

        def write(fresh: Path) -> str:
            _unpack(file, fresh)
            return folder.name

        if not _is_whole(folder):
            stored_folder(folder.parent, write)
        return _top(folder / "files")


def short_name(file: Path) -> str:
    """The name of an archive without its suffixes."""
    name = file.name
    while (suffix := Path(name).suffix) and recognition.PACKED.fullmatch(suffix):
        name = name.removesuffix(suffix)
    return name or file.name


@contextmanager
def _readable_errors(file: Path) -> Iterator[None]:
    """Turn the errors of damaged archives, many of them undocumented, into a sentence."""
    try:
        yield
    except ResiduaError:
        raise
    except Exception as error:
        raise ResiduaError(f"{file}: cannot be unpacked: {reason_of(error)}.") from error


def _is_whole(folder: Path) -> bool:
    """Whether every unpacked file is there, in its size."""
    try:
        sizes: dict[str, int] = json.loads((folder / _LIST).read_text("utf-8"))
        return all((folder / "files" / name).stat().st_size == n for name, n in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _unpack(file: Path, folder: Path) -> None:
    """Write the images and tables of an archive to `folder`/files. Raises ResiduaError."""
    size = file.stat().st_size
    room = min(FREE_BYTES + MAX_RATIO * size, int(0.9 * shutil.disk_usage(folder).free))
    sizes: dict[str, int] = {}
    members = _zip_members(file, room) if kind_of(file) == "zip" else _tar_members(file)
    for name, stated, stream in members:
        room -= stated  # of all members: skipping one decompresses it
        if room < 0:
            raise ResiduaError(_too_large(file, name, stated))
        start = stream.read(recognition.START)
        is_image = recognition.objection_to(start) is None or recognition.is_claimed(Path(name))
        if not is_image and not is_table(Path(name)):
            continue
        if stated > MAX_FILE:
            raise ResiduaError(_too_large(file, name, stated))
        target = folder / "files" / name
        if target.exists():
            raise ResiduaError(f"{file}: contains {name} twice: unpack it, and give the folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with target.open("xb") as out:
            while start:
                written += len(start)
                if written > stated:
                    break
                out.write(start)
                start = stream.read(_CHUNK)
        if written != stated:
            raise ResiduaError(f"{file}: {name} is not of the stated {stated:,} bytes: damaged.")
        sizes[name] = written
    (folder / "files").mkdir(exist_ok=True)
    (folder / _LIST).write_text(json.dumps(sizes), "utf-8")


def _too_large(file: Path, name: str, size: int) -> str:
    return (
        f"{file}: {name} ({size:,} bytes) exceeds what is unpacked: images up to {MAX_FILE:,} "
        f"bytes, in all 1 GiB and {MAX_RATIO} times the archive, and 90 % of the free disk. Unpack "
        "it yourself, and give the folder."
    )


def _zip_members(file: Path, room: int) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_number(file, len(members))
        total = sum(member.file_size for member in members)
        if total > room:
            raise ResiduaError(_too_large(file, "its content", total))
        for member in members:
            name = member.filename.replace("\\", "/")  # as older programs of Windows write it
            mode = member.external_attr >> 16
            if name.endswith("/") or _is_ignored(name):
                continue
            _check_name(file, name)
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise ResiduaError(_link(file, name))
            if member.flag_bits & 1:
                raise ResiduaError(f"{file}: is encrypted: unpack it, and give the folder.")
            with archive.open(member) as stream:
                yield name, member.file_size, stream


def _tar_members(file: Path) -> Iterator[_Member]:
    with tarfile.open(file, tarinfo=_Strict) as archive:
        for number, member in enumerate(archive, start=1):
            _check_number(file, number)
            name = member.name.removeprefix("./")
            if member.isdir() or _is_ignored(name):
                continue
            _check_name(file, name)
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                raise ResiduaError(_link(file, name))
            yield name, member.size, stream
            archive.members = []  # type: ignore[attr-defined]  # else all stay in memory


def _is_ignored(name: str) -> bool:
    """Whether a member is hidden or of an operating system, as in folders."""
    return any(is_system(part) for part in name.split("/") if part not in ("", ".", ".."))


def _check_number(file: Path, number: int) -> None:
    if number > MAX_MEMBERS:
        raise ResiduaError(
            f"{file}: has more than {MAX_MEMBERS:,} files: unpack it, and give the folder."
        )


def _check_name(file: Path, name: str) -> None:
    if _LEAVES.fullmatch(name) or "\\" in name or "\0" in name:
        raise ResiduaError(
            f"{file}: contains the file {name!r}, which would be outside its folder. Nothing was "
            "unpacked from it."
        )


def _link(file: Path, name: str) -> str:
    return f"{file}: {name} is a link or a device, no file: unpack it, and give the folder."


def _top(folder: Path) -> Path:
    """The folder of the class or split folders: the only folder of a folder is passed through."""
    while True:
        inner = [entry for entry in folder.iterdir() if not is_system(entry.name)]
        if len(inner) != 1 or not inner[0].is_dir():
            return folder
        if not any(entry.is_dir() or is_table(entry) for entry in inner[0].iterdir()):
            return folder
        folder = inner[0]
