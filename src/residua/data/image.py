"""Bytes of an image file -> its header; its upright uint8 pixels; these resized to a square.

Every problem is an `Unreadable` with a reason: no exception and no warning of Pillow leaves this
module. Colour profiles are not applied, as in TensorFlow and torchvision.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, _imaging

from residua.config.schema import Preprocessing
from residua.data.containers import completed, without_metadata
from residua.data.dataset import Header, Pixels, Unreadable
from residua.data.recognition import format_of, objection_to, read_file, without_blanks
from residua.data.value_range import ValueRange, Values, of_image

# Pillow's warnings are either harmless or become an Unreadable. Filtered once for the process,
# because warnings.catch_warnings is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(OSError, AttributeError):  # libtiff prints on its own; not every build exports this
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

_LARGE = 2**24  # pixels; larger images are decoded one at a time, to fit in memory
_LARGE_LOCK = threading.Lock()
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|cannot handle|unknown pixel mode|not available|unknown data org|"
    r"unknown (raw|image) mode|bad image mode|unknown colou?r",
    re.IGNORECASE,
)
_BITS, _PHOTOMETRIC, _LARGEST, _PLANES = 258, 262, 281, 284  # tags of TIFF
_MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels
Box = tuple[int, int, int, int]  # left, top, right, bottom
_TILE = 2**10  # px: an image is converted in tiles, so that no second copy of it is in memory

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "antialias": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

# EXIF orientation -> (transpose first, then flip the rows, flip the columns).
_ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def header(content: bytes, max_pixels: int) -> Header:
    """The header of an image, without decoding it.

    Raises Unreadable if it is not an image, its header is damaged, or it has more than `max_pixels`
    pixels.
    """
    format, image = _open(content, max_pixels)
    with _translated(format, content):
        width, height = image.size
        swapped = _ORIENTATIONS.get(_orientation(image), (False,))[0]
    if swapped:
        width, height = height, width
    return Header(width, height, format=format, mode=image.mode)


def decode(
    content: bytes, channels: int, max_pixels: int, value_range: ValueRange | None = None
) -> Pixels:
    """The first frame, upright, as uint8 [H, W, channels], 0..255: RGB or greyscale.

    Greyscale is Pillow's (299 R + 587 G + 114 B) / 1000; transparent pixels are blended with white.
    value_range: the values of 16-bit and float images that become 0 and 255; None: see
    `value_range.of_image`. Raises Unreadable.
    """
    return _used(content, max_pixels, lambda image: _upright(image, channels, value_range))


def from_pillow(
    image: Image.Image, channels: int, max_pixels: int, value_range: ValueRange | None = None
) -> Pixels:
    """An image that Pillow has opened, as `decode` returns that of a file. Raises Unreadable."""
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise Unreadable(f"{width} x {height} pixels are not within the limit of {max_pixels:,}")
    try:
        if reason := _misread(image):
            raise Unreadable(reason)
        return _upright(image, channels, value_range)
    except Unreadable:
        raise
    except (Exception, MemoryError) as error:
        raise Unreadable(f"cannot be read: {' '.join(str(error).split())[:120]}") from error


@contextmanager
def one_at_a_time(header: Header) -> Iterator[None]:
    """A lock for an image that needs much memory while it is decoded; none for others."""
    if header.width * header.height <= _LARGE:
        yield
        return
    with _LARGE_LOCK:
        try:
            yield
        finally:
            with suppress(OSError, AttributeError):  # glibc keeps what a thread freed for itself
                ctypes.CDLL(None).malloc_trim(0)


def digest(pixels: Pixels) -> str:
    """SHA-256 of uint8 [H, W, C]; equal for a greyscale image and its RGB copy."""
    if pixels.shape[2] == 3:
        red, green, blue = (pixels[:, :, channel] for channel in range(3))
        if all(np.array_equal(red[:1], other[:1]) for other in (green, blue)) and all(
            np.array_equal(red, other) for other in (green, blue)
        ):
            pixels = red[:, :, None]
    sha256 = hashlib.sha256(repr(pixels.shape).encode())
    sha256.update(np.ascontiguousarray(pixels).data)
    return sha256.hexdigest()


def prepared(content: bytes, preprocessing: Preprocessing, max_pixels: int) -> Pixels:
    """An image as uint8 [size, size, channels], RGB or greyscale. Raises Unreadable."""
    channels, value_range = preprocessing.channels, preprocessing.value_range

    def fit(image: Image.Image) -> Pixels:
        if _is_plain(image, channels) and _orientation(image) == 1:
            return resize(image, preprocessing)  # without a copy as an array, half of the time
        return resize(_upright(image, channels, value_range), preprocessing)

    with one_at_a_time(header(content, max_pixels)):
        return _used(content, max_pixels, fit)


def read_image(path: Path, preprocessing: Preprocessing, max_pixels: int) -> Pixels:
    """A file as uint8 [size, size, channels], RGB or greyscale. Raises Unreadable."""
    return prepared(read_file(path), preprocessing, max_pixels)


def resize(pixels: Pixels | Image.Image, preprocessing: Preprocessing) -> Pixels:
    """uint8 [H, W, C] -> uint8 [size, size, C], by the settings `resize` and `interpolation`.

    pixels: an array, or an image of Pillow in mode "RGB" or "L" with the same values.

    Memory is near that of the result, however long and thin the image. An image of that size is
    returned as it is.
    """
    size, interpolation = preprocessing.size, preprocessing.interpolation
    width, height = pixels.size if isinstance(pixels, Image.Image) else pixels.shape[1::-1]
    if (height, width) == (size, size) and preprocessing.crop == 1:
        return _array(pixels)
    if preprocessing.resize == "squash":
        return _resample(pixels, (0, 0, width, height), size, size, interpolation)
    if preprocessing.resize == "crop":
        side = max(1, round(min(height, width) * preprocessing.crop))
        left, top = (width - side) // 2, (height - side) // 2
        return _resample(pixels, (left, top, side, side), size, size, interpolation)
    longer = max(height, width)
    inner_width, inner_height = (max(1, round(n * size / longer)) for n in (width, height))
    left, top = (size - inner_width) // 2, (size - inner_height) // 2
    inner = _resample(pixels, (0, 0, width, height), inner_width, inner_height, interpolation)
    padded = np.zeros((size, size, inner.shape[2]), np.uint8)
    padded[top : top + inner_height, left : left + inner_width] = inner
    return padded


def _used(content: bytes, max_pixels: int, use: Callable[[Image.Image], Pixels]) -> Pixels:
    """The result of `use` for the decoded image; a JPEG that lacks its end is completed."""
    format, image = _open(content, max_pixels)
    with _translated(format, content):
        try:
            image.load()
        except OSError:
            whole = completed(without_blanks(content)) if format == "JPEG" else None
            if whole is None:
                raise
            return _used(whole, max_pixels, use)
        return use(image)


def _upright(image: Image.Image, channels: int, value_range: ValueRange | None) -> Pixels:
    """Pixels uint8 [H, W, channels], turned by the orientation of EXIF; see `decode`."""
    image.load()
    transpose, flip_rows, flip_columns = _ORIENTATIONS.get(_orientation(image), (False,) * 3)
    width, height = image.size
    shape = (width, height) if transpose else (height, width)
    upright = np.empty((*shape, channels), np.uint8)
    stored = upright[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    if transpose:
        stored = stored.swapaxes(0, 1)
    tiles = _byte_tiles(image, value_range) if is_deep(image.mode) else _tiles(image)
    for tile, (left, top, right, bottom) in tiles:
        part = stored[top:bottom, left:right]
        part[...] = np.asarray(_plain(tile, channels)).reshape(part.shape)
    return upright


def _open(content: bytes, max_pixels: int) -> tuple[str, ImageFile.ImageFile]:
    """The format and the image, not decoded. Raises Unreadable, also above `max_pixels`."""
    content = without_blanks(content)
    format = format_of(content)
    if format is None:
        raise Unreadable(objection_to(content))
    Image.init()
    if format not in Image.OPEN:
        raise Unreadable(f"is a {format} file, which this build of Pillow cannot read")
    # Not Image.open: its pixel limit is fixed, only warns, and hides the size.
    with _translated(format, content):
        content = without_metadata(content) if format == "PNG" else content
        image: Any = Image.OPEN[format][0](BytesIO(content), "")
        width, height = image.size
        if width * height > max_pixels:
            raise Unreadable(f"{width} x {height} pixels are more than the limit of {max_pixels:,}")
        if reason := _misread(image):
            raise Unreadable(reason)
    return format, image


@contextmanager
def _translated(format: str, content: bytes) -> Iterator[None]:
    """Turn any exception, as Pillow raises on damaged files, into Unreadable."""
    try:
        yield
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("needs more memory than is available") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        if isinstance(error, EOFError) or "truncated" in reason.lower():
            raise Unreadable(f"is truncated after {len(content):,} bytes") from error
        if _UNSUPPORTED.search(reason):
            raise Unreadable(
                f"is a {format} file of a kind that is not supported ({reason}): convert it to PNG "
                "of 8 or 16 bits"
            ) from error
        raise Unreadable(f"is a damaged {format} file: {reason or type(error).__name__}") from error


def _misread(image: Image.Image) -> str | None:
    """Why the pixels would be wrong although Pillow raises no error; None if they are right."""
    if image.format != "TIFF":
        return None
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, planes = max(tags.get(_BITS, (1,))), tags.get(_PLANES)
    if planes == 2 and bits > 8 and len(tags.get(_BITS)) > 1:
        return f"is a TIFF of separate {bits}-bit planes, which is not supported: convert it to PNG"
    if tags.get(_PHOTOMETRIC) == 0 and is_deep(image.mode) and image.mode[:4] != "I;16":
        return "is a TIFF in which 0 is white, not supported with over 16 bits: convert it to PNG"
    return None


def _orientation(image: Image.Image) -> int:
    """The orientation 1..8 of EXIF or XMP; 1 also if that is damaged: the pixels may be fine."""
    if image.format == "TIFF":
        return 1  # Pillow itself rotates these
    try:
        # The base class's method: that of PNG would decode the image to read chunks after it.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def is_deep(mode: str) -> bool:
    """Whether values of this mode of Pillow have more than 8 bits."""
    return mode[0] in "IF"


def _tiles(image: Image.Image) -> Iterator[tuple[Image.Image, Box]]:
    """Parts of an image that cover it."""
    width, height = image.size
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            box = left, top, min(left + _TILE, width), min(top + _TILE, height)
            yield image if box == (0, 0, *image.size) else image.crop(box), box


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Any colour mode of 8 bits -> "RGB" (3 channels) or "L" (1 channel)."""
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    mode = _MODES[channels]
    return image if image.mode == mode else image.convert(mode)


