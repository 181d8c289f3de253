"""Weights -> one module from uint8 images to all outputs of an exported file; its description."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor, nn

from residua._version import __version__
from residua.config.schema import Preprocessing
from residua.data.augmentation import normalise
from residua.inference.outputs import logits_and_features
from residua.networks.surgery.folding import folded
from residua.uncertainty.prediction_sets import COVERAGE
from residua.uncertainty.unknown import UnknownDetector
from residua.weights.exported import FORMAT, OUTPUTS
from residua.weights.load import Weights
from residua.weights.native import attached_json
from residua.weights.network import build_network

Precision = Literal["fp32", "fp16", "int8"]

INPUT = "images"
RESIZING = {
    "squash": "resize to size x size, ignoring the aspect ratio",
    "crop": "centre crop to a square whose side is `crop` times the shorter side, resized to size",
    "pad": "resize the longer side to size, centre, pad with black",
}


class Classifier(nn.Module):
    """uint8 [N, S, S, C], RGB or greyscale -> logits and probabilities, float32 [N, K].

    Of weights that detect unknown images also the features that this reads, float32 [N, D]. Norms
    are folded into the convolutions before them. precision: "fp16" stores and computes all but
    preprocessing and softmax in half precision.
    """

    def __init__(self, weights: Weights, precision: Precision) -> None:
        super().__init__()
        network = build_network(weights, torch.device("cpu"))
        self.network = folded(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.preprocessing = weights.metadata.preprocessing
        self.outputs = OUTPUTS if detector_of(weights) else OUTPUTS[:2]
        self.half_precision = precision == "fp16"
        if self.half_precision:
            self.network.half()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One tensor for each of `outputs`."""
        x = normalise(images, self.preprocessing)
        x = x.half() if self.half_precision else x
        logits, features = (y.float() for y in logits_and_features(self.network, x))
        return (logits, logits.softmax(1), features)[: len(self.outputs)]


def detector_of(weights: Weights) -> UnknownDetector | None:
    """The detector of unknown images of some weights, if they have one."""
    uncertainty = weights.metadata.uncertainty
    return None if uncertainty is None else uncertainty.unknown


def description(weights: Weights, precision: Precision) -> dict[str, Any]:
    """The entries that a program needs to use the file: plain data, stored as JSON in it."""
    preprocessing, metadata = weights.metadata.preprocessing, weights.metadata
    size, channels = preprocessing.size, preprocessing.channels
    detector = detector_of(weights)
    return {
        "format": FORMAT,
        "residua": __version__,
        "network": dataclasses.asdict(metadata.network),
        "classes": list(metadata.classes),
        "preprocessing": dataclasses.asdict(preprocessing),
        "precision": precision,
        "input": f"{INPUT}: uint8 [N, {size}, {size}, {channels}], "
        + ("RGB" if channels == 3 else "greyscale"),
        "outputs": "logits, probabilities: float32 [N, classes]"
        + (f"; features: float32 [N, {detector.features}]" if detector else ""),
        "resizing": resizing(preprocessing),
        "normalisation": "inside the file",
        **_trust(weights),
    }


def _trust(weights: Weights) -> dict[str, Any]:
    """Temperature, thresholds of prediction sets, golden images; see docs/export.md."""
    entries = attached_json(weights.metadata)
    uncertainty = weights.metadata.uncertainty
    if uncertainty is None:
        return entries
    entries["temperature"] = f"{uncertainty.temperature:g}, the logits are divided by it"
    sets = uncertainty.sets
    if sets is not None and sets.highest_coverage >= COVERAGE:
        entries["prediction_sets"] = {
            "coverage": COVERAGE,
            "rule": "a class is in the set if 1 - probability <= its threshold, or if it is first",
            "thresholds": sets.threshold(COVERAGE).tolist(),
        }
    return entries


def resizing(preprocessing: Preprocessing) -> str:
    """How an upright image becomes the input, in a sentence."""
    rule = f"{RESIZING[preprocessing.resize]}; size = {preprocessing.size}"
    if preprocessing.resize == "crop":
        rule += f", crop = {preprocessing.crop:g}"
    rule = f"{rule}, interpolation {preprocessing.interpolation}"
    if preprocessing.value_range is not None:
        low, high = preprocessing.value_range
        rule += f"; in images of 16 bits and float, {low:g} is black and {high:g} is white"
    return rule
