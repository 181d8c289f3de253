"""A Source -> what its images are (`survey`) -> all of them decoded, as one uint8 array (`load`).

Each file is decoded once; later epochs read the array. It lies in memory or, above a quarter of
what is free, in a file under the user's cache folder, whose name is a hash of the contents and the
preprocessing: what is found there is never stale. The data folder is never written to.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import statistics
import tempfile
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeVar

import numpy as np
import PIL

from residua.config.schema import Preprocessing
from residua.data import image
from residua.data.dataset import Dataset, Header, Pixels, Unreadable
from residua.errors import ResiduaError
from residua.system.files import cache_folder

Progress = Callable[[int, int], None]  # (done, of how many), called from the calling thread
Store = Callable[[int, Pixels], None]
T = TypeVar("T")

_CACHE_VERSION = 2  # to be raised when the same file would decode or resize differently
_LARGE = 2**24  # pixels; larger images are decoded one at a time: threads must fit in memory
_TASK = 16  # entries in one task of the thread pool


@dataclass(frozen=True, eq=False)
class Survey:
    """What reading every entry of a source once has shown.

    sha256: of each entry's content, "" where it could not be read. headers: of each entry, None
    where there is a failure. failures: entry -> reason; decoding may bring more.
    """

    source: Dataset
    sha256: tuple[str, ...]
    headers: tuple[Header | None, ...]
    failures: dict[int, str]


@dataclass(frozen=True, eq=False)
class Decoded:
    """All images of a source, ready for the network but for normalisation.

    pixels: uint8 [entries, size, size, C] in RGB or grey, row i for entry i, zero where it failed;
    possibly a read-only memory map. failures: entry -> reason, those of the survey included.
    where: where the pixels are and why, for the user.
    """

    pixels: Pixels
    failures: dict[int, str]
    where: str


def survey(source: Dataset, max_pixels: int, progress: Progress | None = None) -> Survey:
    """Read every entry once: its hash and its header; nothing is decoded."""

    def read(index: int) -> tuple[str, Header | None, str]:
        digest = ""
        try:
            content = source.content(index)
            digest = hashlib.sha256(content).hexdigest()
            return digest, source.header(index, content, max_pixels), ""
        except Unreadable as error:
            return digest, None, str(error)

    found = _each(read, len(source.entries), progress)
    return Survey(
        source=source,
        sha256=tuple(digest for digest, _, _ in found),
        headers=tuple(header for _, header, _ in found),
        failures={index: reason for index, (_, _, reason) in enumerate(found) if reason},
    )


def duplicates(survey: Survey) -> int:
    """How many readable images repeat the content of an earlier one, byte for byte."""
    contents = [d for d, header in zip(survey.sha256, survey.headers, strict=True) if header]
    return len(contents) - len(set(contents))


def grey(survey: Survey) -> bool:
    """Whether every readable image is stored with a single channel, and there is one."""
    modes = {header.mode for header in survey.headers if header}
    return bool(modes) and modes <= {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}


def median_size(survey: Survey) -> tuple[int, int]:
    """Median width and median height of the readable images. Raises ResiduaError if none is."""
    headers = [header for header in survey.headers if header]
    if not headers:
        raise ResiduaError(f"{survey.source.name}: not one of its images can be read.")
    median = statistics.median_low
    return median(h.width for h in headers), median(h.height for h in headers)


def load(
    survey: Survey,
    preprocessing: Preprocessing,
    max_pixels: int,
    cache: Literal["auto", "memory", "file"] = "auto",
    progress: Progress | None = None,
) -> Decoded:
    """Decode and resize every image of a survey, or find it done in the user's cache folder.

    Images that cannot be decoded, or have changed since the survey, become failures. Raises
    ResiduaError if neither memory nor the cache folder can take the pixels.
    """
    job = _Job(survey, preprocessing, max_pixels, progress)
    needed, free = math.prod(job.shape), free_memory()
    amount = f"{needed / 1e6:,.0f} MB"
    if cache == "auto":
        cache = "memory" if needed <= free // 4 else "file"
        amount += f"; memory takes up to a quarter of the {free / 1e6:,.0f} MB free"
    if cache == "file":
        return _load_into_file(job, amount)
    try:
        pixels = np.zeros(job.shape, np.uint8)
    except MemoryError:
        raise ResiduaError(f"No memory for {amount} of images: use data.cache=file.") from None
    failures, _ = job.decode(pixels.__setitem__)
    return Decoded(pixels, failures, f"in memory ({amount})")


@dataclass(frozen=True)
class _Job:
    """What is to be decoded, and how."""

    survey: Survey
    preprocessing: Preprocessing
    max_pixels: int
    progress: Progress | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        size = self.preprocessing.size
        return len(self.survey.sha256), size, size, self.preprocessing.channels

    def decode(self, store: Store) -> tuple[dict[int, str], set[int]]:
        """Stores every image that can be decoded, from several threads.

        Returns entry -> reason of the others, and the entries that might be read another time.
        """
        survey, rule, one_large = self.survey, self.preprocessing, threading.Lock()

        def decode(index: int) -> tuple[str, bool]:
            header = survey.headers[index]
            if header is None:
                return survey.failures[index], True
            try:
                content = survey.source.content(index)
            except Unreadable as error:
                return str(error), True
            if hashlib.sha256(content).hexdigest() != survey.sha256[index]:
                return "has changed while it was in use", True
            try:
                with one_large if header.width * header.height > _LARGE else nullcontext():
                    decoded = survey.source.pixels(index, content, rule.channels, self.max_pixels)
                    fitted = image.fit(decoded, rule)
            except Unreadable as error:
                return str(error), False
            store(index, fitted)
            return "", False

        ends = _each(decode, len(survey.sha256), self.progress)
        failures = {index: reason for index, (reason, _) in enumerate(ends) if reason}
        return failures, {index for index, (_, passing) in enumerate(ends) if passing}

    def file_name(self, left_out: Collection[int]) -> str:
        """Equal only if every pixel is: contents but those left out, geometry, decoder."""
        rule = self.preprocessing
        geometry = rule.size, rule.channels, rule.resize, rule.crop, rule.interpolation
        how = _CACHE_VERSION, PIL.__version__, self.max_pixels, geometry
        name = hashlib.sha256(repr(how).encode())
        for index, content in enumerate(zip(self.survey.sha256, self.survey.headers, strict=True)):
            name.update(b"-" if index in left_out else repr(content).encode())
        return f"{name.hexdigest()[:32]}.pixels"


def _load_into_file(job: _Job, amount: str) -> Decoded:
    """Maps the file of an earlier run, or writes it and then maps it."""
    folder = cache_folder()
    path = folder / job.file_name(job.survey.failures)
    found, origin = _cached(path, job.shape), ", left there by an earlier run"
    try:
        if found is None:
            path = _write(job, folder)
            found, origin = _cached(path, job.shape), ""
        if found is None:
            raise OSError("the file just written is gone")
    except OSError as error:
        raise ResiduaError(
            f"{amount} of decoded images cannot be kept in {folder}: {error.strerror or error}. "
            "Set RESIDUA_CACHE to a folder with room, or use data.cache=memory."
        ) from error
    return Decoded(*found, f"in {path}{origin} ({amount})")


def _write(job: _Job, folder: Path) -> Path:
    """Decodes into a new file: raw pixels, then the failures as JSON. Raises OSError.

    It gets its name when it is whole; processes that race bring equal files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed, room = math.prod(job.shape), shutil.disk_usage(folder).free
    if room < needed:
        raise OSError(f"there is room for {room / 1e6:,.0f} MB")
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder) as place:
        unfinished = Path(place, "pixels")
        with unfinished.open("w+b") as file:
            # Written, not memory-mapped: where the disk gets full, a map kills the process.
            failures, passing = job.decode(_rows_of(file, math.prod(job.shape[1:])))
            file.truncate(needed)  # rows of failures are holes, which read as zero
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(failures).encode())
            file.flush()
            os.fsync(file.fileno())  # before the name, or a power cut leaves the name alone
        # A failure that may pass, such as a file that changed, must not be found by a later run.
        path = folder / job.file_name(passing)
        unfinished.replace(path)
    return path


