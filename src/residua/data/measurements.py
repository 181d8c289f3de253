"""A decoded image and its file -> exposure, sharpness, border, camera and so on, for audits."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any, NamedTuple

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


class Sample(NamedTuple):
    """A few kilobytes of an image, which `measure` reads.

    metadata: see `_metadata`. counts: how often each value occurs in R, G, B, grey and the border,
    int64 [5, 256]. grey: uint8 [H, W], at most 128 x 128 px.
    """

    header: Header
    metadata: tuple[float, int, str, int]
    counts: npt.NDArray[np.int64]
    grey: Pixels


def sample(header: Header, content: bytes, pixels: Pixels) -> Sample:
    """content: of the file. pixels: decoded, uint8 [H, W, C], C 1 or 3."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    factor = min(image.size) // _SIDE
    if factor > 1:
        image = image.reduce(factor)
    shades = image.convert("L")
    grey = np.asarray(shades)
    edge = max(1, min(grey.shape) // 50)
    sides = grey[:edge], grey[-edge:], grey[:, :edge], grey[:, -edge:]
    border = np.bincount(np.concatenate([side.ravel() for side in sides]), minlength=len(_VALUES))
    channels = image.histogram() * (3 // pixels.shape[2])  # a grey value counts as R, G and B
    counts = np.array([*channels, *shades.histogram(), *border.tolist()]).reshape(5, len(_VALUES))
    size = (min(_SIDE, shades.width), min(_SIDE, shades.height))
    if size != shades.size:
        grey = np.asarray(shades.resize(size, Image.Resampling.BOX))
    return Sample(header, _metadata(header.format, content), counts, grey)


def measure(samples: Sequence[Sample]) -> list[Measured]:
    """Many at once, because threads wait for one another at every call of NumPy."""
    if not samples:
        return []
    statistics = iter(_statistics(np.concatenate([sample.counts for sample in samples])))
    sharpness = iter(_sharpness([sample.grey for sample in samples]))

    def measured(sample: Sample) -> Measured:
        *channels, (brightness, contrast, _), (edge_mean, edge_spread, _) = islice(statistics, 5)
        return Measured(
            sample.header,
            *sample.metadata,
            brightness=round(brightness, 3),
            contrast=round(contrast, 3),
            sharpness=round(next(sharpness) / max(contrast, 1.0), 4),
            colour=tuple(round(mean, 3) for mean, _, _ in channels),
            white=tuple(float(largest) for _, _, largest in channels),
            border=(round(edge_mean, 3), round(edge_spread, 3)),
        )

    return [measured(sample) for sample in samples]


def _statistics(counts: npt.NDArray[np.int64]) -> list[tuple[float, float, int]]:
    """Mean, standard deviation and largest of the values 0..255, from how often each occurs, int64
    [rows, 256]."""
    largest = len(_VALUES) - 1 - (counts[:, ::-1] > 0).argmax(axis=1)
    rows = []
    for (number, total, squares), last in zip(
        (counts @ _POWERS).tolist(), largest.tolist(), strict=True
    ):
        variance = (squares - total**2 / number) / number
        rows.append((total / number, max(0.0, variance) ** 0.5, last))
    return rows


def _sharpness(images: Sequence[Pixels]) -> list[float]:
    """Standard deviations of the Laplacians of grey images, uint8 [H, W]; 0 below 3 x 3 px."""
    sharpness = [0.0] * len(images)
    for shape in {image.shape for image in images if min(image.shape) >= 3}:
        positions = [position for position, image in enumerate(images) if image.shape == shape]
        grey = np.stack([images[position] for position in positions]).astype(np.int16)
        edges = 4 * grey[:, 1:-1, 1:-1]
        for around in (
            grey[:, :-2, 1:-1],
            grey[:, 2:, 1:-1],
            grey[:, 1:-1, :-2],
            grey[:, 1:-1, 2:],
        ):
            edges -= around
        values = edges.reshape(len(positions), -1).astype(np.float64)
        variances = np.square(values).mean(axis=1) - values.mean(axis=1) ** 2  # exact: of integers
        deviations = np.sqrt(np.maximum(0.0, variances - _ROUNDING))
        for position, deviation in zip(positions, deviations.tolist(), strict=True):
            sharpness[position] = deviation
    return sharpness


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
