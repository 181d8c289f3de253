"""Bytes of an image file -> its header; or its upright uint8 pixels, resized to a square.

Every problem is an `Unreadable` with a reason: no exception and no warning of Pillow leaves this
module. Colour profiles are not applied, as in TensorFlow and torchvision.
"""

from __future__ import annotations

import ctypes
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, _imaging

from residua.config.schema import Preprocessing
from residua.data.dataset import Header, Pixels, Unreadable

# Pillow's warnings are either harmless or become an Unreadable. Filtered once for the process,
# because warnings.catch_warnings is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(OSError, AttributeError):  # libtiff prints on its own; not every build exports this
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

_START = 64  # bytes that identify the format of a file
_MAX_BYTES = 2**30  # of a file; 100 megapixels of 16-bit RGBA are 0.8e9

# First bytes of the raster formats that Pillow decodes itself, without running other programs.
_FORMATS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WEBP": rb"RIFF.{4}WEBP",
    "PPM": rb"P[1-6]\s+(#|\d)|P[Ff]\s+\d",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "AVIF": rb".{4}ftypavi[fs]",
}
# Suffixes of image files, including formats that are not read here.
_SUFFIX = re.compile(
    r"\.(jpe?g|jpe|jfif|a?png|gif|bmp|dib|tiff?|webp|p[pgbnf]m|jp2|j2k|jpx|avif|hei[cf]|"
    r"ico|svg|psd|eps|raw|cr[23w]|nef|nrw|arw|dng|raf|orf|rw2|pef|srw|x3f|jxl|tga)",
    re.IGNORECASE,
)
_FOREIGN = {
    "a HEIC photo, which is not supported: convert it to JPEG": rb".{4}ftyp(hei|hev|mif1|msf1)",
    "a camera's raw file: export it as JPEG": rb".{4}ftypcrx|FUJIFILMCCD-RAW|II(RO|RS|U\0)",
    "a JPEG XL image, which is not supported: convert it to JPEG": rb"\xff\n|\0{3}\x0cJXL ",
    "a Photoshop file: export it as PNG": rb"8BPS",
    "a PDF document": rb"%PDF",
    "a PostScript drawing: export it as PNG": rb"%!PS|\xc5\xd0\xd3\xc6",
    "an SVG drawing: export it as PNG": rb"(<\?xml[^>]*>\s*)?<svg",
    "an icon file: export it as PNG": rb"\0\0[\1\2]\0.\0",
}

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


def is_claimed(path: Path) -> bool:
    """Whether a file has the suffix of an image."""
    return _SUFFIX.fullmatch(path.suffix) is not None


def objection(path: Path) -> str | None:
    """Why a file is not an image, by its type and first bytes alone; None if it may be one."""
    try:
        if not path.is_file():  # reading a pipe would block, a device might never end
            path.stat()
            return "is a folder, not an image" if path.is_dir() else "is not a regular file"
        with path.open("rb") as file:
            start = file.read(_START)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return objection_to(start)


