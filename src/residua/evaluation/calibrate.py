"""A trained run and predictions that it was not fitted on -> its weights, with calibrated
probabilities, prediction sets, a detector of unknown images, and golden images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residua.data.dataset import Pixels
from residua.data.prepared import Prepared, thinned
from residua.data.random import Integers, shuffled
from residua.inference.outputs import MAX_HEAD_FEATURES, featured_classifier
from residua.networks.own import own_network_name
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.uncertainty.calibration import brier_score
from residua.uncertainty.prediction_sets import PredictionSets
from residua.uncertainty.record import CALIBRATION_IMAGES, REFERENCE_IMAGES, Source, Uncertainty
from residua.uncertainty.softmax import softmax
from residua.uncertainty.temperature import cross_fitted, fit_temperature
from residua.uncertainty.unknown import FitHead, UnknownDetector, choose
from residua.weights.golden import golden_of, mark_checked
from residua.weights.key_maps.layers import head_layers
from residua.weights.load import Weights, read_file
from residua.weights.network import Logits, build_network

Floats = npt.NDArray[np.float32]

BATCH = 64
LEAST_GROUPS = 19  # of held-out images, for a false-alarm rate of 5 %


class FittedProbe(NamedTuple):
    """The rows that a head on frozen features is fitted on, and how.

    features: float32 [N, D]. labels, groups: int64 [N], see HeldOut. They include images without a
    prediction, such as one alone in its class. fit_head: (features [n, D], labels) -> weight [K, D]
    and bias [K].
    """

    features: Floats
    labels: Integers
    groups: Integers
    fit_head: FitHead


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions for images that the network was not fitted on, and the features behind them.

    logits: float32 [N, K]. features: float32 [N, D]. labels: int64 [N]. groups: int64 [N], equal
    for near-duplicates. probe: where the head alone is trained; None for other networks.
    """

    source: Source
    logits: Logits
    features: Floats
    labels: Integers
    groups: Integers
    probe: FittedProbe | None = None


def calibrate(
    folder: RunFolder, prepared: Prepared, held_out: HeldOut | None, console: Console
) -> Weights:
    """Rewrite the weights of a finished run with what is known of their probabilities; return them.

    held_out: cross-validated predictions; None: those for the validation set are computed, if
    there is one. Weights that are calibrated already stay as they are.
    """
    own = own_network_name(prepared.config)
    weights = read_file(folder.weights, own)
    if weights.metadata.golden is not None:
        return weights
    if held_out is None and own is None:  # a network of the user's own has no head to scale
        held_out = _validation_predictions(weights, prepared, console)
    uncertainty = None
    if held_out is not None and weights.metadata.network.classes == len(prepared.dataset.classes):
        uncertainty = _uncertainty(weights, prepared, held_out, console)
    temperature = 1.0 if uncertainty is None else uncertainty.temperature
    tensors = _with_temperature(weights, temperature)
    calibrated = dataclasses.replace(weights, tensors=tensors)
    network = build_network(calibrated, torch.device("cpu"))
    metadata = dataclasses.replace(
        weights.metadata,
        uncertainty=uncertainty,
        golden=golden_of(network, weights.metadata.preprocessing),
    )
    folder.write_weights(weights.path.name, tensors, metadata)
    weights = read_file(folder.weights, own)
    mark_checked(weights)
    return weights


def _uncertainty(
    weights: Weights, prepared: Prepared, held_out: HeldOut, console: Console
) -> Uncertainty | None:
    logits, labels, groups = held_out.logits, held_out.labels, held_out.groups
    finite = np.isfinite(logits).all(axis=1) & np.isfinite(held_out.features).all(axis=1)
    if not finite.all() or not len(labels):
        return None
    temperature = _temperature(held_out)
    return Uncertainty(
        held_out.source,
        len(labels),
        temperature,
        PredictionSets.fit(softmax(logits / temperature), labels, groups),
        _detector(weights, prepared, held_out, temperature, console),
    )


def _temperature(held_out: HeldOut) -> float:
    """1.0 unless another one, fitted on four fifths of the images, is better for the others."""
    logits, labels = held_out.logits, held_out.labels
    before = brier_score(softmax(logits), labels)
    after = brier_score(cross_fitted(logits, labels, groups=held_out.groups), labels)
    return fit_temperature(logits, labels) if after < before else 1.0


def _detector(
    weights: Weights,
    prepared: Prepared,
    held_out: HeldOut,
    temperature: float,
    console: Console,
) -> UnknownDetector | None:
    features, labels, groups = held_out.features, held_out.labels, held_out.groups
    if len(np.unique(groups)) < LEAST_GROUPS:
        return None
    if held_out.probe is not None:
        if features.shape[1] > MAX_HEAD_FEATURES:  # which `featured_classifier` averages
            return None
        present = len(np.unique(held_out.probe.labels))
        if present < held_out.logits.shape[1]:  # a class without images
            return None
        return choose(*held_out.probe, temperature=temperature)
    members = shuffled(0, 0, prepared.training_members)[:REFERENCE_IMAGES]
    _, reference = _outputs(weights, prepared.pixels, members, prepared.device, console)
    return UnknownDetector.of_network(
        (reference, prepared.labels[members]),
        (features, labels, held_out.logits),
        _linear_head(weights, features.shape[1]),
        groups,
        temperature=temperature,
    )


def _validation_predictions(
    weights: Weights, prepared: Prepared, console: Console
) -> HeldOut | None:
    members = thinned(prepared.splits["validation"], CALIBRATION_IMAGES)
    if not len(members):
        return None
    logits, features = _outputs(weights, prepared.pixels, members, prepared.device, console)
    labels, groups = prepared.labels[members], prepared.group_numbers(members)
    return HeldOut("validation", logits, features, labels, groups)


def _outputs(
    weights: Weights, pixels: Pixels, samples: Integers, device: torch.device, console: Console
) -> tuple[Logits, Floats]:
    """Logits [N, K] and features [N, D] of rows of decoded images; N >= 1."""
    run = featured_classifier(weights, device, len(samples))
    logits, features = [], []
    with console.bar("calibrating") as move:
        for start in range(0, len(samples), BATCH):
            rows = run(pixels[samples[start : start + BATCH]])
            logits.append(rows[0])
            features.append(rows[1])
            move(start + BATCH, len(samples), "")
    return np.concatenate(logits), np.concatenate(features)


def _linear_head(weights: Weights, inputs: int) -> tuple[Floats, Floats] | None:
    """Weight [K, D] and bias [K] of a head of one linear layer, D = `inputs`; None for others."""
    head = {name for name in weights.tensors if name.startswith("head.")}
    if head != {"head.weight", "head.bias"}:
        return None
    weight, bias = (weights.tensors[f"head.{part}"].float().numpy() for part in ("weight", "bias"))
    return (weight, bias) if weight.shape[1] == inputs else None


def _with_temperature(weights: Weights, temperature: float) -> dict[str, Tensor]:
    """The tensors, with those of the last layer divided by a temperature: so are the logits."""
    if temperature == 1.0:
        return weights.tensors
    last = head_layers(build_network(weights, torch.device("cpu")))[-1]
    scaled = {f"{last}.weight", f"{last}.bias"}
    return {
        name: tensor / temperature if name in scaled else tensor
        for name, tensor in weights.tensors.items()
    }
