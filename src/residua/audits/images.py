"""DATA -> what the audit measures of each image, and its features; the only place that reads them.

Legend: N readable images, M <= N images with features, D features of an image.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.config.recipes import compose
from residua.config.schema import IMAGENET, Data
from residua.config.validate import checked
from residua.data.alignment import Thumbnails
from residua.data.cache import in_tasks
from residua.data.dataset import Dataset, Pixels, SplitName, Unreadable
from residua.data.grouping import group_names
from residua.data.image import digest
from residua.data.measurements import Measured, Sample, measure, sample
from residua.data.near_duplicates import thumbnails_of
from residua.data.neighbours import reduced
from residua.data.open import open_dataset
from residua.data.prepare import prepare
from residua.data.prepared import Prepared
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureExtractor
from residua.runs.sources import initial_weights
from residua.system.console import Console
from residua.training.initial import initial_network

Floats = npt.NDArray[np.float32]

BLURRED = 8  # px: side of the blurred colour thumbnail
DIMENSIONS = 256  # main axes of features
_ROLES = ("path", "label", "split")  # of columns of a table


@dataclass(frozen=True, eq=False)
class AuditImages:
    """A data set as the audit needs it; rows are readable images.

    paths, labels (int64 [N]), splits: as the data set defines them. measured: empty if files are
    not checked. digests: of the decoded pixels. thumbnails: uint8 [N, 64, 64], grey; empty if
    copies are known. blurred: uint8 [N, 8, 8, C].
    features: float32 [M, D <= 256] of the images `featured`, int64 [M], on their main axes, of unit
    length; M is 0 without features.
    group_names: what images must share a split by, "" for none; of --group-by.
    unreadable: (path, reason). warnings: of the data set.
    """

    dataset: Dataset
    rows: Integers
    measured: Sequence[Measured]
    digests: Sequence[str]
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
    dataset = open_dataset(data.path, settings=data)
    with console.bar("reading") as move:
        outcomes = in_tasks(lambda task: _measured(dataset, task), len(dataset.entries), move)
    rows = np.flatnonzero([isinstance(outcome, _Image) for outcome in outcomes])
    read_images = [outcome for outcome in outcomes if isinstance(outcome, _Image)]
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
        measured=[image.measured for image in read_images],
        digests=[image.digest for image in read_images],
        thumbnails=np.stack([image.thumbnail for image in read_images]),
        blurred=np.stack([image.blurred for image in read_images]),
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
    return dataclasses.replace(
        images, features=main_axes(features[kept][order]), featured=featured[order]
    )


def main_axes(features: Floats) -> Floats:
    """Features [M, D] as AuditImages has them."""
    return reduced(features, min(DIMENSIONS, features.shape[1])) if len(features) else features


def of_prepared(prepared: Prepared, samples: Integers, features: Floats) -> AuditImages:
    """The images of a training, without reading them again.

    samples, features: entries int64 [M] whose features float32 [M, D] are at hand.
    """
    rows = prepared.readable
    entries = [prepared.dataset.entries[row] for row in rows]
    measured = [row for row in prepared.measured if row is not None]
    return AuditImages(
        dataset=prepared.dataset,
        rows=rows,
        measured=measured,
        digests=[member.pixels for member in prepared.members],
        thumbnails=np.zeros((0, 64, 64), np.uint8),
        blurred=np.stack([_blurred(prepared.pixels[row]) for row in rows])
        if measured
        else np.zeros((0, BLURRED, BLURRED, 3), np.uint8),
        features=main_axes(features),
        featured=np.searchsorted(rows, samples),
        group_names=group_names(prepared.config.data.group_by, entries),
        unreadable=prepared.unreadable,
    )


def _features(data: Data, seconds: float, console: Console) -> tuple[Floats, Integers]:
    """Features [M, D] of the default pretrained network, and the entries that they are of."""
    settings = {"network.weights": IMAGENET, "transfer.strategy": "features"}
    settings |= {"data.duplicates": "exact"}  # the audit searches copies itself
    quiet = Console(quiet=True)
    chosen = {f"data.{role}_column": getattr(data, f"{role}_column") for role in _ROLES}
    config = checked(compose(data.path, None, {**settings, **chosen}))
    weights = initial_weights(config, quiet)
    assert weights is not None
    prepared = prepare(config, quiet, weights.expects, measured=False)
    network = initial_network(prepared.config, weights, prepared.device)
    extractor = FeatureExtractor(network, prepared, weights.sha256())
    layer = FeatureLayer(extractor.stages.count, 1)
    with console.bar("features") as move:
        rows = extractor.rows(
            [layer], prepared.readable, deadline=time.monotonic() + seconds, report=move
        )
    return rows.values[layer], rows.samples


class _Image(NamedTuple):
    measured: Measured
    digest: str
    thumbnail: Pixels  # grey
    blurred: Pixels


def _measured(dataset: Dataset, entries: range) -> list[_Image | str]:
    """Each image, or why it cannot be read."""

    def read(index: int) -> tuple[Sample, str, Pixels, Pixels] | str:
        try:
            content = dataset.content(index)
            header = dataset.header(index, content, Data.max_pixels)
            pixels = dataset.pixels(index, content, 3, Data.max_pixels)
        except Unreadable as error:
            return str(error)
        thumbnail = thumbnails_of(pixels[None])[0]
        return sample(header, content, pixels), digest(pixels), thumbnail, _blurred(pixels)

    outcomes = [read(index) for index in entries]
    measured = iter(measure([outcome[0] for outcome in outcomes if not isinstance(outcome, str)]))
    return [
        outcome if isinstance(outcome, str) else _Image(next(measured), *outcome[1:])
        for outcome in outcomes
    ]


def _blurred(pixels: Pixels) -> Pixels:
    """[H, W, C] -> [8, 8, C]."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    size = BLURRED, BLURRED
    small = np.asarray(image.resize(size, Image.Resampling.BOX, reducing_gap=1.0))  # much faster
    return small.reshape(BLURRED, BLURRED, -1)


def file_suffix(path: str) -> str:
    """The suffix in lower case, without the dot."""
    return Path(path).suffix.lower().lstrip(".")
