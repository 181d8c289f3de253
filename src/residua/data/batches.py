"""Decoded images and labels -> training batches, as a pure function of (seed, epoch, step).

A resumed run can therefore start at any step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from residua.config.schema import Augmentation, Preprocessing
from residua.data.augmentation import changes_nothing, draw, draw_mixing, mix, normalise, transform
from residua.data.dataset import Pixels
from residua.data.random import Integers, shuffled

SampleWeights = npt.NDArray[np.float64]  # [N], of images in training

DEVICE_SHARE = 0.25  # of a GPU's free memory that decoded images may use


class DecodedImages:
    """Decoded images, uint8 [N, S, S, C], in the GPU's memory if they fit."""

    def __init__(self, pixels: Pixels, device: torch.device) -> None:
        self.pixels, self.device = pixels, device
        self.resident: Tensor | None = None
        if (
            device.type == "cuda"
            and pixels.nbytes < DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
        ):
            self.resident = torch.from_numpy(np.array(pixels)).to(device)

    def take(self, samples: Integers) -> Tensor:
        """[B] sample indices -> uint8 [B, S, S, C] on the device."""
        if self.resident is not None:
            return self.resident[torch.from_numpy(samples).to(self.device)]
        batch = torch.from_numpy(self.pixels[samples])
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class Batch:
    """images: float32 [B, C, S, S], channels_last. targets: int64 [B], or float32 [B, K] for mixed
    images. labels: int64 [B], of a mixed image that of the larger share. samples: int64 [B], sample
    indices. weights: float32 [B], factors of the losses; None: all 1."""

    images: Tensor
    targets: Tensor
    labels: Tensor
    samples: Integers
    weights: Tensor | None = None


class Inputs(Protocol):
    """The training set, in batches; `batch` and `plain` may be called in any order.

    labels: int64 [N], of all samples. members: sample indices of the training set. steps: per
    epoch. stages: frozen stages of the network whose output the inputs are; 0: they are images.
    """

    labels: Integers
    members: Integers
    steps: int
    stages: int

    @property
    def device(self) -> torch.device:
        """Device of the batches."""

    def batch(self, epoch: int, step: int) -> Batch:
        """The batch of a step, 0 <= step < steps; a pure function of (epoch, step)."""

    def plain(self, samples: Integers) -> Tensor:
        """[B] sample indices -> inputs without augmentation, for evaluation."""


def in_step(order: Integers, step: int, steps: int) -> Integers:
    """The members of a step. Batches differ in size by at most one: a small last batch would have
    poor BatchNorm statistics."""
    count = len(order)
    return order[step * count // steps : (step + 1) * count // steps]


def weights_of(
    weights: SampleWeights | None, samples: Integers, device: torch.device
) -> Tensor | None:
    """The weights of some samples, float32 [B]; None: all 1."""
    if weights is None:
        return None
    return torch.from_numpy(weights[samples].astype(np.float32)).to(device)


class TrainingBatches:
    """The training set with augmentation; implements `Inputs`."""

    stages = 0

    def __init__(
        self,
        decoded: DecodedImages,
        labels: Integers,
        members: Integers,
        *,
        classes: int,
        batch_size: int,
        seed: int,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        weights: SampleWeights | None = None,
    ) -> None:
        """labels: int64 [N], weights: float64 [N], of all images; None: all 1. members: sample
        indices of the training set."""
        self.decoded, self.labels, self.members = decoded, labels, members
        self.classes, self.seed, self.weights = classes, seed, weights
        self.preprocessing, self.augmentation = preprocessing, augmentation
        self.unchanged = changes_nothing(augmentation)
        self.steps = -(-len(members) // batch_size)
        self._order = lru_cache(maxsize=1)(lambda epoch: shuffled(seed, epoch, members))

    def samples(self, epoch: int, step: int) -> Integers:
        """Sample indices of a step; see `in_step`."""
        return in_step(self._order(epoch), step, self.steps)

    def batch(self, epoch: int, step: int) -> Batch:
        """The batch of a step, 0 <= step < steps."""
        samples = self.samples(epoch, step)
        labels = self._labels(samples)
        images = self.images(epoch, samples)
        size = self.preprocessing.size
        mixing = draw_mixing(self.augmentation, size, self.seed, epoch, samples, self.members)
        weights = weights_of(self.weights, samples, self.device)
        if mixing is None:
            return Batch(images, labels, labels, samples, weights)
        images = mix(images, self.images(epoch, mixing.partner), mixing)
        share = torch.from_numpy(mixing.share).to(images.device, torch.float32).unsqueeze(1)
        targets = F.one_hot(labels, self.classes)
        others = self._labels(mixing.partner)
        targets = targets * share + F.one_hot(others, self.classes) * (1 - share)
        other = weights_of(self.weights, mixing.partner, self.device)
        if weights is not None and other is not None:
            weights = torch.lerp(other, weights, share[:, 0])
        labels = torch.where(share[:, 0] >= 0.5, labels, others)
        return Batch(images, targets, labels, samples, weights)

    @property
    def device(self) -> torch.device:
        """See Inputs."""
        return self.decoded.device

    def plain(self, samples: Integers) -> Tensor:
        """[B] -> float32 [B, C, S, S]: images as in validation and prediction."""
        return normalise(self.decoded.take(samples), self.preprocessing)

    def images(self, epoch: int, samples: Integers) -> Tensor:
        """[B] -> float32 [B, C, S, S]: augmented images of this epoch, before mixing."""
        pixels = self.decoded.take(samples)
        if self.unchanged:
            return normalise(pixels, self.preprocessing)
        drawn = draw(self.augmentation, self.preprocessing.size, self.seed, epoch, samples)
        return transform(pixels, drawn, self.augmentation, self.preprocessing)

    def _labels(self, samples: Integers) -> Tensor:
        return torch.from_numpy(self.labels[samples]).to(self.decoded.device)


def measure_colours(pixels: Pixels, members: Integers) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, 0..255, in RGB order, over the members' pixels.

    Uses at most 2,000 evenly spread members; a constant channel gets a standard deviation of 1.
    """
    chosen = members[:: -(-len(members) // 2000)]
    count, total, squares = 0, 0.0, 0.0
    piece = max(1, 4_000_000 // pixels[0].size)  # images: 32 MB of float64
    for start in range(0, len(chosen), piece):
        x = pixels[chosen[start : start + piece]].astype(np.float64)
        count += x[..., 0].size
        total = total + x.sum((0, 1, 2))
        squares = squares + (x**2).sum((0, 1, 2))
    mean = np.asarray(total / count)
    std = np.sqrt(np.maximum(np.asarray(squares / count) - mean**2, 0))
    return mean.tolist(), np.where(std < 1e-3, 1.0, std).tolist()
