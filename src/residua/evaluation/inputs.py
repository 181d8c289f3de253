"""Images as users give them -> their names and uint8 pixels, batch by batch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from residua.config.schema import Preprocessing
from residua.data.archive import is_archive, unpacked
from residua.data.dataset import Dataset, Pixels, Unreadable
from residua.data.folder import images_below
from residua.data.image import read_image, resize
from residua.data.listing import listed_files
from residua.data.open import EMBEDDED, open_dataset
from residua.data.pixels import ImageLike, fitted, is_one_image
from residua.data.table import is_table
from residua.data.url import is_address, read_address
from residua.data.value_range import ValueRange
from residua.errors import ResiduaError
from residua.system.files import reason_of, user_path

BATCH = 32
THREADS = 4  # that read images
AHEAD = 8  # batches

Images = ImageLike | Iterable[ImageLike]  # one image, or several
Input = tuple[str, Callable[[], Pixels]]  # the image's name, and how to read it
Inputs = Sequence[Input] | Iterator[Input]  # a sequence if their number is known
Batch = list[tuple[str, Pixels | str]]  # names with images, or with the reason why there is none


@dataclass(frozen=True)
class Reading:
    """How images are read.

    preprocessing: of the network. max_pixels: larger images are refused. allow_private: see
    `read_address`. value_range: see `data.pixels.pixels_of`.
    """

    preprocessing: Preprocessing
    max_pixels: int
    allow_private: bool | None = None
    value_range: ValueRange | None = None

    def read(self, image: ImageLike) -> Pixels:
        """uint8 [size, size, channels] in RGB order. Raises Unreadable."""
        if isinstance(image, str) and is_address(image):
            image = read_address(image, allow_private=self.allow_private)
        return fitted(image, self.preprocessing, self.max_pixels, self.value_range)


def several(images: Images | None) -> Iterable[ImageLike]:
    """One image as a list of one. Raises ResiduaError for what is neither images nor an image."""
    if is_one_image(images):
        return [images]  # type: ignore[list-item]
    if hasattr(images, "read"):  # its items would be lines
        raise ResiduaError(
            f"images of type {type(images).__name__}: is an open file: expected its content, as "
            "file.read() returns it."
        )
    if isinstance(images, Mapping) or hasattr(images, "columns") or hasattr(images, "column_names"):
        raise ResiduaError(
            f"images of type {type(images).__name__}: is a table: expected its column of images or "
            'paths, such as data["image"].'
        )
    try:
        iter(images)  # type: ignore[arg-type]
    except TypeError:
        raise ResiduaError(
            f"images of type {type(images).__name__}: expected an image or several: paths, "
            "addresses, the bytes of files, Pillow images, NumPy arrays or tensors."
        ) from None
    return images  # type: ignore[return-value]


def inputs_of(images: Images | None, reading: Reading) -> Inputs:
    """Every image, and every image below every folder: paths, folders, addresses, bytes, Pillow
    images, arrays, tensors."""
    images = several(images)
    inputs = _each(images, reading)
    is_known = isinstance(images, list | tuple) and all(
        isinstance(image, str | os.PathLike) for image in images
    )
    return list(inputs) if is_known else inputs


def dataset_inputs(images: Images | None, reading: Reading) -> list[Input]:
    """The images of a single data set without image files; empty for anything else."""
    if isinstance(images, list | tuple) and len(images) == 1:
        images = images[0]
    if not isinstance(images, str | os.PathLike) or not str(images) or is_address(str(images)):
        return []
    name = os.fspath(images)
    path = user_path(name)
    try:
        if (path.exists() or name != EMBEDDED) and (not path.is_dir() or images_below(path)):
            return []
        dataset = open_dataset(name)
    except (OSError, ValueError, ResiduaError):  # explained when its images are read
        return []
    return [
        (entry.path, partial(_dataset_image, dataset, index, reading))
        for index, entry in enumerate(dataset.entries)
    ]


def read_batches(inputs: Iterable[Input]) -> Iterator[Batch]:
    """The images, BATCH at a time; of a known list, up to AHEAD batches are read in the meantime,
    from the call on."""
    waiting = iter(inputs)
    pool = ThreadPoolExecutor(max_workers=THREADS)

    def begun() -> list[Future[tuple[str, Pixels | str]]]:
        return [pool.submit(_read, item) for item in islice(waiting, BATCH)]

    ahead = AHEAD if isinstance(inputs, Sequence) else 0
    queue = deque(begun() for _ in range(ahead))

    def batches() -> Iterator[Batch]:
        try:
            yield []  # from here on, closing it stops the threads
            while True:
                queue.append(begun())
                if not (batch := queue.popleft()):
                    return
                yield [image.result() for image in batch]
        finally:
            pool.shutdown(cancel_futures=True)

    reading = batches()
    next(reading)
    return reading


def _each(images: Iterable[ImageLike], reading: Reading) -> Iterator[Input]:
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            yield from _files(os.fspath(image), reading)
        else:  # read at once, because a stream may write the next image to the same memory
            name = getattr(image, "filename", "")
            name = name if isinstance(name, str) and name else f"image {number}"
            yield name, partial(_pixels_or_raise, _attempt(partial(reading.read, image)))


def _files(file: str, reading: Reading) -> Iterator[Input]:
    """A file, an address, or every image below a folder; a folder that cannot be read is a row."""
    if not file:  # such as an unset variable; as a path, it would be the working directory
        yield file, partial(_pixels_or_raise, "is an empty name")
        return
    try:
        path = user_path(file)
        if not is_address(file) and is_table(path) and path.is_file():
            yield from _rows(path, reading)
            return
        if not is_address(file) and is_archive(path):
            yield from _archived(path, reading)
            return
        if is_address(file) or not path.is_dir():
            yield file, partial(reading.read, file)
            return
        found = images_below(path)
    except (OSError, ValueError) as error:  # no permission, a name that is too long
        yield file, partial(_pixels_or_raise, f"cannot be read: {reason_of(error)}")
        return
    except ResiduaError as error:
        yield file, partial(_pixels_or_raise, str(error).removeprefix(f"{file}: ").rstrip("."))
        return
    for image in found:  # a "~" in a name that was found stands for itself
        yield str(image), partial(read_image, image, reading.preprocessing, reading.max_pixels)


def _dataset_image(dataset: Dataset, index: int, reading: Reading) -> Pixels:
    channels, content = reading.preprocessing.channels, dataset.content(index)
    pixels = dataset.pixels(index, content, channels, reading.max_pixels)
    return resize(pixels, reading.preprocessing)


def _rows(table: Path, reading: Reading) -> Iterator[Input]:
    """Every image that a table lists. Raises ResiduaError if no column is clearly the path."""
    for shown, file in listed_files(table):
        if isinstance(file, str):
            yield shown, partial(_pixels_or_raise, file)
        else:
            yield shown, partial(read_image, file, reading.preprocessing, reading.max_pixels)


def _archived(archive: Path, reading: Reading) -> Iterator[Input]:
    """Every image in an archive, by the archive's path and that inside it."""
    root = unpacked(archive)
    for image in images_below(root):
        shown = f"{archive}/{image.relative_to(root).as_posix()}"
        yield shown, partial(read_image, image, reading.preprocessing, reading.max_pixels)


def _read(item: Input) -> tuple[str, Pixels | str]:
    name, read_pixels = item
    return name, _attempt(read_pixels)


def _attempt(read_pixels: Callable[[], Pixels]) -> Pixels | str:
    """The pixels, or why there are none."""
    try:
        return read_pixels()
    except Unreadable as error:
        return str(error)


def _pixels_or_raise(outcome: Pixels | str) -> Pixels:
    if isinstance(outcome, str):
        raise Unreadable(outcome)
    return outcome