def _rows_of(file: IO[bytes], length: int) -> Store:
    """Writes images of `length` bytes to their place in a file, from any thread."""
    lock = threading.Lock()

    def store(index: int, pixels: Pixels) -> None:
        with lock:
            file.seek(index * length)
            file.write(pixels.tobytes())

    return store


def _cached(path: Path, shape: tuple[int, ...]) -> tuple[Pixels, dict[int, str]] | None:
    """Pixels and failures of a whole cache file; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(math.prod(shape))
            failures = {int(index): str(reason) for index, reason in json.load(file).items()}
        return np.memmap(path, np.uint8, "r", shape=shape), failures
    except (OSError, ValueError, AttributeError):
        return None


def _each(work: Callable[[int], T], count: int, progress: Progress | None) -> list[T]:
    """work(0) ... work(count - 1) from a small thread pool; each thread has one in hand."""
    tasks = [range(start, min(start + _TASK, count)) for start in range(0, count, _TASK)]
    results: list[T] = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for part in pool.map(lambda task: [work(index) for index in task], tasks):
            results += part
            if progress:
                progress(len(results), count)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, do not begin what is still waiting
    return results


def free_memory() -> int:
    """Bytes of memory that can be had, in a container too; 4 GiB where the system says nothing."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        _, said = Path("/proc/meminfo").read_text("ascii").split("MemAvailable:")
        found.append(1024 * int(said.split()[0]))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of control groups 2 and 1
        with suppress(OSError, ValueError):  # "max" is no number: there is no limit
            found.append(int(Path("/sys/fs/cgroup", limit).read_text("ascii")))
    return min(found, default=2**32)
