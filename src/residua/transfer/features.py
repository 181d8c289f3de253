"""Decoded images -> rows of frozen features, each computed once in the life of the cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from residua.config.schema import Config
from residua.data.batches import DecodedImages, TrainingBatches
from residua.data.dataset import Pixels
from residua.data.random import Integers, shuffled
from residua.networks.staged import Staged
from residua.system.files import cache_folder
from residua.transfer.feature_cache import Floats, Store
from residua.transfer.feature_layers import Front, Tap

VERSION = 3  # to be raised when the same network would give other features
LEAST = 8  # images a class that are computed however little time there is
PIECE_SECONDS = 5.0  # at most about this much work is lost when the process is killed
PIECE_ROWS = 4096
PIXELS = 32 * 224 * 224  # in a batch: enough work to use the machine, little enough for its cache

Report = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Rows:
    """Features of those samples for which there was time. values: for each tap float32 [N, D].
    computed: rows that no earlier run had left. seconds: for those."""

    samples: Integers
    values: Mapping[Tap, Floats]
    computed: int
    seconds: float


class Frozen:
    """A frozen network over the decoded images uint8 [N, S, S, C] of one data set."""

    def __init__(
        self, network: Staged, weights_sha256: str, config: Config, pixels: Pixels, labels: Integers
    ) -> None:
        """weights_sha256: of the file that the network's weights come from."""
        self.network = network
        self.looked: dict[Tap, Any] = {}  # what cross-validation has said of a tap
        self._digests: dict[int, bytes] = {}
        self.front = Front(network, config.preprocessing, config.training.precision)
        self.images = DecodedImages(pixels, self.front.device)
        self.config, self.labels = config, labels
        spec = config.network_spec
        told = [spec.name, spec.channels, spec.ordering, spec.shortcut, spec.cardinality]
        how = (
            config.preprocessing.channel_order,
            config.preprocessing.mean,
            config.preprocessing.std,
        )
        device = self.front.device.type  # each rounds in its own way
        self.store = Store(
            cache_folder() / "features",
            repr((VERSION, weights_sha256, told, how, self.front.precision, device)),
        )
        side = config.preprocessing.size
        self.batch = int(min(512, max(8, PIXELS // side**2)))

    def taps(self) -> list[Tap]:
        """Where features are worth taking, see Front."""
        preprocessing = self.config.preprocessing
        return self.front.taps(preprocessing.size, preprocessing.channels)

    def rows(
        self,
        taps: Sequence[Tap],
        samples: Integers,
        *,
        view: int = 0,
        until: float | None = None,
        report: Report | None = None,
    ) -> Rows:
        """Features of `samples`, from the cache or computed and left there.

        view: 0 is the image as it is, others are augmented as epoch `view` - 1 of a training
        would. until: a time of time.monotonic() at which to stop; what is computed first is then a
        random choice, with LEAST of each class, or all, at its head. Raises ResiduaError if the
        cache cannot be written.
        """
        keys = self.keys(samples, view)
        widths = self.front.widths(taps, *self.images.pixels.shape[1:])
        values = {tap: np.zeros((len(samples), width), np.float32) for tap, width in widths.items()}
        known = self.store.read(keys, values)
        order = np.flatnonzero(~known)
        least = 0
        if until is not None:
            order = shuffled(0, 0, order)
            there = np.flatnonzero(known)  # counts too
            ranks = _rank(self.labels[samples[np.concatenate([there, order])]])
            first = ranks[len(there) :] < LEAST
            order, least = np.concatenate([order[first], order[~first]]), int(first.sum())
        began = kept = time.monotonic()
        done = written = 0
        while done < len(order) and (until is None or done < least or time.monotonic() < until):
            places = order[done : done + self.batch]
            found = self.front.features(self._images(samples[places], view), taps)
            for tap, rows in found.items():
                values[tap][places] = rows.numpy()
            known[places] = True
            done += len(places)
            if time.monotonic() - kept > PIECE_SECONDS or done - written >= PIECE_ROWS:
                self._keep(keys, order[written:done], values)
                written, kept = done, time.monotonic()
            if report:
                report(int(known.sum()), len(samples))
        self._keep(keys, order[written:done], values)
        known_values = values if known.all() else {tap: each[known] for tap, each in values.items()}
        return Rows(samples[known], known_values, done, time.monotonic() - began)

    def maps(self, samples: Integers, stages: int, view: int = 0) -> torch.Tensor:
        """[N, C, h, w] after so many stages, in the front's precision, on its device."""
        found: torch.Tensor | None = None
        for start in range(0, len(samples), self.batch):
            part = self.front.map(self._images(samples[start : start + self.batch], view), stages)
            if found is None:
                found = torch.empty(
                    (len(samples), *part.shape[1:]),
                    dtype=part.dtype,
                    device=part.device,
                    memory_format=torch.channels_last,
                )
            found[start : start + len(part)] = part
        assert found is not None
        return found

    def _keep(self, keys: Sequence[bytes], places: Integers, values: Mapping[Tap, Floats]) -> None:
        if len(places):
            rows = {tap: each[places] for tap, each in values.items()}
            self.store.write([keys[place] for place in places], rows)

    def _images(self, samples: Integers, view: int) -> torch.Tensor:
        if view == 0:
            return self.front.plain(self.images.take(samples))
        return self._augmented.images(view - 1, samples)

    @cached_property
    def _augmented(self) -> TrainingBatches:
        config = self.config
        return TrainingBatches(
            self.images,
            self.labels,
            np.arange(len(self.labels)),
            classes=config.network.classes,
            batch=self.batch,
            seed=config.training.seed,
            preprocessing=config.preprocessing,
            augmentation=config.augmentation,
        )

    def keys(self, samples: Integers, view: int = 0) -> list[bytes]:
        """SHA-256 of what enters the network for each sample: equal only where the pixels are."""
        keys = [self._digest(int(at)) for at in samples]
        if view == 0:
            return keys
        how = repr((asdict(self.config.augmentation), self.config.training.seed, view))
        return [
            hashlib.sha256(key + f"{how} {at}".encode()).digest()
            for key, at in zip(keys, samples, strict=True)
        ]

    def _digest(self, sample: int) -> bytes:
        if sample not in self._digests:
            pixels = np.ascontiguousarray(self.images.pixels[sample])
            self._digests[sample] = hashlib.sha256(pixels.data).digest()
        return self._digests[sample]


def _rank(labels: Integers) -> Integers:
    """How many of the same label stand before each, int64 [N]."""
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.repeat(starts, np.diff([*starts, len(labels)]))
    return ranks
