"""Decoded images -> their features in a frozen network, each computed once and cached."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch

from residua.config.schema import Config
from residua.data.batches import DecodedImages, TrainingBatches
from residua.data.prepared import Prepared
from residua.data.random import Integers, shuffled
from residua.inference.engine import Engine, TorchEngine, engine_for
from residua.inference.feature_cache import FeatureCache, Floats
from residua.inference.feature_layers import (
    FeatureLayer,
    FrozenStages,
    joined,
    joint_layer,
    parts_of,
)
from residua.networks.staged import Staged
from residua.system.console import Report
from residua.system.files import cache_folder

VERSION = 3  # to be raised when the same network would give other features
MIN_PER_CLASS = 8  # images of each class that are computed however little time there is
PIECE_SECONDS = 5.0  # about the most work that is lost when the process is killed
PIECE_ROWS = 4096
BATCH_PIXELS = 32 * 224 * 224  # enough work for the machine, and little enough for its caches


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features of the samples for which there was time.

    samples: int64 [N]. values: layer -> float32 [N, D].
    computed: rows that were not cached. seconds: for these.
    """

    samples: Integers
    values: Mapping[FeatureLayer, Floats]
    computed: int
    seconds: float


def positions(samples: Integers, subset: Integers) -> Integers:
    """Where each of `subset` is among the samples, int64 [N], in any order; all must be there."""
    order = np.argsort(samples)
    return np.asarray(order[np.searchsorted(samples, subset, sorter=order)])


