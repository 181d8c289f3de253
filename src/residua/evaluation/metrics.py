"""Logits, labels and class names -> metrics with intervals, loss, per-class metrics, confusion.

Knows no files, no images and no torch. Legend: N images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError
from residua.uncertainty.intervals import clustered_interval, student_quantile, wilson_interval
from residua.uncertainty.ranks import area_under_roc
from residua.uncertainty.softmax import log_softmax

TOP = 5
MAJORITY = "majority class"  # the baseline that predicts it for every image


@dataclass(frozen=True)
class ClassMetrics:
    """Precision, recall and F1 of one class, in [0, 1], as scikit-learn's with zero_division=0;
    specificity, and area under the ROC curve of its probability against all other classes.

    What is undefined is None: recall, F1 and AUROC of a class without images, precision if the
    class also was never predicted, specificity and AUROC if there are no images of other classes.
    support: evaluated images of the class. recall_interval, auroc_interval: 95 %, (low, high).
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    recall_interval: tuple[float, float] | None = None
    specificity: float | None = None
    auroc: float | None = None
    auroc_interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, object]:
        """Plain data with the names of the attributes as keys, but `class` for the name."""
        values = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
        return {"class": values.pop("name"), **values}


@dataclass(frozen=True, eq=False)
class Metrics:
    """The metrics of a classifier on some images.

    accuracy: correct / images.
    interval: 95 % interval of the accuracy, (low, high): Wilson's; clustered where images belong
        together.
    balanced_accuracy, macro_f1: means of recall and F1 over the classes with images; and their 95 %
        intervals.
    groups: number of groups of images that belong together; `images` if none do.
    top5: share of images whose class is among the five largest outputs; None up to five classes.
    loss: mean cross entropy in nats; may be infinite or NaN, which `to_json` turns into None.
    images: number of evaluated images.
    per_class: in the order of the outputs.
    confusion: int64 [K, K], rows are the true class, columns the predicted one.
    outside: images whose predicted output is no class, hence in no column of `confusion`.
    """

    accuracy: float
    interval: tuple[float, float]
    top5: float | None
    loss: float
    images: int
    per_class: tuple[ClassMetrics, ...]
    confusion: npt.NDArray[np.int64]
    outside: int
    balanced_accuracy: float
    balanced_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    groups: int

    @property
    def informative_top5(self) -> float | None:
        """`top5` of more than ten classes: of fewer, a guess contains the class too often."""
        return self.top5 if len(self.per_class) > 2 * TOP else None

    @property
    def correct(self) -> int:
        """Number of images that are classified correctly."""
        return int(np.trace(self.confusion))

    def to_json(self) -> dict[str, object]:
        """Plain data that is valid JSON: None replaces what is undefined or not finite."""
        supported = [row for row in self.per_class if row.support]
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "top5": self.top5,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "images": self.images,
            "per_class": [row.to_json() for row in self.per_class],
            "macro": {
                "precision": _mean(row.precision for row in supported),
                "recall": _mean(row.recall for row in supported),
                "f1": _mean(row.f1 for row in supported),
                "auroc": _mean(row.auroc for row in supported),
            },
            "confusion": self.confusion.tolist(),
            "outside": self.outside,
            "balanced_accuracy": self.balanced_accuracy,
            "balanced_interval": list(self.balanced_interval),
            "macro_f1_interval": list(self.macro_f1_interval),
            "groups": self.groups,
        }


def effective_interval(
    value: float,
    influences: npt.NDArray[np.float64],
    most: float,
    groups: npt.NDArray[np.int64] | None,
) -> tuple[float, float]:
    """95 % interval of a mean in [0, 1], (low, high): Wilson's with an effective number of images.

    influences: float64 [N], the first-order change of the value by each image; their sum is 0.
    Their squares, summed within a group first, are the variance (the sandwich of clustered data;
    Rao and Scott 1992 for shares), which a binomial share of `value` has with fewer images. most:
    images that the value is worth if errors are equally frequent everywhere: an observed variance
    of few images may be too small. groups: int64 [N] in 0..G-1; None: each image by itself. With
    few groups, Student's quantile with G - 1 degrees of freedom widens the interval.
    """
    variance = float(np.square(influences).sum()) * (1 - 1e-12)  # its rounding counts no image
    worst = most
    if groups is not None:
        sizes = np.bincount(groups)
        number = len(sizes)
        if number < 2:
            return 0.0, 1.0
        sums = np.bincount(groups, influences)
        widening = (student_quantile(number - 1) / NormalDist().inv_cdf(0.975)) ** 2
        clustered = float(np.square(sums).sum()) * number / (number - 1) * widening
        alike = float(np.square(sizes).sum()) / len(groups)  # design effect if groups are uniform
        worst = most / alike / widening
        most /= max(1.0, clustered / variance) if variance > 0 else 1.0
        variance = clustered
    is_known = variance > 0 and 0 < value < 1
    return wilson_interval(value, min(most, value * (1 - value) / variance) if is_known else worst)


