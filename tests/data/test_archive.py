"""Archives of images are read like folders; hostile and damaged ones are refused."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from references.datasets import refusal

from residua.data import archive
from residua.data.open import open_dataset

pytestmark = pytest.mark.usefixtures("own_cache")
NAMES = ("cat/1.png", "cat/deep/2.png", "dog/3.png")


def png(number: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (number, 1, 2)).save(stream, "PNG")
    return stream.getvalue()


def files(prefix: str = "") -> dict[str, bytes]:
    contents = {f"{prefix}{name}": png(number) for number, name in enumerate(NAMES)}
    hidden = {f"{prefix}README.txt": b"text", "__MACOSX/cat/._1.png": b"x", ".DS_Store": b"x"}
    return contents | hidden


def write_zip(file: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in contents.items():
            target.writestr(name, content)
    return file


def write_tar(file: Path, contents: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as target:  # type: ignore[call-overload]
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return file


@pytest.mark.parametrize("prefix", ["", "photos/", "./photos/"])
@pytest.mark.parametrize("name", ["p.zip", "p.tar", "p.tar.gz", "p.tgz", "p.tar.bz2", "p.tar.xz"])
def test_class_folders_in_an_archive(tmp_path: Path, name: str, prefix: str) -> None:
    file = tmp_path / name
    if name == "p.zip":
        write_zip(file, files(prefix))
    else:
        suffix = name.rpartition(".")[2].replace("tgz", "gz").replace("tar", "")
        write_tar(file, files(prefix), f"w:{suffix}")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    dataset = open_dataset(str(file))
    assert dataset.name == "p"
    assert dataset.classes == ("cat", "dog")
    assert [entry.path for entry in dataset.entries] == list(NAMES)
    assert [dataset.content(number) for number in range(3)] == [png(n) for n in range(3)]
    left = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "cache"}
    assert left == before


def test_a_zip_file_with_backslashes_has_folders(tmp_path: Path) -> None:
    contents = {name.replace("/", "\\"): content for name, content in files().items()}
    file = write_zip(tmp_path / "p.zip", {**contents, "empty\\": b""})
    dataset = open_dataset(str(file))
    assert dataset.classes == ("cat", "dog")
    assert [entry.path for entry in dataset.entries] == list(NAMES)


def test_a_table_with_its_images(tmp_path: Path) -> None:
    contents = files() | {"train.csv": b"id,label\n1,x\n2,y\n3,x\n"}
    dataset = open_dataset(str(write_zip(tmp_path / "p.zip", contents)))
    assert [(e.path, dataset.classes[e.label]) for e in dataset.entries] == [
        ("cat/1.png", "x"),
        ("cat/deep/2.png", "y"),
        ("dog/3.png", "x"),
    ]


def test_it_is_unpacked_once_and_again_when_files_are_missing(
    tmp_path: Path, own_cache: Path
) -> None:
    file = write_zip(tmp_path / "p.zip", files())
    open_dataset(str(file))
    (kept,) = (own_cache / "archives").glob("*/files/dog/3.png")
    first = kept.stat().st_ino, kept.stat().st_mtime_ns
    open_dataset(str(file))
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == first
    assert not list(own_cache.rglob("README.txt"))
    kept.write_bytes(b"")
    assert len(open_dataset(str(file)).entries) == 3
    kept.unlink()
    assert len(open_dataset(str(file)).entries) == 3


def truncated(file: Path, size: int) -> Path:
    file.write_bytes(file.read_bytes()[:size])
    return file


def encrypted(folder: Path) -> Path:
    file = write_zip(folder / "p.zip", files())
    content = bytearray(file.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 4)
    file.write_bytes(content)
    return file


def linked_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "p.zip", "w") as target:
        member = zipfile.ZipInfo("cat/1.png")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(member, "/etc/passwd")
    return folder / "p.zip"


def linked_tar(folder: Path, kind: bytes) -> Path:
    with tarfile.open(folder / "p.tar", "w") as target:
        member = tarfile.TarInfo("cat/1.png")
        member.type, member.linkname = kind, "/etc/passwd"
        target.addfile(member)
    return folder / "p.tar"


def bomb(folder: Path) -> Path:
    return write_zip(folder / "p.zip", {"cat/1.png": png() + bytes(5_000_000)})


def damaged_tar(folder: Path) -> Path:
    file = write_tar(folder / "p.tar", files())
    content = bytearray(file.read_bytes())
    content[1024:1100] = bytes(range(76))  # the second header
    file.write_bytes(content)
    return file


def compressed_rubbish(folder: Path) -> Path:
    (folder / "p.csv.gz").write_bytes(gzip.compress(b"path,label\n"))
    return folder / "p.csv.gz"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: write_zip(f / "p.zip", {"../x.png": png()}), "would be outside its folder"),
        (lambda f: write_zip(f / "p.zip", {"a/../../x.png": png()}), "would be outside its folder"),
        (lambda f: write_tar(f / "p.tar", {"/tmp/x.png": png()}), "would be outside its folder"),
        (lambda f: write_tar(f / "p.tar", {"a\\x.png": png()}), "would be outside its folder"),
        (lambda f: write_zip(f / "p.zip", {"C:/x.png": png()}), "would be outside its folder"),
        (lambda f: write_zip(f / "p.zip", {"..\\x.png": png()}), "would be outside its folder"),
        (linked_zip, "is a link or a device"),
        (lambda f: linked_tar(f, tarfile.SYMTYPE), "is a link or a device"),
        (lambda f: linked_tar(f, tarfile.LNKTYPE), "is a link or a device"),
        (lambda f: linked_tar(f, tarfile.CHRTYPE), "is a link or a device"),
        (encrypted, "is encrypted"),
        (bomb, "exceeds what is unpacked"),
        (damaged_tar, "is truncated or damaged"),
        (compressed_rubbish, "cannot be"),
        (lambda f: truncated(write_zip(f / "p.zip", files()), 300), "cannot be unpacked"),
        (lambda f: truncated(write_tar(f / "p.tar", files()), 1536), "cannot be"),
        (lambda f: truncated(write_tar(f / "p.tar", files()), 1300), "cannot be"),
        (lambda f: truncated(write_tar(f / "p.tgz", files(), "w:gz"), 300), "cannot be"),
        (lambda f: write_tar(f / "p.tar", {"a": png(), "a/1.png": png()}), "cannot be unpacked"),
        (lambda f: write_zip(f / "p.zip", {"x.txt": b"text"}), "contains no class folder"),
        (lambda f: write_zip(f / "p.zip", {}), "contains no class folder"),
        (lambda f: write_zip(f / "p.zip", {"7z\xbc": b""}), "contains no class folder"),
    ],
)
def test_hostile_and_damaged_archives_are_refused(
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path],
    message: str,
) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 100_000)
    (tmp_path / "data").mkdir()
    file = make(tmp_path / "data")
    text = refusal(file)
    assert message in text
    assert str(file) in text
    assert str(own_cache) not in text
    assert list(tmp_path.rglob("x.png")) == []


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    assert "more than 2 files" in refusal(write_zip(tmp_path / "p.zip", files()))
    assert "more than 2 files" in refusal(write_tar(tmp_path / "p.tar", files()))


def test_a_member_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "p.tar", {"cat/1.png": png()})
    with tarfile.open(tmp_path / "p.tar", "a") as target:
        member = tarfile.TarInfo("cat/1.png")
        member.size = len(png(1))
        target.addfile(member, io.BytesIO(png(1)))
    assert "contains cat/1.png twice" in refusal(tmp_path / "p.tar")


def test_other_archives_are_refused_with_their_name(tmp_path: Path) -> None:
    (tmp_path / "p.rar").write_bytes(b"Rar!\x1a\x07\x01\0")
    assert "is a RAR archive: unpack it" in refusal(tmp_path / "p.rar")
