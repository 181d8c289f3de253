"""Weights and uint8 images -> logits or features in float32, by the fastest engine that agrees.

Legend: B batch, S side of the images, C channels, K classes, D features.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from residua.config.schema import Preprocessing
from residua.data.augmentation import normalise
from residua.data.dataset import Pixels
from residua.inference.engine import Engine, Floats, Job, TorchEngine, engine_for
from residua.inference.feature_layers import FeatureLayer, FrozenStages
from residua.networks.analysis.cost import costs_of, measure
from residua.networks.own import is_own
from residua.networks.staged import Staged, pooled
from residua.networks.surgery.folding import fold_norms_, folded
from residua.weights.exported import Loaded
from residua.weights.load import Weights
from residua.weights.network import build_network, check_usable

MAX_HEAD_FEATURES = 4096
_OUTPUTS = {False: "logits", True: "logits and features"}
NEAR = 1e-3  # of the largest logit: a smaller gap between the two best is decided by PyTorch


class Outputs:
    """Runs a job; the engine is chosen when the first images are there.

    images: that it will run on, as far as known.
    """

    def __init__(self, job: Job, images: int) -> None:
        self.job, self.images = job, images
        self.engine: Engine | None = None

    def run(self, pixels: Pixels) -> Floats:
        """uint8 [B, S, S, C] -> the job's first output, float32 [B, D]; B may be 0."""
        return self.run_all(pixels)[0]

    def run_all(self, pixels: Pixels) -> list[Floats]:
        """uint8 [B, S, S, C] -> each output of the job; B may be 0."""
        if not len(pixels):
            return [_no_rows()]
        if self.engine is None:
            self.engine, _ = engine_for(self.job, pixels, self.images)
        return self.engine.run(pixels)


class Classifier(Outputs):
    """Logits of weights, and the features that their head reads if the job has them; near ties are
    decided by PyTorch, whatever the engine."""

    def run_all(self, pixels: Pixels) -> list[Floats]:
        """uint8 [B, S, S, C] -> logits, float32 [B, K], and features [B, D]; B may be 0."""
        logits, *features = super().run_all(pixels)
        if self.engine is None or logits.shape[1] < 2 or isinstance(self.engine, TorchEngine):
            return [logits, *features]
        best = np.sort(logits, axis=1)
        near = best[:, -1] - best[:, -2] < NEAR * np.abs(logits).max(axis=1)
        if near.any():
            with torch.inference_mode():
                exact, *_ = self.job.plain()(torch.from_numpy(np.ascontiguousarray(pixels[near])))
            logits[near] = exact.numpy()
        return [logits, *features]


def classifier_of(
    weights: Weights, device: torch.device, images: int
) -> Callable[[Pixels], Floats]:
    """uint8 [B, S, S, C] -> logits, float32 [B, K]; B may be 0. Always float32, so that figures
    agree on every machine; an exported file runs in its own runtime.

    images: that will be classified, as far as known. Raises ResiduaError if the weights cannot
    classify images.
    """
    if (exported := weights.exported) is not None:
        return lambda pixels: exported.run(pixels)[0] if len(pixels) else _no_rows()
    return Classifier(_logits_job(weights, device, features=False), images).run


def featured_classifier(
    weights: Weights, device: torch.device, images: int
) -> Callable[[Pixels], tuple[Floats, Floats]]:
    """As `classifier_of`, with the features float32 [B, D] that the head reads.

    If these are too many, the average of the last map. Raises ResiduaError if the weights cannot
    classify images, or are an exported file without features.
    """
    if (exported := weights.exported) is not None and exported.widths.get("features"):
        return partial(_exported_features, exported)
    classifier = Classifier(_logits_job(weights, device, features=True), images)

    def run(pixels: Pixels) -> tuple[Floats, Floats]:
        logits, *features = classifier.run_all(pixels)
        return logits, features[0] if features else _no_rows()

    return run


def _exported_features(exported: Loaded, pixels: Pixels) -> tuple[Floats, Floats]:
    if not len(pixels):
        return _no_rows(), _no_rows()
    logits, _, features = exported.run(pixels)
    return logits, features


def feature_outputs(network: Staged, layer: FeatureLayer, weights: Weights, images: int) -> Outputs:
    """The features of a layer, float32 [B, D], of the network of some weights."""
    stages = FrozenStages(network, weights.metadata.preprocessing, "fp32")
    return Outputs(stages.job([layer], weights.sha256()), images)


class FromPixels(nn.Module):
    """uint8 [B, S, S, C] -> logits and, if requested, features of a network in float32."""

    def __init__(self, network: Staged, preprocessing: Preprocessing, features: bool) -> None:
        super().__init__()
        self.network, self.preprocessing, self.features = network, preprocessing, features

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        logits, features = logits_and_features(self.network, normalise(pixels, self.preprocessing))
        return (logits, features) if self.features else (logits,)


def logits_and_features(network: Staged, x: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised images [B, C, S, S] -> logits [B, K], and the features [B, D] that the head reads,
    or the average of the last map if these are too many."""
    maps = network.head_maps(x, 0)
    features = network.pool(maps)
    logits = network.classify(features)
    return logits, features if features.shape[1] <= MAX_HEAD_FEATURES else pooled(maps[-1], 1)


def _no_rows() -> Floats:
    return np.zeros((0, 1), np.float32)


def _logits_job(weights: Weights, device: torch.device, features: bool) -> Job:
    preprocessing = weights.metadata.preprocessing
    size, channels = preprocessing.size, preprocessing.channels
    check_usable(weights)

    @functools.cache
    def network() -> FromPixels:  # not needed where OpenVINO runs what it has converted before
        fused = fold_norms_(build_network(weights, device), "fp32")
        return FromPixels(fused, preprocessing, features)

    def plain() -> nn.Module:
        unfused = folded(build_network(weights, torch.device("cpu")))
        return FromPixels(unfused, preprocessing, features)

    def multiply_adds() -> int:
        spec = weights.metadata.network
        cost = (
            measure(network().network, (channels, size, size))
            if is_own(spec.name)
            else costs_of(spec, size)
        )
        return cost.multiply_adds

    return Job(
        lambda pixels: network()(pixels),
        functools.cache(plain),
        "fp32",
        device,
        lambda: repr((_OUTPUTS[features], weights.sha256(), dataclasses.asdict(preprocessing))),
        multiply_adds,
    )