def compute_metrics(
    logits: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    classes: Sequence[str],
    groups: Sequence[str] = (),
) -> Metrics:
    """The metrics of `logits` [N, K_out] against `labels` [N], integers in [0, len(classes)).

    K_out may exceed the number of classes (a 1000-way head evaluated on 4 classes): outputs beyond
    the classes are wrong predictions and part of the softmax. A row of logits with a NaN is a wrong
    prediction. Of equal logits the lower index wins, as in argmax. Classes may be without labels.
    groups: a key for each image, equal for images that belong together, such as near-duplicates;
    () or "": an image by itself.

    Raises ResiduaError without images, ValueError if shapes or labels do not fit.
    """
    number, width = len(classes), logits.shape[1] if logits.ndim == 2 else 0
    if len(labels) == 0:
        raise ResiduaError("There are no images to evaluate: the split is empty.")
    if labels.shape != logits.shape[:1] or width < number:
        raise ValueError(f"logits {logits.shape}, labels {labels.shape}, {number} classes")
    if labels.min() < 0 or labels.max() >= number:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, {number} classes")
    ranks = _ranks(logits, labels)
    predicted = np.where(np.isnan(logits).any(axis=1), width, logits.argmax(axis=1))
    inside = predicted < number
    confusion = np.zeros((number, number), np.int64)
    np.add.at(confusion, (labels[inside], predicted[inside]), 1)
    accuracy = int(np.trace(confusion)) / len(labels)
    log_probabilities = log_softmax(logits)
    loss = np.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()
    group_of = group_numbers(groups)
    scores = np.where(np.isnan(log_probabilities), -np.inf, log_probabilities)
    per_class = _per_class(scores, labels, predicted, classes, group_of)
    balanced, macro_f1 = (
        _mean(getattr(row, name) for row in per_class if row.support) or 0.0
        for name in ("recall", "f1")
    )
    recall_influences, f1_influences, most = _influences(labels, predicted, number)
    return Metrics(
        accuracy=accuracy,
        interval=share_interval(predicted == labels, group_of),
        top5=float((ranks < TOP).mean()) if number > TOP else None,
        loss=abs(float(loss)),  # never above 0 before; not "-", which would make 0 a -0
        images=len(labels),
        per_class=per_class,
        confusion=confusion,
        outside=int((~inside).sum()),
        balanced_accuracy=balanced,
        balanced_interval=effective_interval(balanced, recall_influences, most, group_of),
        macro_f1=macro_f1,
        macro_f1_interval=effective_interval(macro_f1, f1_influences, most, group_of),
        groups=len(labels) if group_of is None else int(group_of.max()) + 1,
    )


def share_interval(
    right: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64] | None
) -> tuple[float, float]:
    """95 % interval of the share of True, bool [N], (low, high). groups: see `group_numbers`."""
    numbers = np.arange(len(right)) if groups is None else groups
    return clustered_interval(right, numbers)


def group_numbers(groups: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """Groups as numbers from 0, int64 [N], "" an image by itself; None if each image is."""
    keys = [group or f"\0{index}" for index, group in enumerate(groups)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    if len(numbers) == len(keys):
        return None
    return np.array([numbers[key] for key in keys], np.int64)


def _influences(
    labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], number: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Of balanced accuracy and of macro F1, [N] each; and what images they are at most worth.

    The last is K^2 / sum(1 / images of a class): errors of small classes weigh more.
    """
    right, guess = predicted == labels, np.minimum(predicted, number)
    support, called, hits = _counts(labels, predicted, number)
    present = support > 0
    count = int(present.sum())
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + called, 1)
    weight = present / np.maximum(support + called, 1) / count
    recall_influences = (right - recall[labels]) / (count * support[labels])
    f1_influences = (2 * right - f1[labels]) * weight[labels] - f1[guess] * weight[guess]
    return recall_influences, f1_influences, count**2 / float((1 / support[present]).sum())


def _counts(
    labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], number: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Images of each class, predictions of it, and correct ones, [K + 1] each; the last are 0."""
    support, called, hits = (
        np.bincount(values, minlength=number + 1)
        for values in (labels, predicted[predicted < number], labels[predicted == labels])
    )
    return support, called, hits


def _ranks(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Rank of the true class among the outputs, 0 for the largest; rows with NaN rank last. [N]"""
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    ranks: npt.NDArray[np.int64] = ((logits > true) | ((logits == true) & earlier)).sum(axis=1)
    ranks[np.isnan(logits).any(axis=1)] = logits.shape[1]
    return ranks


def _per_class(
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer],
    classes: Sequence[str],
    groups: npt.NDArray[np.int64] | None,
) -> tuple[ClassMetrics, ...]:
    right, number = predicted == labels, len(classes)
    support, called, hits = _counts(labels, predicted, number)

    def recall_interval(k: int) -> tuple[float, float] | None:
        own = np.flatnonzero(labels == k)
        return (
            share_interval(right[own], None if groups is None else groups[own])
            if support[k]
            else None
        )

    def ranking(k: int) -> tuple[float | None, tuple[float, float] | None]:
        own, others = int(support[k]), len(labels) - int(support[k])
        if not own or not others:
            return None, None
        area, influences = area_under_roc(scores[:, k], labels == k)
        most = 4 / (1 / own + 1 / others)  # see `_influences`
        return area, effective_interval(area, influences, most, groups)

    areas = [ranking(k) for k in range(number)]
    others = len(labels) - support
    return tuple(
        ClassMetrics(
            name=name,
            precision=float(hits[k] / max(called[k], 1)) if support[k] or called[k] else None,
            recall=float(hits[k] / support[k]) if support[k] else None,
            f1=float(2 * hits[k] / (support[k] + called[k])) if support[k] else None,
            support=int(support[k]),
            recall_interval=recall_interval(k),
            specificity=float(1 - (called[k] - hits[k]) / others[k]) if others[k] else None,
            auroc=areas[k][0],
            auroc_interval=areas[k][1],
        )
        for k, name in enumerate(classes)
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def class_name(classes: tuple[str, ...], output: int) -> str:
    """The name of an output; a head may be wider than the classes, as the 1000-way one of tutorial
    0 is."""
    return classes[output] if output < len(classes) else f"output {output}"
