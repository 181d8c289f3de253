"""Bytes of an image file -> its header; or its upright uint8 pixels, resized to a square.

Every problem is an `Unreadable` whose message says what was found: no exception and no warning of
Pillow leaves this file. Colour profiles are not applied, as in TensorFlow and torchvision.
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

# What Pillow would print about odd files is either harmless or becomes an Unreadable. Set once, for
# the process, because warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(OSError, AttributeError):  # libtiff prints by itself; not every build lets us ask
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

_START = 64  # bytes of a file that tell its kind
_MAX_BYTES = 2**30  # of a file; 100 megapixels of the widest kind, RGBA of 16 bit, are 0.8e9

# Raster formats that Pillow decodes by itself, without running other programs; by first bytes.
_KINDS = {
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
# Extensions by which a file says that it is an image, also of kinds that are not read here.
_CLAIM = re.compile(
    r"\.(jpe?g|jpe|jfif|a?png|gif|bmp|dib|tiff?|webp|p[pgbnf]m|jp2|j2k|jpx|avif|hei[cf]|"
    r"ico|svg|psd|eps|raw|cr[23w]|nef|nrw|arw|dng|raf|orf|rw2|pef|srw|x3f|jxl|tga)",
    re.IGNORECASE,
)
_FOREIGN = {
    "a HEIC photo, which cannot be read here: convert it to JPEG": rb".{4}ftyp(hei|hev|mif1|msf1)",
    "a camera's raw file: export it as JPEG": rb".{4}ftypcrx|FUJIFILMCCD-RAW|II(RO|RS|U\0)",
    "a JPEG XL image, which cannot be read here: convert it to JPEG": rb"\xff\n|\0{3}\x0cJXL ",
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

# Orientation of EXIF -> (swap rows and columns first, then mirror the rows, mirror the columns).
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
    """Whether a file's name promises an image."""
    return _CLAIM.fullmatch(path.suffix) is not None


def objection(path: Path) -> str | None:
    """Why a file is no image, by its kind and first bytes alone; None if it looks like one."""
    try:
        if not path.is_file():  # a pipe would wait for ever, a device might never end
            path.stat()
            return "is a folder, not an image" if path.is_dir() else "is no regular file"
        with path.open("rb") as file:
            start = file.read(_START)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return objection_to(start)


def objection_to(content: bytes) -> str | None:
    """Why bytes that begin like these are no image; None if they look like one."""
    start = content[:_START]
    if not start or _kind(start):
        return None if start else "is empty"
    for words, sign in _FOREIGN.items():
        if re.match(sign, start, re.DOTALL):
            return f"is {words}"
    first_word = (start.split(maxsplit=1) or [b" "])[0][:16]
    return f"is no image: starts with {repr(first_word)[1:]}"


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most 1 GiB. Raises Unreadable."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise Unreadable(objection(path) or f"is larger than {_MAX_BYTES:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def header(content: bytes, max_pixels: int) -> Header:
    """What an image says of itself, upright, without decoding it.

    Raises Unreadable for anything that is no image, is damaged in its header or has more than
    `max_pixels` pixels.
    """
    kind, image = _open(content, max_pixels)
    with _translated(kind, content):
        width, height = image.size
        swapped = _ORIENTATIONS.get(_orientation(image), (False,))[0]
    if swapped:
        width, height = height, width
    return Header(width, height, format=kind, mode=image.mode)


def decode(content: bytes, channels: int, max_pixels: int) -> Pixels:
    """The first frame, upright, as uint8 [H, W, channels], 0..255; channels 3 is RGB, 1 is grey.

    Grey is Pillow's (299 R + 587 G + 114 B) / 1000, transparency lies on white. Raises Unreadable.
    """
    kind, image = _open(content, max_pixels)
    with _translated(kind, content):
        image.load()
        swap, mirror_rows, mirror_columns = _ORIENTATIONS.get(_orientation(image), (False,) * 3)
        pixels = np.asarray(_plain(image, channels))
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    if swap:
        pixels = pixels.swapaxes(0, 1)
    pixels = pixels[:: -1 if mirror_rows else 1, :: -1 if mirror_columns else 1]
    return np.ascontiguousarray(pixels)


def read_image(path: Path, preprocessing: Preprocessing, max_pixels: int) -> Pixels:
    """A file as the network's uint8 [size, size, channels] in RGB order. Raises Unreadable."""
    content = read_file(path)
    return fit(decode(content, preprocessing.channels, max_pixels), preprocessing)


def fit(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """uint8 [H, W, C] -> uint8 [size, size, C] by the rules `resize` and `interpolation`.

    Memory stays near that of the result, however long and thin the image; one that has the right
    size already is returned untouched.
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


def _kind(start: bytes) -> str | None:
    """The format, such as "JPEG", that the first bytes announce; None if no image."""
    return next((name for name, sign in _KINDS.items() if re.match(sign, start, re.DOTALL)), None)


def _open(content: bytes, max_pixels: int) -> tuple[str, ImageFile.ImageFile]:
    """Format and opened, undecoded image. Raises Unreadable, above `max_pixels` too."""
    kind = _kind(content[:_START])
    if kind is None:
        raise Unreadable(objection_to(content))
    Image.init()
    if kind not in Image.OPEN:
        raise Unreadable(f"is a {kind} file, which this installation of Pillow cannot read")
    # Not Image.open: its own pixel limit is fixed, warns, and hides the size it found.
    with _translated(kind, content):
        image: Any = Image.OPEN[kind][0](BytesIO(content), "")
        width, height = image.size
        if width * height > max_pixels:
            raise Unreadable(f"{width} x {height} pixels are more than the limit of {max_pixels:,}")
    return kind, image


@contextmanager
def _translated(kind: str, content: bytes) -> Iterator[None]:
    """Turns whatever Pillow raises on damaged files (nearly anything) into Unreadable."""
    try:
        yield
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("needs more memory than there is") from error
    except Exception as error:
        said = " ".join(str(error).split())[:120]
        if isinstance(error, EOFError) or "truncated" in said.lower():
            raise Unreadable(f"is cut off after {len(content):,} bytes") from error
        raise Unreadable(f"is a damaged {kind} file: {said or type(error).__name__}") from error


def _orientation(image: ImageFile.ImageFile) -> int:
    """The orientation 1..8 of EXIF or XMP; 1 also where that is damaged: the pixels may be fine."""
    if image.format == "TIFF":
        return 1  # Pillow itself turns these, in size and pixels
    try:
        # The base class's method: that of PNG would decode the image to look behind the pixels.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Any colour mode -> "RGB" (3 channels) or "L" (1 channel) of 8 bit."""
    if image.mode.startswith("I"):  # Pillow's container of 16 bit, sometimes 32 bits wide
        image = Image.fromarray(_to_byte(np.asarray(image), (65535,)))
    elif image.mode == "F":
        image = Image.fromarray(_to_byte(np.asarray(image), (1, 255, 65535)))
    elif image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert("RGB" if channels == 3 else "L")


def _to_byte(values: npt.NDArray[Any], tops: tuple[float, ...]) -> Pixels:
    """Numbers [H, W] -> uint8: 0..top becomes 0..255, top the smallest of `tops` that holds them.

    Values that no top holds are stretched from lowest to highest; what is not finite becomes 0.
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
    """The box (left, top, width, height) of uint8 [H, W, C] at another size.

    Samples near the box's edge may use pixels outside it, as when the whole image is resized and
    then cropped.
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
    """uint8 [H, W, C] read at real coordinates (pixel centres are whole numbers, edges repeat)."""
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
