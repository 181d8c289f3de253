"""Survey and load: every entry once, failures recorded, the cache in memory or in a valid file."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from residua.config.schema import Preprocessing
from residua.data import cache, folder, image
from residua.data.arrays import array_dataset
from residua.errors import ResiduaError

LIMIT = 100_000_000
SMALL = Preprocessing(size=8, channels=3, crop=1.0, interpolation="antialias")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test may write to the real cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RESIDUA_CACHE", raising=False)
    return tmp_path / "cache/residua"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """20 images in 2 classes: entry 3 repeats entry 0, 5 is cut off, 7 is damaged, 9 is huge."""
    root = tmp_path / "zoo"
    for number in range(20):
        path = root / ("cat" if number < 10 else "owl") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (12, 10 + number, 3), np.uint8)
        Image.fromarray(noise).save(path)
    shutil.copy(root / "cat/00.png", root / "cat/03.png")
    content = (root / "cat/05.png").read_bytes()
    (root / "cat/05.png").write_bytes(content[: len(content) // 2])
    (root / "cat/07.png").write_bytes(content[:30])
    Image.new("1", (3000, 1000)).save(root / "cat/09.png")
    return root


def surveyed(root: Path, max_pixels: int = LIMIT) -> cache.Survey:
    return cache.survey(folder.find(root), max_pixels)


def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each image that is decoded from now on."""
    calls: list[int] = []
    decode = image.decode

    def counting(content: bytes, *rest: object) -> np.ndarray:
        calls.append(len(content))
        return decode(content, *rest)

    monkeypatch.setattr(image, "decode", counting)
    return calls


# Survey


def test_a_survey_has_hashes_headers_and_failures(zoo: Path) -> None:
    steps: list[tuple[int, int]] = []
    source = folder.find(zoo)
    found = cache.survey(source, 1_000_000, lambda done, total: steps.append((done, total)))
    for index, entry in enumerate(source.entries):
        content = (zoo / entry.path).read_bytes()
        assert found.sha256[index] == hashlib.sha256(content).hexdigest()
        assert (found.headers[index] is None) == (index in found.failures)
    assert set(found.failures) == {7, 9}
    assert found.failures[9] == "3000 x 1000 pixels are more than the limit of 1,000,000"
    assert found.headers[2].width == 12
    assert cache.median_size(found) == (20, 12)
    assert not cache.grey(found)
    assert steps[-1] == (20, 20)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_a_file_deleted_before_the_survey_is_a_failure(zoo: Path) -> None:
    source = folder.find(zoo)
    (zoo / "cat/01.png").unlink()
    found = cache.survey(source, LIMIT)
    assert found.failures[1] == "cannot be read: No such file or directory"
    assert (found.sha256[1], found.headers[1]) == ("", None)


def test_a_data_set_is_grey_by_the_modes_of_its_images(tmp_path: Path) -> None:
    for number, mode in enumerate(("L", "1", "I;16", "LA")):
        path = tmp_path / "data" / f"class{number}" / "1.png"
        path.parent.mkdir(parents=True)
        Image.new(mode, (5, 5)).save(path)
    assert cache.grey(surveyed(tmp_path / "data"))
    Image.new("P", (5, 5)).save(tmp_path / "data/class0/2.png")
    assert not cache.grey(surveyed(tmp_path / "data"))


def test_without_readable_images_there_is_no_size(tmp_path: Path) -> None:
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/a/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = surveyed(tmp_path / "data")
    assert not cache.grey(found)
    with pytest.raises(ResiduaError, match="none of its images can be read"):
        cache.median_size(found)
    for where in ("memory", "file"):
        assert set(cache.load(found, SMALL, where).failures) == {0}


# Load


