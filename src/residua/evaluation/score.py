"""Weights and decoded images of known classes -> metrics, and a prediction for each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from residua.data.dataset import ColumnValues, Header, Pixels, SplitName, values_at
from residua.data.prepared import Prepared
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.evaluation.metrics import (
    Metrics,
    class_name,
    compute_metrics,
    group_numbers,
    share_interval,
)
from residua.evaluation.reliability import Reliability, reliability_of
from residua.evaluation.slices import Slice, find_slices, properties_of
from residua.inference.outputs import classifier_of, featured_classifier
from residua.system.console import Console
from residua.system.notebook import shown
from residua.system.words import decimals
from residua.uncertainty.record import Uncertainty
from residua.uncertainty.softmax import softmax
from residua.weights.load import Weights
from residua.weights.network import Logits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from residua.uncertainty.unknown import UnknownDetector

Flags = npt.NDArray[np.bool_]
BATCH = 64
CROSS_VALIDATION: Final = "cross-validation"  # every image was left out in turn
EvaluatedSplit = SplitName | Literal["all", "cross-validation"]
NOT_FINITE = (
    "the network's outputs are not finite (NaN or infinity): its weights or preprocessing are wrong"
)


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The images that weights are evaluated on, and what is known of each.

    split, paths, labels, groups, unreadable: see Evaluation.
    pixels: uint8 [M, S, S, C]. samples: int64 [N], their rows in `pixels`.
    headers: of each image. columns: further properties by name, a value for each image.
    """

    split: EvaluatedSplit
    pixels: Pixels
    samples: Integers
    labels: Integers
    paths: Sequence[str]
    headers: Sequence[Header | None]
    columns: Mapping[str, ColumnValues] = field(default_factory=dict)
    groups: Sequence[str] = ()
    unreadable: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, prepared: Prepared, samples: Integers, split: EvaluatedSplit) -> EvaluationSet:
        """Readable entries of a run's data."""
        rows = samples.tolist()
        return cls(
            split,
            prepared.pixels,
            samples,
            prepared.labels[samples],
            [prepared.dataset.entries[row].path for row in rows],
            [prepared.headers[row] for row in rows],
            values_at(prepared.dataset.columns, rows),
            prepared.groups_of(samples),
        )


@dataclass(frozen=True)
class FalseAlarms:
    """Images of the classes that are reported as unknown: `reported` of `images`.

    interval: 95 % CI of the share, which allows for groups.
    """

    reported: int
    images: int
    interval: tuple[float, float]

    def to_json(self) -> dict[str, object]:
        """The same, with the share."""
        return {**dataclasses.asdict(self), "share": self.reported / self.images}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of some weights on one split, and what they were computed from.

    split: "test", "validation", "all" (a data set without splits) or CROSS_VALIDATION.
    metrics: accuracy, loss and so on.
    classes: class names, in the order of the logits.
    paths: of the N readable images, relative to their data set.
    labels: int64 [N].
    logits: float32 [N, K].
    pixels: uint8 [N, S, S, C], the images as decoded for the network.
    unreadable: (path, reason) of every image that is left out.
    caveat: why the metrics are optimistic, in a sentence; "" if nothing is known.
    slices: in which the accuracy is significantly lower, see `find_slices`.
    groups: of each image, see `compute_metrics`.
    uncertainty: of the weights; None if they have none.
    baselines: accuracies without a network, such as that of the majority class, by name; empty
    where the training set is not at hand.
    unknown: bool [N], reported as showing none of the classes; None if the weights have no detector
    of unknown images, or chose it on these images.
    """

    split: EvaluatedSplit
    metrics: Metrics
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: Integers
    logits: Logits
    pixels: Pixels
    unreadable: tuple[tuple[str, str], ...]
    caveat: str = ""
    slices: tuple[Slice, ...] = ()
    groups: tuple[str, ...] = ()
    uncertainty: Uncertainty | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    unknown: Flags | None = None

    def __repr__(self) -> str:
        return (
            f"Evaluation({self.split}: accuracy {decimals(self.metrics.accuracy, 4)}, "
            f"{self.metrics.images:,} images, {len(self.classes):,} classes)"
        )

    def _repr_html_(self) -> str:
        return str(shown("evaluation_html", self))

    def plot_confusion(self) -> Figure:
        """The confusion matrix, as in the report; a figure that pyplot does not hold."""
        return cast("Figure", shown("confusion_figure", self))

    def plot_errors(self) -> Figure:
        """The most confident errors and some correct predictions, as in the report."""
        return cast("Figure", shown("predictions_figure", self))

    def plot_reliability(self) -> Figure:
        """Accuracy against confidence, and against the share of images that are predicted.

        Raises ResiduaError without `reliability`.
        """
        return cast("Figure", shown("reliability_figure", self))

    @property
    def scores(self) -> Metrics:
        """Deprecated name of `metrics`."""
        return self.metrics

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Of the classes for each image, float64 [N, K]; NaN where a logit is not finite."""
        return softmax(self.logits)

    @property
    def predicted(self) -> Integers:
        """The most likely output of each image, int64 [N]; it may be beyond the classes."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """The probability of the predicted output, float64 [N]."""
        return np.asarray(self.probabilities.max(axis=1))

    @cached_property
    def reliability(self) -> Reliability | None:
        """Calibration, Brier score, prediction sets; None of fewer than 20 images with finite
        logits, or of a network with more outputs than classes."""
        if self.logits.shape[1] != len(self.classes):
            return None
        is_own = self.split in ("validation", CROSS_VALIDATION)
        return reliability_of(
            self.logits, self.labels, self.groups, self.uncertainty, is_own=is_own
        )

    @property
    def false_alarms(self) -> FalseAlarms | None:
        """How many of the images are reported as unknown, which all show one of the classes."""
        if self.unknown is None:
            return None
        reported, images = int(self.unknown.sum()), len(self.unknown)
        interval = share_interval(self.unknown, group_numbers(self.groups))
        return FalseAlarms(reported, images, interval)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each image is classified correctly, bool [N]."""
        is_finite = np.isfinite(self.probabilities).all(axis=1)
        return np.asarray((self.logits.argmax(axis=1) == self.labels) & is_finite)

    def to_json(self) -> dict[str, object]:
        """The object that `residua evaluate --json` prints: metrics, split, caveat, slices,
        reliability, baselines, false alarms."""
        values = self.metrics.to_json()
        first = ("accuracy", "interval", "top5", "loss", "images")
        own: dict[str, object] = {"split": self.split}
        if self.caveat:
            own["caveat"] = self.caveat
        if self.slices:
            own["slices"] = [entry.to_json() for entry in self.slices]
        if self.reliability is not None:
            own["reliability"] = self.reliability.to_json()
        if self.baselines:
            own["baselines"] = dict(self.baselines)
        if self.false_alarms is not None:
            own["false_alarms"] = self.false_alarms.to_json()
        return {key: values.pop(key) for key in first} | own | values

    def rows(self) -> list[tuple[str, str, str, float, bool]]:
        """For each image: path, class, predicted class, its probability, whether it is correct."""
        columns = zip(self.paths, self.labels, self.predicted, self.probabilities, strict=True)
        names = self.classes
        return [
            (
                path,
                names[label],
                class_name(names, top) if np.isfinite(row).all() else "not finite",
                float(row[top]),
                bool(top == label and np.isfinite(row).all()),
            )
            for path, label, top, row in columns
        ]


