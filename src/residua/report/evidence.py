"""A run's evaluation -> explained images: some errors and correct predictions, with heat maps.

For an error also the nearest training images.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from residua.data.neighbours import unit
from residua.data.prepared import Prepared, thinned
from residua.data.random import Integers, shuffled
from residua.errors import ResiduaError
from residua.evaluation.heat import overlay
from residua.evaluation.metrics import class_name
from residua.evaluation.score import Evaluation
from residua.inference.engine import Floats
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureExtractor
from residua.inference.grad_cam import grad_cam
from residua.networks.own import is_own
from residua.report import view
from residua.weights.load import Weights
from residua.weights.network import build_network

EXAMPLES = 16  # explained images, up to three quarters of them errors
NEIGHBOURS = 3  # training images of an error
MOST = 5000  # training images that are compared
SECONDS = 2.0  # for their features, where these are not cached
SIDE, SMALL_SIDE = 128, 72  # px of images in the HTML


@dataclass(frozen=True)
class Neighbour:
    """A training image: data URI, class, path, cosine similarity of its features."""

    image: str
    class_name: str
    path: str
    similarity: float


@dataclass(frozen=True)
class Example:
    """An explained prediction. image, heat: data URIs; heat is "" without a map. neighbours: of an
    error, the nearest first."""

    path: str
    truth: str
    predicted: str
    probability: float
    image: str
    heat: str
    neighbours: tuple[Neighbour, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether the prediction is correct."""
        return self.truth == self.predicted


@dataclass(frozen=True)
class Evidence:
    """Explained images. no_map: why there are no heat maps, in a sentence. compared: training
    images among which the neighbours are the nearest. features: where their features are from."""

    examples: tuple[Example, ...]
    no_map: str
    compared: int
    features: str


def evidence_of(
    weights: Weights,
    prepared: Prepared,
    evaluation: Evaluation,
    extractor: FeatureExtractor | None,
    seconds: float,
) -> Evidence:
    """The evidence of a run's evaluation on its own images.

    extractor: with cached features of the initial weights; None: features of the trained network,
    of as many training images as there is time for. seconds: that are left.
    """
    sample_of = {entry.path: index for index, entry in enumerate(prepared.dataset.entries)}
    samples = np.array([sample_of[path] for path in evaluation.paths], np.int64)
    predicted, truth, confidence = evaluation.predicted, evaluation.labels, evaluation.confidence
    shown = view.most_instructive(evaluation, EXAMPLES)
    rows = np.array(shown, np.int64)
    heats, no_map = _heat_maps(weights, prepared, evaluation, rows, predicted[rows])
    wrong = rows[predicted[rows] != truth[rows]]
    near, compared = _neighbours(
        weights, prepared, samples[wrong], extractor, min(seconds, SECONDS)
    )
    neighbours = dict(zip(wrong.tolist(), near, strict=True))
    classes = evaluation.classes
    examples = tuple(
        Example(
            evaluation.paths[row],
            classes[truth[row]],
            class_name(classes, int(predicted[row])),
            float(confidence[row]),
            view.data_uri(evaluation.pixels[row], SIDE, "jpeg"),
            heat,
            neighbours.get(row, ()),
        )
        for row, heat in zip(shown, heats, strict=True)
    )
    source = "the initial weights" if extractor is not None else "the trained network"
    return Evidence(examples, no_map, compared, source)


def _heat_maps(
    weights: Weights, prepared: Prepared, evaluation: Evaluation, rows: Integers, outputs: Integers
) -> tuple[list[str], str]:
    """Overlays as data URIs, "" without a map; and why there is none."""
    pixels = evaluation.pixels[rows]
    try:
        heats, _ = grad_cam(weights, prepared.device)(pixels, outputs)
    except ResiduaError as error:
        return [""] * len(rows), str(error)
    pairs = zip(pixels, heats, strict=True)
    return [view.data_uri(overlay(image, heat), SIDE, "jpeg") for image, heat in pairs], ""


def _neighbours(
    weights: Weights,
    prepared: Prepared,
    samples: Integers,
    extractor: FeatureExtractor | None,
    seconds: float,
) -> tuple[list[tuple[Neighbour, ...]], int]:
    """The nearest training images of each sample, and among how many they were searched."""
    train = thinned(prepared.splits["train"], MOST)
    has_features = not is_own(weights.metadata.network.name)
    if not has_features or not len(samples) or not len(train) or seconds <= 0:
        return [()] * len(samples), 0
    deadline = time.monotonic() + seconds
    if extractor is not None:
        layer = FeatureLayer(len(extractor.network.stages), 1)
        queries = extractor.rows([layer], samples).values[layer]
        found = extractor.rows([layer], train, deadline=deadline)
        train, known = found.samples, found.values[layer]
    else:
        own = FeatureExtractor(build_network(weights, prepared.device), prepared)
        queries = _pooled(own, samples)
        train, known = _computed_until(own, train, deadline)
    similarities = unit(queries) @ unit(known).T
    groups = np.array(prepared.groups_of(train))
    for row, group in zip(similarities, prepared.groups_of(samples), strict=True):
        row[groups == group] = -np.inf  # the image itself, in cross-validation
    return [_described(prepared, train, row) for row in similarities], len(train)


def _described(prepared: Prepared, train: Integers, row: Floats) -> tuple[Neighbour, ...]:
    best = [index for index in np.argsort(-row)[:NEIGHBOURS] if np.isfinite(row[index])]
    names = prepared.dataset.classes
    return tuple(
        Neighbour(
            view.data_uri(prepared.pixels[train[index]], SMALL_SIDE, "jpeg"),
            names[prepared.labels[train[index]]],
            prepared.dataset.entries[train[index]].path,
            float(row[index]),
        )
        for index in best
    )


def _computed_until(
    extractor: FeatureExtractor, samples: Integers, deadline: float
) -> tuple[Integers, Floats]:
    """Features of some samples, in random order, at least one batch."""
    order, batches = shuffled(0, 0, samples), []
    for start in range(0, len(order), extractor.batch):
        batches.append(_pooled(extractor, order[start : start + extractor.batch]))
        if time.monotonic() > deadline:
            break
    known = np.concatenate(batches)
    return order[: len(known)], known


def _pooled(extractor: FeatureExtractor, samples: Integers) -> Floats:
    """The average of the last feature map, float32 [N, C]."""
    maps = extractor.maps(samples, len(extractor.network.stages))
    return torch.flatten(maps, 2).float().mean(2).cpu().numpy()