@pytest.mark.parametrize("where", ["auto", "memory", "file"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_row_is_its_entry_at_the_size_of_the_network(
    zoo: Path, where: str, channels: int
) -> None:
    settings = Preprocessing(
        size=9, channels=channels, resize="pad", interpolation="bilinear", crop=1.0
    )
    source, steps = folder.find(zoo), []
    found = cache.survey(source, LIMIT)
    loaded = cache.load(found, settings, where, lambda *step: steps.append(step))
    assert (loaded.pixels.shape, loaded.pixels.dtype) == ((20, 9, 9, channels), np.uint8)
    assert set(loaded.failures) == {5, 7}
    assert loaded.failures[5].startswith("is truncated after")
    for index, entry in enumerate(source.entries):
        row = np.asarray(loaded.pixels[index])
        if index in loaded.failures:
            assert not row.any()
        else:
            expected = image.read_image(zoo / entry.path, settings, LIMIT)
            np.testing.assert_array_equal(row, expected)
    assert steps[-1] == (20, 20)
    assert loaded.where.startswith("in memory" if where != "file" else "in /")


def test_images_in_arrays_load_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    dataset = array_dataset("toy", "", "IDX", ("a",), {None: (pixels, np.zeros(20, np.int64))})
    settings = Preprocessing(size=8, channels=1, crop=1.0, interpolation="antialias")
    loaded = cache.load(cache.survey(dataset, LIMIT), settings)
    np.testing.assert_array_equal(loaded.pixels, pixels)


def test_the_last_row_may_fail(zoo: Path) -> None:
    (zoo / "owl/zz.png").write_bytes((zoo / "cat/05.png").read_bytes())
    loaded = cache.load(surveyed(zoo), SMALL, "file")
    assert loaded.pixels.shape[0] == 21
    assert not loaded.pixels[20].any()
    assert 20 in loaded.failures


def test_a_quarter_of_free_memory_is_the_limit(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = surveyed(zoo)
    needed = 20 * 8 * 8 * 3
    monkeypatch.setattr(cache, "free_memory", lambda: 4 * needed)
    loaded = cache.load(found, SMALL)
    assert loaded.where.startswith("in memory (0 MB; limit: a quarter of ")
    monkeypatch.setattr(cache, "free_memory", lambda: 4 * needed - 4)
    loaded = cache.load(found, SMALL)
    assert loaded.where.startswith("in /")
    assert isinstance(loaded.pixels, np.memmap)


def test_free_memory_is_plausible() -> None:
    assert 2**26 < cache.free_memory() < 2**50


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used"),
    [
        ("0::/", ".", "memory.max", "anon"),
        ("0::/user/shell", "user", "memory.max", "anon"),  # a limit further out
        ("4:memory:/docker/7f", "memory/docker/7f", "memory.limit_in_bytes", "total_rss"),
        ("4:memory:/docker/7f", "memory", "memory.limit_in_bytes", "total_rss"),  # as mounted
    ],
)
def test_a_container_has_the_memory_that_its_limit_leaves(
    tmp_path: Path, line: str, folder: str, limit: str, used: str
) -> None:
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    group = sys / "fs/cgroup" / folder
    group.mkdir(parents=True)
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 90 kB\nMemAvailable:    80 kB\nBuffers: 1 kB\n")
    (proc / "self/cgroup").write_text(f"9:name=systemd:/\n{line}\n")
    (group / "memory.stat").write_text(f"file 7000\n{used} 3000\nslab 5\n")
    for text, free in (("10000\n", 7000), ("2000\n", 0), ("max\n", 80 * 1024)):
        (group / limit).write_text(text)
        assert cache.free_memory(proc=proc, sys=sys) == free
    assert cache.free_memory(proc=tmp_path / "no", sys=sys) > 2**26  # no Linux


def test_the_data_folder_does_not_change(zoo: Path) -> None:
    def state() -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in zoo.rglob("*")
        )

    before = state()
    for where in ("memory", "file"):
        cache.load(surveyed(zoo), SMALL, where)
    assert state() == before


# Change between survey and load


@pytest.mark.parametrize("where", ["memory", "file"])
def test_changed_or_deleted_files_become_failures(zoo: Path, where: str) -> None:
    found = surveyed(zoo)
    (zoo / "owl/11.png").unlink()
    shutil.copy(zoo / "owl/12.png", zoo / "owl/13.png")
    loaded = cache.load(found, SMALL, where)
    assert set(loaded.failures) == {5, 7, 11, 13}
    assert loaded.failures[11] == "cannot be read: No such file or directory"
    assert loaded.failures[13] == "has changed during the run"
    assert not loaded.pixels[[11, 13]].any()


def test_temporary_failures_are_not_cached(zoo: Path) -> None:
    content = (zoo / "owl/11.png").read_bytes()
    found = surveyed(zoo)
    (zoo / "owl/11.png").unlink()
    assert 11 in cache.load(found, SMALL, "file").failures
    (zoo / "owl/11.png").write_bytes(content)
    for survey in (found, surveyed(zoo)):
        loaded = cache.load(survey, SMALL, "file")
        assert 11 not in loaded.failures
        assert loaded.pixels[11].any()


# The cache file


def test_the_file_is_used_again(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = decodings(monkeypatch)
    first = cache.load(surveyed(zoo), SMALL, "file")
    assert len(calls) == 19
    moved = zoo.rename(zoo.with_name("elsewhere"))  # known by content, not by place
    again = cache.load(surveyed(moved), SMALL, "file")
    assert len(calls) == 19
    assert " of an earlier run" in again.where
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (again.failures, again.digests) == (first.failures, first.digests)


@pytest.mark.parametrize(
    "other",
    [
        Preprocessing(size=7, channels=3, crop=1.0, interpolation="antialias"),
        Preprocessing(size=8, channels=1, crop=1.0, interpolation="antialias"),
        Preprocessing(size=8, channels=3, resize="pad", crop=1.0, interpolation="antialias"),
        Preprocessing(size=8, channels=3, interpolation="nearest", crop=1.0),
    ],
)
def test_another_geometry_is_another_file(zoo: Path, other: Preprocessing) -> None:
    cache.load(surveyed(zoo), SMALL, "file")
    assert "earlier run" not in cache.load(surveyed(zoo), other, "file").where


def test_normalisation_does_not_change_the_file(zoo: Path) -> None:
    cache.load(surveyed(zoo), SMALL, "file")
    other = Preprocessing(
        size=8,
        channels=3,
        channel_order="bgr",
        mean=(1, 2, 3),
        std=(4, 5, 6),
        crop=1.0,
        interpolation="antialias",
    )
    assert "earlier run" in cache.load(surveyed(zoo), other, "file").where


def test_other_content_is_another_file(zoo: Path) -> None:
    cache.load(surveyed(zoo), SMALL, "file")
    shutil.copy(zoo / "owl/12.png", zoo / "owl/13.png")
    loaded = cache.load(surveyed(zoo), SMALL, "file")
    assert "earlier run" not in loaded.where
    assert (loaded.pixels[12] == loaded.pixels[13]).all()


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_an_incomplete_file_is_written_again(zoo: Path, cache_folder: Path, kept: int) -> None:
    whole = np.array(cache.load(surveyed(zoo), SMALL, "file").pixels)
    (path,) = cache_folder.iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    loaded = cache.load(surveyed(zoo), SMALL, "file")
    assert "earlier run" not in loaded.where
    np.testing.assert_array_equal(loaded.pixels, whole)


@pytest.mark.parametrize("at", [100, -60])
def test_a_damaged_file_is_written_again(zoo: Path, cache_folder: Path, at: int) -> None:
    """Pixels set to zero, and a list of failures with a number that does not exist."""
    first = cache.load(surveyed(zoo), SMALL, "file")
    whole = np.array(first.pixels)
    (path,) = cache_folder.iterdir()
    content = bytearray(path.read_bytes())
    content[at : at + 40] = b"0" * 40
    path.write_bytes(content)
    again = cache.load(surveyed(zoo), SMALL, "file")
    assert "earlier run" not in again.where
    np.testing.assert_array_equal(again.pixels, whole)
    assert (again.failures, again.digests, again.flat) == (
        first.failures,
        first.digests,
        first.flat,
    )


def test_what_killed_processes_left_is_deleted_after_a_day(zoo: Path, cache_folder: Path) -> None:
    old, new = cache_folder / "unfinished-old", cache_folder / "unfinished-new"
    for folder_left in (old, new):
        folder_left.mkdir(parents=True)
        (folder_left / "pixels").write_bytes(b"half")
    for path in (old / "pixels", old):
        os.utime(path, (0, 0))
    cache.load(surveyed(zoo), SMALL, "file")
    assert not old.exists()
    assert new.exists()


def test_an_interrupted_load_leaves_nothing(
    zoo: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.load(surveyed(zoo), SMALL, "file", interrupt)
    assert list(cache_folder.iterdir()) == []
    assert threading.active_count() < 20


def test_after_an_interruption_waiting_tasks_do_not_start(tmp_path: Path) -> None:
    """Ctrl-C ends the running tasks; waiting ones never start."""
    begun: list[int] = []

    def work(index: int) -> int:
        begun.append(index)
        time.sleep(0.005)
        return index

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.in_threads(work, 10_000, interrupt)
    assert len(begun) < 1000


def test_results_keep_their_order() -> None:
    def work(index: int) -> int:
        time.sleep(0.001 * (index % 3))
        return index

    assert cache.in_threads(work, 101, None) == list(range(101))
    assert cache.in_threads(work, 0, None) == []


def test_rows_may_be_written_by_many_threads(tmp_path: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with (tmp_path / "rows").open("w+b") as file, ThreadPoolExecutor(8) as pool:
            store = cache._rows_of(file, 3)
            rows = [np.full((1, 1, 3), index % 256, np.uint8) for index in range(1000)]
            list(pool.map(store, range(1000), rows))
    finally:
        sys.setswitchinterval(interval)
    expected = b"".join(row.tobytes() for row in rows)
    assert (tmp_path / "rows").read_bytes() == expected


@pytest.mark.slow
def test_two_loads_may_race(zoo: Path) -> None:
    found = surveyed(zoo)
    expected = cache.load(found, SMALL, "memory")
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(cache.load, found, SMALL, "file") for _ in range(8)]
        for task in tasks:
            np.testing.assert_array_equal(task.result().pixels, expected.pixels)
            assert task.result().failures == expected.failures


def test_a_full_disk_is_refused_before_decoding(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 100))
    calls = decodings(monkeypatch)
    with pytest.raises(ResiduaError, match="Set RESIDUA_CACHE to a folder on another disk"):
        cache.load(surveyed(zoo), SMALL, "file")
    assert not calls


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk of Linux")
def test_a_disk_that_becomes_full_leaves_no_file(
    zoo: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = Path.open

    def full(path: Path, mode: str = "r", **options: object) -> object:
        return opening(Path("/dev/full") if mode == "w+b" else path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ResiduaError, match=r"cannot be stored in .*: No space left on device"):
        cache.load(surveyed(zoo), SMALL, "file")
    monkeypatch.undo()
    assert list(cache_folder.iterdir()) == []


def test_a_cache_folder_that_cannot_be_created_is_reported(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ResiduaError, match=r"data\.cache=memory"):
        cache.load(surveyed(zoo), SMALL, "file")


def test_large_images_are_decoded_one_at_a_time(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, running, most = image.decode, set(), []

    def watching(content: bytes, *rest: object) -> np.ndarray:
        running.add(threading.get_ident())
        most.append(len(running))
        time.sleep(0.002)
        running.discard(threading.get_ident())
        return decode(content, *rest)

    monkeypatch.setattr(image, "decode", watching)
    monkeypatch.setattr(image, "_LARGE", 1)
    cache.load(surveyed(zoo), SMALL)
    assert max(most) == 1


# Real data


def test_messy_as_a_whole(shared_data: Path) -> None:
    """Every row of messy.json: 62 rows of pixels, 6 files with a reason, nothing of the others."""
    rows = json.loads((shared_data / "messy.json").read_text("utf-8"))
    source = folder.find(shared_data / "messy")
    loaded = cache.load(
        cache.survey(source, LIMIT),
        Preprocessing(size=16, channels=3, crop=1.0, interpolation="antialias"),
    )
    failed = {source.entries[index].path for index in loaded.failures} | set(dict(source.rejected))
    read = {e.path for i, e in enumerate(source.entries) if i not in loaded.failures}
    assert read == {row["file"] for row in rows if row["expect"] == "read"}
    assert failed == {row["file"] for row in rows if row["expect"] == "reject"}
    assert (len(read), len(failed)) == (62, 6)


def peak_memory(root: Path) -> int:
    """Bytes at the most, of a process that does nothing but survey and load."""
    program = """if True:
        import resource, sys
        from pathlib import Path
        from residua.config.schema import Preprocessing
        from residua.data import cache, folder
        found = cache.survey(folder.find(Path(sys.argv[1])), 10**8)
        rule = Preprocessing(size=224, channels=3, crop=1.0, interpolation="antialias")
        cache.load(found, rule)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    command = [sys.executable, "-c", program, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
def test_peak_memory_on_messy(shared_data: Path, tmp_path: Path) -> None:
    """The bomb of 1.6 gigapixels and the other troubles cost at most 200 MB."""
    rows = json.loads((shared_data / "messy.json").read_text("utf-8"))
    ordinary = [row["file"] for row in rows if row["kind"] == "ordinary"]
    assert len(ordinary) == 40
    for name in ordinary:
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_data / "messy" / name, tmp_path / "plain" / name)
    more = peak_memory(shared_data / "messy") - peak_memory(tmp_path / "plain")
    assert more < 200e6


def test_measurements_are_the_same_from_the_cache_file(zoo: Path) -> None:
    found = surveyed(zoo, max_pixels=1_000_000)
    fresh = cache.load(found, SMALL, "memory", measured=True).measured
    cache.load(found, SMALL, "file")
    again = cache.load(found, SMALL, "file")
    assert "earlier run" in again.where
    assert again.measured == fresh
    assert [index for index, row in enumerate(fresh) if row is None] == [5, 7, 9]
