"""Survey and load: every entry once, failures kept, the cache in memory or in an honest file."""

import hashlib
import json
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
from residua.data import cache as dataset
from residua.data import folder, image
from residua.data.open import open_dataset
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


def surveyed(root: Path, max_pixels: int = LIMIT) -> dataset.Survey:
    return dataset.survey(folder.find(root), max_pixels)


def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each image that is decoded from now on."""
    calls: list[int] = []
    decode = image.decode

    def counting(content: bytes, channels: int, max_pixels: int) -> np.ndarray:
        calls.append(len(content))
        return decode(content, channels, max_pixels)

    monkeypatch.setattr(image, "decode", counting)
    return calls


# Survey


def test_survey(zoo: Path) -> None:
    steps: list[tuple[int, int]] = []
    source = folder.find(zoo)
    found = dataset.survey(source, 1_000_000, lambda done, total: steps.append((done, total)))
    for index, entry in enumerate(source.entries):
        content = (zoo / entry.path).read_bytes()
        assert found.sha256[index] == hashlib.sha256(content).hexdigest()
        assert (found.headers[index] is None) == (index in found.failures)
    assert set(found.failures) == {7, 9}
    assert found.failures[9] == "3000 x 1000 pixels are more than the limit of 1,000,000"
    assert found.headers[2].width == 12
    assert dataset.duplicates(found) == 1
    assert dataset.median_size(found) == (20, 12)
    assert not dataset.grey(found)
    assert steps[-1] == (20, 20)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_a_file_that_vanishes_before_the_survey(zoo: Path) -> None:
    source = folder.find(zoo)
    (zoo / "cat/01.png").unlink()
    found = dataset.survey(source, LIMIT)
    assert found.failures[1] == "cannot be read: No such file or directory"
    assert (found.sha256[1], found.headers[1]) == ("", None)


def test_grey_by_mode(tmp_path: Path) -> None:
    for number, mode in enumerate(("L", "1", "I;16", "LA")):
        path = tmp_path / "data" / f"class{number}" / "1.png"
        path.parent.mkdir(parents=True)
        Image.new(mode, (5, 5)).save(path)
    assert dataset.grey(surveyed(tmp_path / "data"))
    Image.new("P", (5, 5)).save(tmp_path / "data/class0/2.png")
    assert not dataset.grey(surveyed(tmp_path / "data"))


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/a/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = surveyed(tmp_path / "data")
    assert not dataset.grey(found)
    with pytest.raises(ResiduaError, match="not one of its images can be read"):
        dataset.median_size(found)
    for cache in ("memory", "file"):
        assert set(dataset.load(found, SMALL, LIMIT, cache).failures) == {0}


# Load


@pytest.mark.parametrize("cache", ["auto", "memory", "file"])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_are_entries(zoo: Path, cache: str, channels: int) -> None:
    settings = Preprocessing(
        size=9, channels=channels, resize="pad", interpolation="bilinear", crop=1.0
    )
    source, steps = folder.find(zoo), []
    found = dataset.survey(source, LIMIT)
    loaded = dataset.load(found, settings, LIMIT, cache, lambda *step: steps.append(step))
    assert (loaded.pixels.shape, loaded.pixels.dtype) == ((20, 9, 9, channels), np.uint8)
    assert set(loaded.failures) == {5, 7}
    assert loaded.failures[5].startswith("is cut off after")
    for index, entry in enumerate(source.entries):
        row = np.asarray(loaded.pixels[index])
        if index in loaded.failures:
            assert not row.any()
        else:
            expected = image.read_image(zoo / entry.path, settings, LIMIT)
            np.testing.assert_array_equal(row, expected)
    assert steps[-1] == (20, 20)
    assert loaded.where.startswith("in memory" if cache != "file" else "in /")


def test_packed_sets_load_too() -> None:
    source = open_dataset("digits")
    settings = Preprocessing(size=8, channels=1, crop=1.0, interpolation="antialias")
    loaded = dataset.load(dataset.survey(source, LIMIT), settings, LIMIT)
    np.testing.assert_array_equal(loaded.pixels, source.array)


def test_the_last_row_may_fail(zoo: Path) -> None:
    (zoo / "owl/zz.png").write_bytes((zoo / "cat/05.png").read_bytes())
    loaded = dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    assert loaded.pixels.shape[0] == 21
    assert not loaded.pixels[20].any()
    assert 20 in loaded.failures


def test_a_quarter_of_the_free_memory(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = surveyed(zoo)
    needed = 20 * 8 * 8 * 3
    monkeypatch.setattr(dataset, "free_memory", lambda: 4 * needed)
    loaded = dataset.load(found, SMALL, LIMIT)
    assert loaded.where.startswith("in memory (0 MB; memory takes up to a quarter of the ")
    monkeypatch.setattr(dataset, "free_memory", lambda: 4 * needed - 4)
    loaded = dataset.load(found, SMALL, LIMIT)
    assert loaded.where.startswith("in /")
    assert isinstance(loaded.pixels, np.memmap)


def test_free_memory_is_believable() -> None:
    assert 2**26 < dataset.free_memory() < 2**50


def test_the_data_folder_is_left_alone(zoo: Path) -> None:
    def state() -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in zoo.rglob("*")
        )

    before = state()
    for cache in ("memory", "file"):
        dataset.load(surveyed(zoo), SMALL, LIMIT, cache)
    assert state() == before


# Change between survey and load


@pytest.mark.parametrize("cache", ["memory", "file"])
def test_files_that_change_or_vanish_become_failures(zoo: Path, cache: str) -> None:
    found = surveyed(zoo)
    (zoo / "owl/11.png").unlink()
    shutil.copy(zoo / "owl/12.png", zoo / "owl/13.png")
    loaded = dataset.load(found, SMALL, LIMIT, cache)
    assert set(loaded.failures) == {5, 7, 11, 13}
    assert loaded.failures[11] == "cannot be read: No such file or directory"
    assert loaded.failures[13] == "has changed while it was in use"
    assert not loaded.pixels[[11, 13]].any()


def test_a_failure_that_passes_is_not_found_again(zoo: Path) -> None:
    content = (zoo / "owl/11.png").read_bytes()
    found = surveyed(zoo)
    (zoo / "owl/11.png").unlink()
    assert 11 in dataset.load(found, SMALL, LIMIT, "file").failures
    (zoo / "owl/11.png").write_bytes(content)
    for survey in (found, surveyed(zoo)):
        loaded = dataset.load(survey, SMALL, LIMIT, "file")
        assert 11 not in loaded.failures
        assert loaded.pixels[11].any()


# The cache file


def test_the_file_is_used_again(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = decodings(monkeypatch)
    first = dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    assert len(calls) == 19
    moved = zoo.rename(zoo.with_name("elsewhere"))  # known by content, not by place
    again = dataset.load(surveyed(moved), SMALL, LIMIT, "file")
    assert len(calls) == 19
    assert "left there by an earlier run" in again.where
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert again.failures == first.failures


@pytest.mark.parametrize(
    "other",
    [
        Preprocessing(size=7, channels=3, crop=1.0, interpolation="antialias"),
        Preprocessing(size=8, channels=1, crop=1.0, interpolation="antialias"),
        Preprocessing(size=8, channels=3, resize="pad", crop=1.0, interpolation="antialias"),
        Preprocessing(size=8, channels=3, interpolation="nearest", crop=1.0),
    ],
)
def test_other_geometry_is_another_file(zoo: Path, other: Preprocessing) -> None:
    dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    assert "earlier run" not in dataset.load(surveyed(zoo), other, LIMIT, "file").where


def test_what_only_the_network_sees_is_the_same_file(zoo: Path) -> None:
    dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    other = Preprocessing(
        size=8,
        channels=3,
        channel_order="bgr",
        mean=(1, 2, 3),
        std=(4, 5, 6),
        crop=1.0,
        interpolation="antialias",
    )
    assert "earlier run" in dataset.load(surveyed(zoo), other, LIMIT, "file").where


def test_other_content_is_another_file(zoo: Path) -> None:
    dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    shutil.copy(zoo / "owl/12.png", zoo / "owl/13.png")
    loaded = dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    assert "earlier run" not in loaded.where
    assert (loaded.pixels[12] == loaded.pixels[13]).all()


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_file_that_is_not_whole_is_made_anew(zoo: Path, cache_folder: Path, kept: int) -> None:
    whole = np.array(dataset.load(surveyed(zoo), SMALL, LIMIT, "file").pixels)
    (path,) = cache_folder.iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    loaded = dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    assert "earlier run" not in loaded.where
    np.testing.assert_array_equal(loaded.pixels, whole)


def test_an_interrupted_load_leaves_nothing(
    zoo: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.load(surveyed(zoo), SMALL, LIMIT, "file", interrupt)
    assert list(cache_folder.iterdir()) == []
    assert threading.active_count() < 20


def test_interruption_does_not_wait_for_everything(tmp_path: Path) -> None:
    """Ctrl-C ends the tasks in hand; what is still waiting never begins."""
    begun: list[int] = []

    def work(index: int) -> int:
        begun.append(index)
        time.sleep(0.005)
        return index

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset._each(work, 10_000, interrupt)
    assert len(begun) < 1000


def test_results_keep_their_order() -> None:
    def work(index: int) -> int:
        time.sleep(0.001 * (index % 3))
        return index

    assert dataset._each(work, 101, None) == list(range(101))
    assert dataset._each(work, 0, None) == []


def test_rows_written_by_many_threads_find_their_place(tmp_path: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with (tmp_path / "rows").open("w+b") as file, ThreadPoolExecutor(8) as pool:
            store = dataset._rows_of(file, 3)
            rows = [np.full((1, 1, 3), index % 256, np.uint8) for index in range(3000)]
            list(pool.map(store, range(3000), rows))
    finally:
        sys.setswitchinterval(interval)
    expected = b"".join(row.tobytes() for row in rows)
    assert (tmp_path / "rows").read_bytes() == expected


def test_two_loads_may_race(zoo: Path) -> None:
    found = surveyed(zoo)
    expected = dataset.load(found, SMALL, LIMIT, "memory")
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(dataset.load, found, SMALL, LIMIT, "file") for _ in range(8)]
        for task in tasks:
            np.testing.assert_array_equal(task.result().pixels, expected.pixels)
            assert task.result().failures == expected.failures


def test_a_full_disk_is_told_before_decoding(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 100))
    calls = decodings(monkeypatch)
    with pytest.raises(ResiduaError, match="Set RESIDUA_CACHE to a folder with room"):
        dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    assert not calls


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk of Linux")
def test_a_disk_that_gets_full(
    zoo: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = Path.open

    def full(path: Path, mode: str = "r", **options: object) -> object:
        return opening(Path("/dev/full") if mode == "w+b" else path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ResiduaError, match=r"cannot be kept in .*: No space left on device"):
        dataset.load(surveyed(zoo), SMALL, LIMIT, "file")
    monkeypatch.undo()
    assert list(cache_folder.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ResiduaError, match=r"data\.cache=memory"):
        dataset.load(surveyed(zoo), SMALL, LIMIT, "file")


def test_large_images_are_decoded_one_at_a_time(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, running, most = image.decode, set(), []

    def watching(content: bytes, channels: int, max_pixels: int) -> np.ndarray:
        running.add(threading.get_ident())
        most.append(len(running))
        time.sleep(0.002)
        running.discard(threading.get_ident())
        return decode(content, channels, max_pixels)

    monkeypatch.setattr(image, "decode", watching)
    monkeypatch.setattr(dataset, "_LARGE", 1)
    dataset.load(surveyed(zoo), SMALL, LIMIT)
    assert max(most) == 1


# Real data


def test_messy_as_a_whole(shared_data: Path) -> None:
    """Every row of messy.json: 62 rows of pixels, 6 files with a reason, nothing of the others."""
    rows = json.loads((shared_data / "messy.json").read_text("utf-8"))
    source = folder.find(shared_data / "messy")
    loaded = dataset.load(
        dataset.survey(source, LIMIT),
        Preprocessing(size=16, channels=3, crop=1.0, interpolation="antialias"),
        LIMIT,
    )
    failed = {source.entries[index].path for index in loaded.failures} | set(dict(source.rejected))
    read = {e.path for i, e in enumerate(source.entries) if i not in loaded.failures}
    assert read == {row["file"] for row in rows if row["expect"] == "read"}
    assert failed == {row["file"] for row in rows if row["expect"] == "reject"}
    assert (len(read), len(failed)) == (62, 6)
    assert dataset.duplicates(dataset.survey(source, LIMIT)) == 2


def test_duplicates_of_birds6(shared_data: Path) -> None:
    assert dataset.duplicates(surveyed(shared_data / "birds6")) == 1


def peak_memory(root: Path) -> int:
    """Bytes at the most, of a process that does nothing but survey and load."""
    program = """if True:
        import resource, sys
        from pathlib import Path
        from residua.config.schema import Preprocessing
        from residua.data import cache as dataset, folder
        found = dataset.survey(folder.find(Path(sys.argv[1])), 10**8)
        rule = Preprocessing(size=224, channels=3, crop=1.0, interpolation="antialias")
        dataset.load(found, rule, 10**8)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    command = [sys.executable, "-c", program, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


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