def score_images(
    weights: Weights, images: EvaluationSet, device: torch.device, console: Console
) -> Evaluation:
    """Evaluate weights in float32. Raises ResiduaError if they cannot classify images."""
    samples, uncertainty = images.samples, weights.metadata.uncertainty
    chose_detector = images.split in ("validation", CROSS_VALIDATION)
    detector = None if uncertainty is None or chose_detector else uncertainty.unknown
    run = detecting_classifier(weights, device, len(samples), detector)
    outputs: list[tuple[Logits, Flags]] = []
    with console.bar("evaluating") as move:
        for start in range(0, len(samples), BATCH):
            outputs.append(run(images.pixels[samples[start : start + BATCH]]))
            move(len(outputs) * BATCH, len(samples), "")
    logits, unknown = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    broken = int((~np.isfinite(softmax(logits)).all(axis=1)).sum())
    if broken == len(logits):
        raise ResiduaError(f"{weights.path}: {NOT_FINITE}.")
    if broken:
        console.caution(f"{broken:,} of {len(logits):,} images count as wrong: {NOT_FINITE}")
    evaluation = evaluation_of(logits, images, weights.metadata.classes)
    return replace(
        evaluation, uncertainty=uncertainty, unknown=None if detector is None else unknown
    )


def detecting_classifier(
    weights: Weights, device: torch.device, images: int, detector: UnknownDetector | None
) -> Callable[[Pixels], tuple[Logits, Flags]]:
    """uint8 [B, S, S, C] -> logits float32 [B, K], and which images are unknown, bool [B], by the
    detector if any.

    images: that will be classified, as far as known. Raises ResiduaError if the weights cannot
    classify images.
    """
    if detector is None:
        classify = classifier_of(weights, device, images)
        return lambda pixels: (classify(pixels), np.zeros(len(pixels), np.bool_))
    classify_featured = featured_classifier(weights, device, images)

    def run(pixels: Pixels) -> tuple[Logits, Flags]:
        logits, features = classify_featured(pixels)
        return logits, detector.is_unknown(features, logits)

    return run


def evaluation_of(logits: Logits, images: EvaluationSet, classes: tuple[str, ...]) -> Evaluation:
    """The evaluation of logits float32 [N, K] of these images, with its slices."""
    is_whole = len(images.samples) == len(images.pixels)
    evaluation = Evaluation(
        split=images.split,
        metrics=compute_metrics(logits, images.labels, classes, images.groups),
        classes=classes,
        paths=tuple(images.paths),
        labels=images.labels,
        logits=logits,
        pixels=images.pixels if is_whole else images.pixels[images.samples],
        unreadable=tuple(images.unreadable),
        groups=tuple(images.groups),
    )
    properties = properties_of(
        images.paths, images.headers, evaluation.pixels, classes, images.columns
    )
    slices = find_slices(evaluation.correct, images.labels, properties, images.groups)
    return replace(evaluation, slices=slices)