def _is_plain(image: Image.Image, channels: int) -> bool:
    """Whether `_plain` would change nothing."""
    return image.mode == _MODES[channels] and not image.has_transparency_data


def _array(pixels: Pixels | Image.Image) -> Pixels:
    """uint8 [H, W, C] of an image of one or three channels."""
    array = np.array(pixels) if isinstance(pixels, Image.Image) else pixels
    return array if array.ndim == 3 else array[:, :, None]


def finite(numbers: Values) -> Values:
    """The numbers. Raises Unreadable if one is NaN or infinite: no grey level would be right."""
    if not np.isfinite(numbers).all():
        raise Unreadable(
            "has values that are not numbers (NaN or infinite): replace them, for example by the "
            "value of black"
        )
    return numbers


def values(content: bytes, max_pixels: int, count: int) -> Values:
    """About `count` evenly spaced values of a deep image, and its extremes. Raises Unreadable."""
    format, image = _open(content, max_pixels)
    with one_at_a_time(header(content, max_pixels)), _translated(format, content):
        image.load()
        return _sample(image, count)


def _value_tiles(image: Image.Image) -> Iterator[tuple[Values, Box]]:
    """Tiles of a deep image as float64 [h, w], black below white. Raises Unreadable where a value
    is not finite."""
    inverted = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]
    for tile, box in _tiles(image):
        numbers = finite(np.asarray(tile).astype(np.float64))
        yield 65535 - numbers if inverted else numbers, box


