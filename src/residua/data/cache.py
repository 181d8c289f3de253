"""A Dataset -> hashes and headers (`survey`) -> all images decoded in one uint8 array (`load`).

Each image is decoded once; later epochs read the array. It is in memory or, if it takes more than a
quarter of the free memory, in a file in the user's cache folder, whose name is a hash of contents
and preprocessing, so it is never stale; every row has a checksum. The data folder is never written
to.
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
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, NamedTuple, TypeVar

import numpy as np
import PIL

from residua.config.schema import Preprocessing
from residua.data import image
from residua.data.arrays import ArrayDataset
from residua.data.dataset import Dataset, Header, Pixels, Unreadable
from residua.data.measurements import Measured, Sample, measure, sample
from residua.data.value_range import Values, of_dataset
from residua.errors import ResiduaError
from residua.system.console import Report
from residua.system.files import UNFINISHED, cache_folder, reason_of, remove_leftovers

Store = Callable[[int, Pixels], None]
T = TypeVar("T")

_CACHE_VERSION = 8  # increased when decoding, resizing, measuring or the file changes
_MEASURED, _VALUES = 256, 2**14  # images, and values of each, that the range is measured on
_LEAST_RANGE = 26  # of 255; an image that uses less has few grey levels
_TASK = 16  # entries per task of the thread pool
_MOST_FILES = 20_000  # image files that are measured; of more it would take too long


@dataclass(frozen=True, eq=False)
class Survey:
    """The result of reading every entry once.

    max_pixels: larger images are failures. sha256: of each entry's content, "" if it could not be
    read. headers: of each entry, None for a failure. failures: entry -> reason; decoding may add
    more.
    """

    dataset: Dataset
    max_pixels: int
    sha256: tuple[str, ...]
    headers: tuple[Header | None, ...]
    failures: dict[int, str]


@dataclass(frozen=True, eq=False)
class Decoded:
    """All images of a data set, decoded and resized.

    pixels: uint8 [entries, size, size, C], RGB or greyscale, row i for entry i, zero for a failure;
    may be a read-only memory map. failures: entry -> reason, including those of the survey.
    digests: of each entry's decoded pixels before resizing, "" for a failure. flat: entries that
    use less than a tenth of the grey levels. measured: of each entry, None for a failure; empty for
    arrays and more than 20,000 files. where: location and size of the pixels, for the user.
    """

    pixels: Pixels
    failures: dict[int, str]
    digests: tuple[str, ...]
    flat: tuple[int, ...]
    measured: tuple[Measured | None, ...]
    where: str


def survey(dataset: Dataset, max_pixels: int, progress: Report | None = None) -> Survey:
    """Read the hash and the header of every entry, without decoding."""

    def read(index: int) -> tuple[str, Header | None, str]:
        digest = ""
        try:
            content = dataset.content(index)
            digest = hashlib.sha256(content).hexdigest()
            return digest, dataset.header(index, content, max_pixels), ""
        except Unreadable as error:
            return digest, None, str(error)

    results = in_threads(read, len(dataset.entries), progress)
    return Survey(
        dataset=dataset,
        max_pixels=max_pixels,
        sha256=tuple(digest for digest, _, _ in results),
        headers=tuple(header for _, header, _ in results),
        failures={index: reason for index, (_, _, reason) in enumerate(results) if reason},
    )


def grey(survey: Survey) -> bool:
    """Whether all readable images are greyscale, and there is one."""
    modes = {header.mode for header in survey.headers if header}
    return bool(modes) and modes <= {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}


def median_size(survey: Survey) -> tuple[int, int]:
    """Median width and height of the readable images. Raises ResiduaError if there is none."""
    headers = [header for header in survey.headers if header]
    if not headers:
        raise ResiduaError(f"{survey.dataset.name}: none of its images can be read.")
    median = statistics.median_low
    return median(h.width for h in headers), median(h.height for h in headers)


def value_range(survey: Survey, progress: Report | None) -> tuple[float, float, int]:
    """The values of 16-bit and float images that become 0 and 255, and how many were measured."""
    deep = [at for at, header in enumerate(survey.headers) if header and image.is_deep(header.mode)]
    deep = deep[:: -(-len(deep) // _MEASURED)]

    def measure(number: int) -> Values:
        try:
            content = survey.dataset.content(deep[number])
            return image.values(content, survey.max_pixels, _VALUES)
        except Unreadable:  # `load` reports it
            return np.zeros(0)

    values = np.concatenate(in_threads(measure, len(deep), progress))
    floats = {index for index in deep if (header := survey.headers[index]) and header.mode == "F"}
    return *of_dataset(values, len(floats) == len(deep)), len(deep)


def load(
    survey: Survey,
    preprocessing: Preprocessing,
    cache: Literal["auto", "memory", "file"] = "auto",
    progress: Report | None = None,
    *,
    measured: bool = False,
) -> Decoded:
    """Decode and resize every image of a survey, or open the cache file of an earlier run.

    measured: whether to measure images for an audit too; a cache file has measurements always.
    Images that cannot be decoded, or have changed since the survey, become failures. Raises
    ResiduaError if the pixels do not fit into memory or the cache folder.
    """
    job = _Job(survey, preprocessing, progress, measured)
    needed, free = math.prod(job.shape), free_memory()
    amount = f"{needed / 1e6:,.0f} MB"
    if cache == "auto":
        cache = "memory" if needed <= free // 4 else "file"
        amount += f"; limit: a quarter of {free / 1e6:,.0f} MB free memory"
    if cache == "file":
        return _load_into_file(replace(job, measured=True), amount)
    try:
        pixels = np.zeros(job.shape, np.uint8)
    except MemoryError:
        raise ResiduaError(f"{amount} of images exceed the memory: use data.cache=file.") from None
    return _decoded(pixels, job.decode(pixels.__setitem__), f"in memory ({amount})")


class _Row(NamedTuple):
    """One entry: CRC-32 of its pixels, and what `Decoded` has of it.

    is_temporary: whether the failure may be temporary, so that no later run may find it.
    """

    checksum: int
    failure: str
    digest: str = ""
    is_flat: bool = False
    measured: Measured | None = None
    is_temporary: bool = False


def _decoded(pixels: Pixels, rows: Sequence[_Row], where: str) -> Decoded:
    measured = tuple(row.measured for row in rows)
    return Decoded(
        pixels,
        failures={index: row.failure for index, row in enumerate(rows) if row.failure},
        digests=tuple(row.digest for row in rows),
        flat=tuple(index for index, row in enumerate(rows) if row.is_flat),
        measured=measured if any(measured) else (),
        where=where,
    )


def _to_bytes(rows: Sequence[_Row]) -> bytes:
    """The end of a cache file: JSON and its checksum."""
    facts = [(*row[:4], row.measured and row.measured.to_json()) for row in rows]
    text = json.dumps(facts).encode()
    return text + zlib.crc32(text).to_bytes(4, "big")


def _from_bytes(content: bytes, headers: Sequence[Header | None]) -> list[_Row]:
    """The inverse of `_to_bytes`. Raises ValueError if the content is damaged."""
    text, checksum = content[:-4], content[-4:]
    if zlib.crc32(text).to_bytes(4, "big") != checksum:
        raise ValueError("damaged")
    return [
        _Row(*facts)._replace(
            measured=Measured.from_json(header, measured) if header and measured else None
        )
        for header, (*facts, measured) in zip(headers, json.loads(text), strict=True)
    ]


@dataclass(frozen=True)
class _Job:
    """The arguments of `load`."""

    survey: Survey
    preprocessing: Preprocessing
    progress: Report | None
    measured: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        size = self.preprocessing.size
        return len(self.survey.sha256), size, size, self.preprocessing.channels

    def decode(self, store: Store) -> list[_Row]:
        """Call `store` with every image that can be decoded, from several threads."""
        survey, preprocessing = self.survey, self.preprocessing
        failed = zlib.crc32(bytes(math.prod(self.shape[1:])))  # its row is zero

        is_array = isinstance(survey.dataset, ArrayDataset)
        is_measured = self.measured and not is_array and len(survey.sha256) <= _MOST_FILES

        def decode(index: int) -> tuple[_Row, Sample | None]:
            header = survey.headers[index]
            if header is None:
                return _Row(failed, survey.failures[index], is_temporary=True), None
            try:
                content = survey.dataset.content(index)
            except Unreadable as error:
                return _Row(failed, str(error), is_temporary=True), None
            if hashlib.sha256(content).hexdigest() != survey.sha256[index]:
                return _Row(failed, "has changed during the run", is_temporary=True), None
            try:
                with image.one_at_a_time(header):
                    decoded = survey.dataset.pixels(
                        index,
                        content,
                        preprocessing.channels,
                        survey.max_pixels,
                        preprocessing.value_range,
                    )
                    digest = image.digest(decoded)
                    is_flat = int(decoded.max()) - int(decoded.min()) < _LEAST_RANGE
                    resized = np.ascontiguousarray(image.resize(decoded, preprocessing))
                    taken = sample(header, content, decoded) if is_measured else None
            except Unreadable as error:
                return _Row(failed, str(error)), None
            store(index, resized)
            return _Row(zlib.crc32(resized.data), "", digest, is_flat), taken

        def decode_task(task: range) -> list[_Row]:
            rows, samples = zip(*map(decode, task), strict=True)
            measured = iter(measure([sample for sample in samples if sample]))
            return [
                row._replace(measured=next(measured)) if sample else row
                for row, sample in zip(rows, samples, strict=True)
            ]

        return in_tasks(decode_task, len(survey.sha256), self.progress)

    def file_name(self, excluded: Collection[int]) -> str:
        """A hash of geometry, decoder and contents but those excluded: equal for equal pixels."""
        rule, max_pixels = self.preprocessing, self.survey.max_pixels
        geometry = rule.size, rule.channels, rule.resize, rule.crop, rule.interpolation
        decoder = _CACHE_VERSION, PIL.__version__, max_pixels, geometry, rule.value_range
        name = hashlib.sha256(repr(decoder).encode())
        for index, content in enumerate(zip(self.survey.sha256, self.survey.headers, strict=True)):
            name.update(b"-" if index in excluded else repr(content).encode())
        return f"{name.hexdigest()[:32]}.pixels"


def _load_into_file(job: _Job, amount: str) -> Decoded:
    """Map the cache file, after writing it if there is none."""
    folder = cache_folder()
    path = folder / job.file_name(job.survey.failures)
    headers = job.survey.headers
    cached, origin = _cached(path, job.shape, headers), " of an earlier run"
    try:
        if cached is None:
            remove_leftovers(folder)
            path = _write(job, folder)
            cached, origin = _cached(path, job.shape, headers), ""
        if cached is None:
            raise OSError("the file just written is gone or damaged")
    except OSError as error:
        raise ResiduaError(
            f"{amount} of decoded images cannot be stored in {folder}: {reason_of(error)}. "
            "Set RESIDUA_CACHE to a folder on another disk, or use data.cache=memory."
        ) from error
    return _decoded(*cached, f"in {path}{origin} ({amount})")


def _write(job: _Job, folder: Path) -> Path:
    """Decode into a new file: raw pixels, then the facts of the entries. Raises OSError.

    The complete file is renamed; processes that race write equal files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = math.prod(job.shape), shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{free / 1e6:,.0f} MB are free")
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as temporary:
        unfinished = Path(temporary, "pixels")
        with unfinished.open("w+b") as file:
            # Written, not memory-mapped: a full disk would kill the process.
            rows = job.decode(_rows_of(file, math.prod(job.shape[1:])))
            file.truncate(needed)  # rows of failures are holes, read as zero
            file.seek(0, os.SEEK_END)
            file.write(_to_bytes(rows))
            file.flush()
            os.fsync(file.fileno())  # before renaming, or a power cut leaves an empty file
        # A later run must not find temporary failures, such as a file that changed.
        path = folder / job.file_name({n for n, row in enumerate(rows) if row.is_temporary})
        unfinished.replace(path)
    return path


