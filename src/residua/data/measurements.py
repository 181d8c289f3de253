"""A decoded image and its file -> exposure, sharpness, border, camera and so on, for audits."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from residua.data.dataset import Header, Pixels

_SIDE = 128  # px: the shorter side is reduced to at least this many before it is measured
_VALUES = np.arange(256)
_POWERS = np.stack([_VALUES**power for power in range(3)], axis=1)
_ROUNDING = 20 / 12  # variance of the Laplacian of values that were rounded to integers
_ANIMATED = ("GIF", "WEBP")
_WITH_METADATA = ("JPEG", "TIFF", "WEBP", "PNG", "GIF")


@dataclass(frozen=True)
class Measured:
    """The measurements of one image.

    quantisation: mean of the first (luminance) quantisation table of a JPEG file, the larger the
    stronger the compression; 0 in other formats. orientation: of EXIF, 1..8. camera: make and model
    of EXIF, or "". frames: of an animation. brightness, contrast: mean and standard deviation of
    the grey values, 0..255, at about 128 px. sharpness: standard deviation of the Laplacian at
    128 px, divided by the contrast. colour, white: mean and largest R, G, B. border: mean and
    standard deviation of the outer 2 % of the image, 0..255.
    """

    header: Header
    quantisation: float
    orientation: int
    camera: str
    frames: int
    brightness: float
    contrast: float
    sharpness: float
    colour: tuple[float, ...]
    white: tuple[float, ...]
    border: tuple[float, ...]

    def to_json(self) -> list[Any]:
        """All but the header."""
        return list(dataclasses.astuple(self)[1:])

    @classmethod
    def from_json(cls, header: Header, row: Sequence[Any]) -> Measured:
        """With the header."""
        return cls(header, *row[:-3], *map(tuple, row[-3:]))  # the last three are tuples


def measure(header: Header, content: bytes, pixels: Pixels) -> Measured:
    """Measure an image. content: of its file. pixels: decoded, uint8 [H, W, C], C 1 or 3."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    factor = min(image.size) // _SIDE
    if factor > 1:
        image = image.reduce(factor)
    each = 3 // pixels.shape[2]  # a grey value counts as R, G and B
    channels = _statistics(_histograms(image)) * each
    shades = image.convert("L")
    grey = np.asarray(shades)
    edge = max(1, min(grey.shape) // 50)
    sides = grey[:edge], grey[-edge:], grey[:, :edge], grey[:, -edge:]
    border = np.bincount(np.concatenate([side.ravel() for side in sides]), minlength=len(_VALUES))
    (brightness, contrast, _), (edge_mean, edge_spread, _) = _statistics(
        np.stack([_histograms(shades)[0], border])
    )
    return Measured(
        header,
        *_metadata(header.format, content),
        brightness=round(brightness, 3),
        contrast=round(contrast, 3),
        sharpness=round(_sharpness(shades) / max(contrast, 1.0), 4),
        colour=tuple(round(mean, 3) for mean, _, _ in channels),
        white=tuple(float(largest) for _, _, largest in channels),
        border=(round(edge_mean, 3), round(edge_spread, 3)),
    )


def _histograms(image: Image.Image) -> npt.NDArray[np.int64]:
    """How often each channel has each value, int64 [C, 256]."""
    return np.array(image.histogram(), np.int64).reshape(-1, len(_VALUES))


def _statistics(counts: npt.NDArray[np.int64]) -> list[tuple[float, float, int]]:
    """Mean, standard deviation and largest of the values 0..255, from how often each occurs, int64
    [C, 256]."""
    found = []
    for row, (number, total, squares) in zip(counts, (counts @ _POWERS).tolist(), strict=True):
        variance = (squares - total**2 / number) / number
        found.append((total / number, max(0.0, variance) ** 0.5, int(row.nonzero()[0][-1])))
    return found


def _sharpness(image: Image.Image) -> float:
    """Standard deviation of the Laplacian of a grey image, at most 128 px wide and high."""
    size = (min(_SIDE, image.width), min(_SIDE, image.height))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BOX)
    grey = np.asarray(image).astype(np.int16)
    if min(grey.shape) < 3:
        return 0.0
    edges = 4 * grey[1:-1, 1:-1]
    for around in (grey[:-2, 1:-1], grey[2:, 1:-1], grey[1:-1, :-2], grey[1:-1, 2:]):
        edges -= around
    values = edges.ravel().astype(np.float64)
    variance = float(values @ values) / len(values) - float(values.mean()) ** 2
    return float(max(0.0, variance - _ROUNDING) ** 0.5)


def _metadata(format: str, content: bytes) -> tuple[float, int, str, int]:
    """Quantisation, orientation, camera and frames, see Measured; 0, 1, "" and 1 without any."""
    quantisation, orientation, camera, frames = 0.0, 1, "", 1
    if format not in _WITH_METADATA:
        return quantisation, orientation, camera, frames
    with contextlib.suppress(Exception), Image.open(io.BytesIO(content)) as image:
        if tables := getattr(image, "quantization", None):
            quantisation = round(fmean(next(iter(tables.values()))), 3)
        if format in _ANIMATED:
            frames = int(getattr(image, "n_frames", 1))
        # The base class's method: that of PNG would decode the image to read chunks after it.
        exif = Image.Image.getexif(image)
        number = exif.get(ExifTags.Base.Orientation, 1)
        orientation = int(number) if number in range(1, 9) else 1
        names = (exif.get(tag) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
        camera = " ".join(str(name).strip() for name in names if name)
    return quantisation, orientation, camera, frames