def _sample(image: Image.Image, count: int) -> Values:
    """See `values`."""
    parts = []
    step = max(1, round((image.width * image.height / count) ** 0.5))
    for numbers, _ in _value_tiles(image):
        parts += [numbers[::step, ::step].ravel(), np.array([numbers.min(), numbers.max()])]
    return np.concatenate(parts)


def _byte_tiles(
    image: Image.Image, value_range: ValueRange | None
) -> Iterator[tuple[Image.Image, Box]]:
    """Tiles of a deep image as grey images of 8 bits."""
    if value_range is None:
        stated = image.tag_v2.get(_LARGEST) if image.format == "TIFF" else None  # type: ignore[attr-defined]
        value_range = of_image(_sample(image, 2**16), image.mode, stated)
    low, high = value_range
    factor = 255 / max(high - low, 1e-30)
    for numbers, box in _value_tiles(image):
        scaled = np.clip((numbers - low) * factor, 0, 255)
        yield Image.fromarray(np.rint(scaled).astype(np.uint8)), box


def _resample(
    pixels: Pixels | Image.Image,
    box: tuple[int, int, int, int],
    width: int,
    height: int,
    interpolation: str,
) -> Pixels:
    """The box (left, top, width, height) of uint8 [H, W, C], resized.

    Near its edge, pixels outside the box contribute, as if the whole image were resized and then
    cropped.
    """
    left, top, box_width, box_height = box
    if interpolation in _PILLOW:
        image = pixels
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
        corners = (left, top, left + box_width, top + box_height)
        return _array(image.resize((width, height), _PILLOW[interpolation], corners))
    return _bilinear(
        _array(pixels),
        top + (np.arange(height, dtype=np.float64) + 0.5) * (box_height / height) - 0.5,
        left + (np.arange(width, dtype=np.float64) + 0.5) * (box_width / width) - 0.5,
    )


def _bilinear(
    pixels: Pixels, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> Pixels:
    """uint8 [H, W, C] sampled at real coordinates; pixel centres are integers, edges repeat."""
    height, width = pixels.shape[:2]
    above, before = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down = (rows - above).astype(np.float32)[:, None, None]
    right = (columns - before).astype(np.float32)[None, :, None]
    above, below = np.clip(above, 0, height - 1), np.clip(above + 1, 0, height - 1)
    before, behind = np.clip(before, 0, width - 1), np.clip(before + 1, 0, width - 1)

    def between(row: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        first = pixels[np.ix_(row, before)].astype(np.float32)
        return first + (pixels[np.ix_(row, behind)] - first) * right

    upper = between(above)
    return np.rint(upper + (between(below) - upper) * down).astype(np.uint8)