def _rows_of(file: IO[bytes], length: int) -> Store:
    """A function that writes image i of `length` bytes at i * length, from any thread."""
    lock = threading.Lock()

    def store(index: int, pixels: Pixels) -> None:
        with lock:
            file.seek(index * length)
            file.write(pixels.tobytes())

    return store


def _cached(
    path: Path, shape: tuple[int, ...], headers: Sequence[Header | None]
) -> tuple[Pixels, list[_Row]] | None:
    """Pixels and rows of a complete, undamaged cache file; None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(math.prod(shape))
            rows = _from_bytes(file.read(), headers)
        pixels = np.memmap(path, np.uint8, "r", shape=shape)
    except (OSError, TypeError, ValueError):
        return None
    checksums = in_threads(lambda index: zlib.crc32(pixels[index].data), len(pixels))
    return (pixels, rows) if checksums == [row.checksum for row in rows] else None


def in_threads(work: Callable[[int], T], count: int, progress: Report | None = None) -> list[T]:
    """[work(0), ..., work(count - 1)], from a small thread pool."""
    return in_tasks(lambda task: [work(index) for index in task], count, progress)


def in_tasks(
    work: Callable[[range], Sequence[T]], count: int, progress: Report | None = None
) -> list[T]:
    """The results of `work` for ranges that make up 0..count - 1, from a small thread pool."""
    tasks = [range(start, min(start + _TASK, count)) for start in range(0, count, _TASK)]
    results: list[T] = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for rows in pool.map(work, tasks):
            results += rows
            if progress:
                progress(len(results), count)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, waiting tasks do not start
    return results


def free_memory(unknown: int = 2**32, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int:
    """Bytes of available memory, in a container too; `unknown` if the system does not report any.

    proc, sys: where Linux reports memory and control groups.
    """
    free = []
    with suppress(OSError, ValueError, IndexError):
        _, available = (proc / "meminfo").read_text("ascii").split("MemAvailable:")
        free.append(1024 * int(available.split()[0]))
    for group, limit, used in _control_groups(proc, sys):
        with suppress(OSError, ValueError, KeyError):  # "max": no limit
            usage = (group / "memory.stat").read_text("ascii").split()
            bytes_of = dict(zip(usage[::2], usage[1::2], strict=True))
            free.append(int((group / limit).read_text("ascii")) - int(bytes_of[used]))
    if not free:
        with suppress(AttributeError, OSError, ValueError):  # macOS; about half of it is in use
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(free, default=unknown))


def _control_groups(proc: Path, sys: Path) -> Iterator[tuple[Path, str, str]]:
    """Folder, and names of the limit and the used memory, of each group that limits this process:
    its own and those around it, of versions 1 and 2."""
    with suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            root, limit, used = sys / "fs" / "cgroup", "memory.max", "anon"
            if controllers:
                root, limit, used = root / "memory", "memory.limit_in_bytes", "total_rss"
            if controllers in ("", "memory"):
                innermost = root / path.strip("/")
                for group in (innermost, *innermost.parents):
                    if group.is_relative_to(root):
                        yield group, limit, used
