"""Files are written completely or not at all; folders in use are left alone."""

from __future__ import annotations

import csv
import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from residua.errors import ResiduaError
from residua.system.files import (
    DRAWN,
    cache_folder,
    check_output,
    check_unused,
    check_writable,
    csv_text,
    new_folder,
    refuse_inside,
    refuse_undecodable,
    remove_leftovers,
    shown_path,
    unwritable,
    write_atomically,
)


def test_csv_is_read_as_it_was_written() -> None:
    rows = [["a\rb", "c"], ['d"e', "f\ng"], ["h,i", ""]]
    text = csv_text(("x", "y"), rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["x", "y"], *rows]
    assert text.splitlines()[0] == "x,y"


def test_leftovers_of_killed_processes_are_deleted_after_a_day(tmp_path: Path) -> None:
    names = [".residua-0123", ".x.safetensors.8f_a2", "unfinished-a/pixels"]
    for name in (*names, "x.safetensors", "new/.residua-4567"):
        file = tmp_path / "features" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
        if not name.startswith("new"):
            os.utime(file, (0, 0))
    remove_leftovers(tmp_path)
    left = sorted(file.name for file in tmp_path.rglob("*"))
    assert left == [".residua-4567", "features", "new", "x.safetensors"]


def test_paths_are_shown_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outside = str(tmp_path.parent / "photos")
    paths = (str(tmp_path / "runs" / "a"), outside, "digits")
    assert [shown_path(path) for path in paths] == ["runs/a", outside, "digits"]


def test_a_path_that_is_not_utf8_is_refused() -> None:
    refuse_undecodable("é/ü")
    with pytest.raises(ResiduaError, match=r"a\\xff: is not UTF-8: rename"):
        refuse_undecodable(os.fsdecode(b"a\xff"))


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "run.json"
    write_atomically(path, "old")
    assert path.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o022))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResiduaError, match=r"run\.json: cannot be written: No space left"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free disk space or choose another folder."),
        (errno.EDQUOT, "Free disk space or choose another folder."),
        (errno.EACCES, "Choose a folder in which you may write."),
        (errno.EROFS, "Choose a folder in which you may write."),
        (errno.ENAMETOOLONG, "Choose a shorter name."),
        (errno.EIO, "Choose another folder."),
    ],
)
def test_the_advice_of_a_write_error_is_for_its_cause(number: int, advice: str) -> None:
    error = unwritable(Path("x"), OSError(number, os.strerror(number)))
    assert str(error) == f"x: cannot be written: {os.strerror(number)}. {advice}"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("target")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "target").read_text() == "target"
    assert not (tmp_path / "link").is_symlink()
    write_atomically(tmp_path / ("x" * 255), "the longest name")


def test_an_output_replaces_only_what_residua_drew(tmp_path: Path) -> None:
    free, photo, drawing = (tmp_path / name for name in ("a.png", "photo.png", "grid.PNG"))
    photo.write_bytes(b"\x89PNG of a user")
    drawing.write_bytes(b"\x89PNG tEXtComment\0" + DRAWN.encode())
    check_output(free, (".png",), [photo], drawn=True)
    check_output(drawing, (".png",), [photo], drawn=True)
    (tmp_path / "link.png").symlink_to(drawing)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for file, inputs, drawn, reason in (
        (photo, [], True, "exists already"),
        (drawing, [], False, "exists already"),
        (drawing, [drawing], True, "is also an input"),
        (free, [tmp_path], True, "is inside the data folder"),
        (tmp_path / "photo.jpg", [], True, r"ends in \.png"),
        (tmp_path / "link.png", [], True, "is a folder, a link or a device"),
        (tmp_path / "folder.png", [], True, "is a folder, a link or a device"),
        (tmp_path / "pipe.png", [], True, "is a folder, a link or a device"),
        (tmp_path / "photo.png" / "x.png", [], True, "Not a directory"),
    ):
        with pytest.raises(ResiduaError, match=reason):
            check_output(file, (".png",), inputs, drawn=drawn)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "run")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", Path("/proc/residua/run")):
        with pytest.raises(ResiduaError, match="cannot be written"):
            check_writable(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_csv_has_a_header_and_empty_cells() -> None:
    assert csv_text(["a", "b"], [[1, None], ["x,y", 2.5]]) == 'a,b\n1,\n"x,y",2.5\n'


def test_nothing_is_written_inside_the_data_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for target in (data, data / "runs", tmp_path / "link" / "runs"):
        with pytest.raises(ResiduaError, match="is inside the data folder"):
            refuse_inside(target, str(data))
    refuse_inside(tmp_path / "runs", str(data))
    refuse_inside(tmp_path / "runs", "digits")


def test_only_a_missing_or_empty_folder_is_unused(tmp_path: Path) -> None:
    check_unused(tmp_path, "the run")
    check_unused(tmp_path / "missing", "the run")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ResiduaError, match=r"a new folder for the run\. Resume it"):
            check_unused(path, "the run", "Resume it.")


def test_numbered_folders_never_collide(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_folder(tmp_path / "runs", "birds-"), range(40)))
    assert {folder.name for folder in folders} == {f"birds-{number}" for number in range(1, 41)}
    assert new_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    (tmp_path / "file").touch()
    with pytest.raises(ResiduaError, match="cannot be written: Not a directory"):
        new_folder(tmp_path / "file" / "runs", "")


def test_the_cache_folder_is_the_platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESIDUA_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("RESIDUA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache/residua"
    for relative in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert cache_folder() == tmp_path / ".cache/residua"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library/Caches/residua"

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ResiduaError, match="set RESIDUA_CACHE"):
        cache_folder()
