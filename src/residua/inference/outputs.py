"""Weights and uint8 images -> logits or features in float32, by the fastest engine that agrees.

Legend: B batch, S side of the images, C channels, K classes, D features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from residua.config.schema import Preprocessing
from residua.data.augmentation import normalise
from residua.data.dataset import Pixels
from residua.inference.engine import Engine, Floats, Job, TorchEngine, engine_for
from residua.inference.feature_layers import FeatureLayer, FrozenStages
from residua.networks.analysis.cost import measure
from residua.networks.staged import Staged
from residua.networks.surgery.folding import fold_norms, folded
from residua.weights.load import Weights
from residua.weights.network import build_network

SAMPLE = 16  # images that engines are compared on
NEAR = 1e-3  # of the largest logit: a smaller gap between the two best is decided by PyTorch


class Outputs:
    """Runs a job; the engine is chosen when the first images are there.

    images: that it will run on, as far as known.
    """

    def __init__(self, job: Job, images: int) -> None:
        self.job, self.images = job, images
        self.engine: Engine | None = None

    def run(self, pixels: Pixels) -> Floats:
        """uint8 [B, S, S, C] -> the job's output, float32 [B, D]; B may be 0."""
        if not len(pixels):
            return _no_rows()
        if self.engine is None:
            self.engine, _ = engine_for(self.job, pixels[:SAMPLE], self.images)
        (outputs,) = self.engine.run(pixels)
        return outputs


class Classifier(Outputs):
    """Logits of weights; near ties are decided by PyTorch, whatever the engine."""

    def run(self, pixels: Pixels) -> Floats:
        """uint8 [B, S, S, C] -> logits, float32 [B, K]; B may be 0."""
        logits = super().run(pixels)
        if self.engine is None or logits.shape[1] < 2 or isinstance(self.engine, TorchEngine):
            return logits
        best = np.sort(logits, axis=1)
        near = best[:, -1] - best[:, -2] < NEAR * np.abs(logits).max(axis=1)
        if near.any():
            with torch.inference_mode():
                (exact,) = self.job.plain(torch.from_numpy(np.ascontiguousarray(pixels[near])))
            logits[near] = exact.numpy()
        return logits


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
    network = build_network(weights, device)
    return Classifier(_logits_job(network, weights), images).run


def feature_outputs(network: Staged, layer: FeatureLayer, weights: Weights, images: int) -> Outputs:
    """The features of a layer, float32 [B, D], of the network of some weights."""
    stages = FrozenStages(network, weights.metadata.preprocessing, "fp32")
    return Outputs(stages.job([layer], weights.sha256()), images)


class FromPixels(nn.Module):
    """uint8 [B, S, S, C] -> (logits,) of a network in float32."""

    def __init__(self, network: Staged, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network, self.preprocessing = network, preprocessing

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.network(normalise(pixels, self.preprocessing)),)


def _no_rows() -> Floats:
    return np.zeros((0, 1), np.float32)


def _logits_job(network: Staged, weights: Weights) -> Job:
    preprocessing = weights.metadata.preprocessing
    size, channels = preprocessing.size, preprocessing.channels
    return Job(
        FromPixels(fold_norms(network, "fp32"), preprocessing),
        FromPixels(folded(network), preprocessing),
        "fp32",
        next(network.parameters()).device,
        repr(("logits", weights.sha256(), dataclasses.asdict(preprocessing))),
        measure(network, (channels, size, size)).multiply_adds,
    )