def objection_to(content: bytes) -> str | None:
    """Why content with these first bytes is not an image; None if it may be one."""
    start = content[:_START]
    if not start or _format(start):
        return None if start else "is empty"
    for description, signature in _FOREIGN.items():
        if re.match(signature, start, re.DOTALL):
            return f"is {description}"
    first_word = (start.split(maxsplit=1) or [b" "])[0][:16]
    return f"is not an image: starts with {repr(first_word)[1:]}"


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most 1 GiB. Raises Unreadable."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise Unreadable(objection(path) or f"is larger than {_MAX_BYTES:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


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


def decode(content: bytes, channels: int, max_pixels: int) -> Pixels:
    """The first frame, upright, as uint8 [H, W, channels], 0..255: RGB or greyscale.

    Greyscale is Pillow's (299 R + 587 G + 114 B) / 1000; transparent pixels are blended with white.
    Raises Unreadable.
    """
    format, image = _open(content, max_pixels)
    with _translated(format, content):
        return _upright(image, channels)


def from_pillow(image: Image.Image, channels: int, max_pixels: int) -> Pixels:
    """An image that Pillow has opened, as `decode` returns that of a file. Raises Unreadable."""
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise Unreadable(f"{width} x {height} pixels are not within the limit of {max_pixels:,}")
    try:
        return _upright(image, channels)
    except (Exception, MemoryError) as error:
        raise Unreadable(f"cannot be read: {' '.join(str(error).split())[:120]}") from error


def read_image(path: Path, preprocessing: Preprocessing, max_pixels: int) -> Pixels:
    """A file as uint8 [size, size, channels], RGB or greyscale. Raises Unreadable."""
    content = read_file(path)
    return resize(decode(content, preprocessing.channels, max_pixels), preprocessing)


def resize(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """uint8 [H, W, C] -> uint8 [size, size, C], by the settings `resize` and `interpolation`.

    Memory is near that of the result, however long and thin the image. An image of that size is
    returned as it is.
    """
    size, interpolation = preprocessing.size, preprocessing.interpolation
    height, width = pixels.shape[:2]
    if (height, width) == (size, size) and preprocessing.crop == 1:
        return pixels
    if preprocessing.resize == "squash":
        return _resample(pixels, (0, 0, width, height), size, size, interpolation)
    if preprocessing.resize == "crop":
        side = max(1, round(min(height, width) * preprocessing.crop))
        left, top = (width - side) // 2, (height - side) // 2
        return _resample(pixels, (left, top, side, side), size, size, interpolation)
    longer = max(height, width)
    inner_width, inner_height = (max(1, round(n * size / longer)) for n in (width, height))
    left, top = (size - inner_width) // 2, (size - inner_height) // 2
    padded = np.zeros((size, size, pixels.shape[2]), np.uint8)
    padded[top : top + inner_height, left : left + inner_width] = _resample(
        pixels, (0, 0, width, height), inner_width, inner_height, interpolation
    )
    return padded


def _upright(image: Image.Image, channels: int) -> Pixels:
    """Pixels uint8 [H, W, channels], turned by the orientation of EXIF."""
    image.load()
    transpose, flip_rows, flip_columns = _ORIENTATIONS.get(_orientation(image), (False,) * 3)
    pixels = np.asarray(_plain(image, channels))
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    pixels = pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.ascontiguousarray(pixels)


def _format(start: bytes) -> str | None:
    """The format, such as "JPEG", by the first bytes; None if they are not an image's."""
    for name, signature in _FORMATS.items():
        if re.match(signature, start, re.DOTALL):
            return name
    return None


def _open(content: bytes, max_pixels: int) -> tuple[str, ImageFile.ImageFile]:
    """The format and the image, not decoded. Raises Unreadable, also above `max_pixels`."""
    format = _format(content[:_START])
    if format is None:
        raise Unreadable(objection_to(content))
    Image.init()
    if format not in Image.OPEN:
        raise Unreadable(f"is a {format} file, which this build of Pillow cannot read")
    # Not Image.open: its pixel limit is fixed, only warns, and hides the size.
    with _translated(format, content):
        image: Any = Image.OPEN[format][0](BytesIO(content), "")
        width, height = image.size
        if width * height > max_pixels:
            raise Unreadable(f"{width} x {height} pixels are more than the limit of {max_pixels:,}")
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
            raise Unreadable(f"is cut off after {len(content):,} bytes") from error
        raise Unreadable(f"is a damaged {format} file: {reason or type(error).__name__}") from error


def _orientation(image: Image.Image) -> int:
    """The orientation 1..8 of EXIF or XMP; 1 also if that is damaged: the pixels may be fine."""
    if image.format == "TIFF":
        return 1  # Pillow itself rotates these
    try:
        # The base class's method: that of PNG would decode the image to read chunks after it.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Any colour mode -> 8-bit "RGB" (3 channels) or "L" (1 channel)."""
    if image.mode.startswith("I"):  # 16 bit, in Pillow sometimes stored as 32 bit
        image = Image.fromarray(_to_byte(np.asarray(image), (65535,)))
    elif image.mode == "F":
        image = Image.fromarray(_to_byte(np.asarray(image), (1, 255, 65535)))
    elif image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert("RGB" if channels == 3 else "L")


def _to_byte(values: npt.NDArray[Any], tops: tuple[float, ...]) -> Pixels:
    """[H, W] -> uint8: 0..top becomes 0..255, where top is the smallest of `tops` in range.

    Values out of every range are scaled from lowest to highest; NaN and infinity become 0.
    """
    finite = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0)
    low, high = float(finite.min()), float(finite.max())
    fitting = [top for top in tops if low >= 0 and high <= top]
    if fitting:
        low, high = 0.0, fitting[0]
    finite = (finite - low) * (255 / max(high - low, 1e-30))
    return np.rint(finite).astype(np.uint8)


def _resample(
    pixels: Pixels, box: tuple[int, int, int, int], width: int, height: int, interpolation: str
) -> Pixels:
    """The box (left, top, width, height) of uint8 [H, W, C], resized.

    Near its edge, pixels outside the box contribute, as if the whole image were resized and then
    cropped.
    """
    left, top, box_width, box_height = box
    if interpolation in _PILLOW:
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        corners = (left, top, left + box_width, top + box_height)
        resized = np.array(image.resize((width, height), _PILLOW[interpolation], corners))
        return resized.reshape(height, width, pixels.shape[2])
    return _bilinear(
        pixels,
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
