"""DATA -> what the audit measures of each image, and its features; the only place that reads them.

Legend: N readable images, M <= N images with features, D features of an image.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from residua.config.recipes import compose
from residua.config.schema import IMAGENET, Data
from residua.config.validate import checked
from residua.data.alignment import Thumbnails
from residua.data.columns import Columns
from residua.data.dataset import Dataset, Header, Pixels, SplitName, Unreadable
from residua.data.grouping import group_names
from residua.data.near_duplicates import thumbnails_of
from residua.data.open import open_dataset
from residua.data.prepare import prepare
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.inference.feature_layers import FeatureLayer
from residua.runs.sources import initial_weights
from residua.system.console import Console
from residua.training.initial import initial_network
from residua.transfer.features import FeatureExtractor

Floats = npt.NDArray[np.float32]

BLURRED = 8  # px: side of the blurred colour thumbnail
_SHARPNESS_SIDE = 128  # px, to which larger images are reduced before sharpness is measured
_ROUNDING = 20 / 12  # variance of the Laplacian of values that were rounded to integers
_TASK = 16  # images per task of the thread pool
_ROLES = ("path", "label", "split")  # of columns of a table
_ANIMATED = ("GIF", "WEBP")
_WITH_EXIF = ("JPEG", "TIFF", "WEBP", "PNG")


@dataclass(frozen=True)
class Measured:
    """The measurements of one image.

    size: of its file, bytes. orientation: of EXIF, 1..8. camera: make and model of EXIF, or "".
    frames: of an animation. digest: of the decoded pixels. brightness, contrast: mean and standard
    deviation of the grey values, 0..255. sharpness: standard deviation of the Laplacian at 128 px,
    divided by the contrast. colour: mean R, G, B. border: mean and standard deviation of the outer
    2 % of the image, 0..255.
    """

    header: Header
    size: int
    orientation: int
    camera: str
    frames: int
    digest: bytes
    brightness: float
    contrast: float
    sharpness: float
    colour: tuple[float, float, float]
    border: tuple[float, float]


@dataclass(frozen=True, eq=False)
class AuditImages:
    """A data set as the audit needs it; rows are readable images.

    paths, labels (int64 [N]), splits: as the data set defines them. sha256: of each file.
    thumbnails: uint8 [N, 64, 64], grey. blurred: uint8 [N, 8, 8, 3].
    features: float32 [M, D] of the images `featured`, int64 [M]; M is 0 without features.
    group_names: what images must share a split by, "" for none; of --group-by.
    unreadable: (path, reason). warnings: of the data set.
    """

    dataset: Dataset
    rows: Integers
    measured: Sequence[Measured]
    thumbnails: Thumbnails
    blurred: npt.NDArray[np.uint8]
    features: Floats
    featured: Integers
    group_names: Sequence[str]
    unreadable: tuple[tuple[str, str], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.dataset.classes

    @cached_property
    def paths(self) -> list[str]:
        """Of the readable images."""
        return [self.dataset.entries[row].path for row in self.rows]

    @cached_property
    def labels(self) -> Integers:
        """Class indices, int64 [N]."""
        return np.array([self.dataset.entries[row].label for row in self.rows], np.int64)

    @cached_property
    def splits(self) -> list[SplitName | None]:
        """As the data set defines them."""
        return [self.dataset.entries[row].split for row in self.rows]

    def pixels(self, row: int) -> Pixels:
        """One image, decoded again. Raises Unreadable."""
        index = int(self.rows[row])
        content = self.dataset.content(index)
        return self.dataset.pixels(index, content, 3, Data.max_pixels)


def read(data: Data, seconds: float, console: Console) -> AuditImages:
    """Measure every image once, and compute the features of as many as `seconds` allow.

    data: path, groups and columns of a table. seconds: for features that are not cached yet; 0: no
    features. Raises ResiduaError if there is no image.
    """
    dataset = open_dataset(data.path, columns=Columns.of(data))
    with console.bar("reading") as move:
        outcomes = _measure_all(dataset, move)
    rows = np.flatnonzero([isinstance(outcome, tuple) for outcome in outcomes])
    read_rows: list[Any] = [outcomes[row] for row in rows]
    failures = [
        (dataset.entries[row].path, outcome)
        for row, outcome in enumerate(outcomes)
        if isinstance(outcome, str)
    ]
    if not len(rows):
        raise ResiduaError(f"{data.path}: none of its {len(outcomes):,} images can be read.")
    images = AuditImages(
        dataset=dataset,
        rows=rows.astype(np.int64),
        measured=[measured for measured, _, _ in read_rows],
        thumbnails=np.stack([thumbnail for _, thumbnail, _ in read_rows]),
        blurred=np.stack([blurred for _, _, blurred in read_rows]),
        features=np.zeros((0, 1), np.float32),
        featured=np.zeros(0, np.int64),
        group_names=group_names(data.group_by, [dataset.entries[row] for row in rows.tolist()]),
        unreadable=(*dataset.rejected, *failures),
    )
    if seconds <= 0 or len(np.unique(images.labels)) < 2:
        return images
    try:
        features, entries = _features(data, seconds, console)
    except ResiduaError as error:
        console.warn(f"no features, so labels are not checked: {error}")
        return images
    position = {int(entry): n for n, entry in enumerate(images.rows)}
    kept = [n for n, entry in enumerate(entries.tolist()) if entry in position]
    featured = np.array([position[int(entries[n])] for n in kept], np.int64)
    order = np.argsort(featured)
    return dataclasses.replace(images, features=features[kept][order], featured=featured[order])


def _features(data: Data, seconds: float, console: Console) -> tuple[Floats, Integers]:
    """Features [M, D] of the default pretrained network, and the entries that they are of."""
    settings = {"network.weights": IMAGENET, "transfer.strategy": "features"}
    settings |= {"data.duplicates": "exact"}  # the audit searches copies itself
    quiet = Console(quiet=True)
    chosen = {f"data.{role}_column": getattr(data, f"{role}_column") for role in _ROLES}
    config = checked(compose(data.path, None, {**settings, **chosen}))
    weights = initial_weights(config, quiet)
    assert weights is not None
    prepared = prepare(config, quiet, weights.expects)
    network = initial_network(prepared.config, weights, prepared.device)
    extractor = FeatureExtractor(network, prepared, weights.sha256())
    layer = FeatureLayer(extractor.stages.count, 1)
    with console.bar("features") as move:
        rows = extractor.rows(
            [layer], prepared.readable, deadline=time.monotonic() + seconds, report=move
        )
    return rows.values[layer], rows.samples


def _measure_all(dataset: Dataset, report: Any) -> list[Any]:
    """(Measured, thumbnail, blurred) of each entry, or why it cannot be read."""
    count = len(dataset.entries)
    tasks = [range(start, min(start + _TASK, count)) for start in range(0, count, _TASK)]
    results: list[Any] = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for chunk in pool.map(lambda task: [_measure(dataset, index) for index in task], tasks):
            results += chunk
            report(len(results), count)
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _measure(dataset: Dataset, index: int) -> Any:
    try:
        content = dataset.content(index)
        header = dataset.header(index, content, Data.max_pixels)
        pixels = dataset.pixels(index, content, 3, Data.max_pixels)
    except Unreadable as error:
        return str(error)
    orientation, camera, frames = _metadata(header.format, content)
    grey = pixels.mean(axis=2, dtype=np.float32)
    height, width = grey.shape
    edge = max(1, min(height, width) // 50)
    border = np.concatenate(
        [grey[:edge].ravel(), grey[-edge:].ravel(), grey[:, :edge].ravel(), grey[:, -edge:].ravel()]
    )
    contrast = float(grey.std())
    measured = Measured(
        header=header,
        size=len(content),
        orientation=orientation,
        camera=camera,
        frames=frames,
        digest=hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes()).digest()[:16],
        brightness=float(grey.mean()),
        contrast=contrast,
        sharpness=_sharpness(pixels) / max(contrast, 1.0),
        colour=tuple(pixels.mean(axis=(0, 1)).tolist()),
        border=(float(border.mean()), float(border.std())),
    )
    blurred = Image.fromarray(pixels).resize((BLURRED, BLURRED), Image.Resampling.BOX)
    return measured, thumbnails_of(pixels[None])[0], np.asarray(blurred)


def _sharpness(pixels: Pixels) -> float:
    """Standard deviation of the Laplacian of the grey image, at most 128 px wide and high."""
    image = Image.fromarray(pixels).convert("L")
    size = (min(_SHARPNESS_SIDE, image.width), min(_SHARPNESS_SIDE, image.height))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BOX)
    grey = np.asarray(image, np.float32)
    if min(grey.shape) < 3:
        return 0.0
    centre = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    variance = float((4 * centre - around).var())
    return float(max(0.0, variance - _ROUNDING) ** 0.5)


def _metadata(format: str, content: bytes) -> tuple[int, str, int]:
    """EXIF orientation, camera and frames of a file; 1, "" and 1 where there is none."""
    orientation, camera, frames = 1, "", 1
    if format not in _WITH_EXIF and format not in _ANIMATED:
        return orientation, camera, frames
    with contextlib.suppress(Exception), Image.open(io.BytesIO(content)) as image:
        if format in _ANIMATED:
            frames = int(getattr(image, "n_frames", 1))
        # The base class's method: that of PNG would decode the image to read chunks after it.
        exif = Image.Image.getexif(image)
        number = exif.get(ExifTags.Base.Orientation, 1)
        orientation = int(number) if number in range(1, 9) else 1
        names = (exif.get(tag) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
        camera = " ".join(str(name).strip() for name in names if name)
    return orientation, camera, frames


def file_suffix(path: str) -> str:
    """The suffix in lower case, without the dot."""
    return Path(path).suffix.lower().lstrip(".")