class FeatureExtractor:
    """A frozen network over the decoded images uint8 [N, S, S, C] of one data set."""

    def __init__(
        self,
        network: Staged,
        prepared: Prepared,
        weights_sha256: str = "",
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """weights_sha256: of the file of the network's weights, part of the cache's key; "" where
        only `maps` is used, which is not cached. warn: see FeatureCache."""
        config = prepared.config
        self.network, self.config, self.labels = network, config, prepared.labels
        self.stages = FrozenStages(network, config.preprocessing, config.training.precision)
        self.images = DecodedImages(prepared.pixels, self.stages.device)
        self.weights_sha256, self.warn = weights_sha256, warn
        self.batch = int(min(512, max(8, BATCH_PIXELS // config.preprocessing.size**2)))
        self.refusal = ""  # why OpenVINO is not used, though it is installed
        self._digests: dict[int, bytes] = {}
        self._requested: dict[FeatureLayer, set[int]] = {}  # layers of one stage -> samples

    @cached_property
    def layers(self) -> list[FeatureLayer]:
        """The layers of one stage worth comparing, see FrozenStages."""
        preprocessing = self.config.preprocessing
        return self.stages.layers(preprocessing.size, preprocessing.channels)

    @property
    def candidates(self) -> list[FeatureLayer]:
        """The layers worth comparing: of one stage, and the later stages side by side."""
        joint = joint_layer(self.layers)
        return self.layers if joint is None else [*self.layers, joint]

    def rows(
        self,
        layers: Sequence[FeatureLayer],
        samples: Integers,
        *,
        view: int = 0,
        deadline: float | None = None,
        least: int = 0,
        report: Report | None = None,
    ) -> FeatureRows:
        """Features of `samples`, from the cache, or computed and cached.

        view: 0 is the image itself; view v is augmented as in epoch v - 1 of a training.
        deadline: time.monotonic() at which to stop; samples are then computed in random order,
        after MIN_PER_CLASS of each class. These, and `least` in all, are computed in any case.
        """
        keys = self.keys(samples, view)
        parts = parts_of(layers)
        if view == 0:
            for part in parts:
                self._requested.setdefault(part, set()).update(samples.tolist())
        values = self._empty(parts, len(samples))
        known = self.cache.read(keys, values)
        order, required = np.flatnonzero(~known), 0
        if deadline is not None:
            order, required = self._most_needed_first(samples, known)
            required = max(required, least - int(known.sum()))
        began = saved = time.monotonic()
        done = written = 0
        while done < len(order) and (
            deadline is None or done < required or time.monotonic() < deadline
        ):
            batch = order[done : done + self.batch]
            for part, features in self._features(samples[batch], view, parts).items():
                values[part][batch] = features
            known[batch] = True
            done += len(batch)
            if time.monotonic() - saved > PIECE_SECONDS or done - written >= PIECE_ROWS:
                self._write(keys, order[written:done], values)
                written, saved = done, time.monotonic()
            if report:
                report(int(known.sum()), len(samples))
        self._write(keys, order[written:done], values)
        if not known.all():
            values = {part: rows[known] for part, rows in values.items()}
        found = {layer: joined(values, layer) for layer in layers}
        return FeatureRows(samples[known], found, done, time.monotonic() - began)

    def cached(self, layer: FeatureLayer, samples: Integers) -> FeatureRows:
        """Features of those samples for which `rows` computed or read them, whatever earlier runs
        have cached."""
        parts = parts_of([layer])
        requested = set(samples.tolist()).intersection(
            *(self._requested.get(part, ()) for part in parts)
        )
        samples = samples[np.isin(samples, np.fromiter(requested, np.int64))]
        if not len(samples):
            return FeatureRows(samples, {layer: np.zeros((0, 1), np.float32)}, 0, 0.0)
        values = self._empty(parts, len(samples))
        known = self.cache.read(self.keys(samples), values)
        return FeatureRows(samples[known], {layer: joined(values, layer)[known]}, 0, 0.0)

    def _empty(self, parts: Sequence[FeatureLayer], rows: int) -> dict[FeatureLayer, Floats]:
        """Zeros float32 [rows, D] for layers of one stage."""
        dimensions = self.stages.dimensions(parts, *self.images.pixels.shape[1:])
        return {part: np.zeros((rows, width), np.float32) for part, width in dimensions.items()}

    def maps(self, samples: Integers, stages: int, view: int = 0) -> torch.Tensor:
        """[N, C, h, w] after the first `stages` stages, in the training's precision, on the
        device; N >= 1."""
        maps: torch.Tensor | None = None
        for start in range(0, len(samples), self.batch):
            images = self._images(samples[start : start + self.batch], view)
            batch = self.stages.map(images, stages)
            if maps is None:
                maps = torch.empty(
                    (len(samples), *batch.shape[1:]),
                    dtype=batch.dtype,
                    device=batch.device,
                    memory_format=torch.channels_last,
                )
            maps[start : start + len(batch)] = batch
        assert maps is not None
        return maps

    def keys(self, samples: Integers, view: int = 0) -> list[bytes]:
        """SHA-256 of what enters the network for each sample: equal only where the pixels are."""
        keys = [self._digest(int(sample)) for sample in samples]
        if view == 0:
            return keys
        drawn = repr((asdict(self.config.augmentation), self.config.training.seed, view))
        return [
            hashlib.sha256(key + f"{drawn} {sample}".encode()).digest()
            for key, sample in zip(keys, samples, strict=True)
        ]

    @cached_property
    def engine(self) -> Engine:
        """Runs the network on images without augmentation, for all of `layers`.

        OpenVINO's, if it is installed and agrees with PyTorch on the first images.
        """
        job = self.stages.job(self.layers, self.weights_sha256)
        engine, self.refusal = engine_for(job, self.images.pixels, len(self.labels))
        return engine

    def prepare_engine(self) -> None:
        """Build the engine, which may take seconds, before features are timed."""
        _ = self.engine

    @cached_property
    def cache(self) -> FeatureCache:
        """The cached features of this network, by this engine."""
        owner = _owner(self.config, self.weights_sha256, self.stages, self.engine)
        return FeatureCache(cache_folder() / "features", owner, self.warn)

    def _features(
        self, samples: Integers, view: int, layers: Sequence[FeatureLayer]
    ) -> dict[FeatureLayer, Floats]:
        known = self.layers
        on_cpu = self.stages.device.type == "cpu"  # a GPU has the images already
        if on_cpu and view == 0 and set(layers) <= set(known):
            outputs = self.engine.run(self.images.pixels[samples])
            return {layer: outputs[known.index(layer)] for layer in layers}
        features = self.stages.features(self._images(samples, view), layers)
        return {layer: tensor.numpy() for layer, tensor in features.items()}

    def _most_needed_first(
        self, samples: Integers, known: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> tuple[Integers, int]:
        """Indices of the unknown rows in the order to compute them, and how many are required."""
        order = shuffled(0, 0, np.flatnonzero(~known))
        cached = np.flatnonzero(known)  # these count among the first of each class
        ranks = _rank(self.labels[samples[np.concatenate([cached, order])]])
        first = ranks[len(cached) :] < MIN_PER_CLASS
        return np.concatenate([order[first], order[~first]]), int(first.sum())

    def _write(
        self, keys: Sequence[bytes], rows: Integers, values: Mapping[FeatureLayer, Floats]
    ) -> None:
        if len(rows):
            piece = {layer: features[rows] for layer, features in values.items()}
            self.cache.write([keys[row] for row in rows], piece)

    def _images(self, samples: Integers, view: int) -> torch.Tensor:
        if view == 0:
            return self.stages.normalised(self.images.take(samples))
        return self._augmented.images(view - 1, samples)

    @cached_property
    def _augmented(self) -> TrainingBatches:
        config = self.config
        return TrainingBatches(
            self.images,
            self.labels,
            np.arange(len(self.labels)),
            classes=config.network.classes,
            batch_size=self.batch,
            seed=config.training.seed,
            preprocessing=config.preprocessing,
            augmentation=config.augmentation,
        )

    def _digest(self, sample: int) -> bytes:
        if sample not in self._digests:
            pixels = np.ascontiguousarray(self.images.pixels[sample])
            self._digests[sample] = hashlib.sha256(pixels.data).digest()
        return self._digests[sample]


def _owner(config: Config, weights_sha256: str, stages: FrozenStages, engine: Engine) -> str:
    """Everything but the pixels that features depend on."""
    spec, preprocessing = config.network_spec, config.preprocessing
    network = [spec.name, spec.channels, spec.ordering, spec.shortcut, spec.cardinality]
    normalisation = (preprocessing.channel_order, preprocessing.mean, preprocessing.std)
    device = stages.device.type  # each one rounds differently
    owner = (VERSION, weights_sha256, network, normalisation, stages.precision, device)
    return repr(owner if isinstance(engine, TorchEngine) else (*owner, engine.name))


def _rank(labels: Integers) -> Integers:
    """The number of equal labels before each one, int64 [N]."""
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.repeat(starts, np.diff([*starts, len(labels)]))
    return ranks
