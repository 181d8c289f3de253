"""Logits, labels and class names -> accuracy with its interval, loss, per-class metrics, confusion.

Knows no files, no images and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError
from residua.uncertainty.intervals import wilson_interval
from residua.uncertainty.softmax import log_softmax

TOP = 5


@dataclass(frozen=True)
class ClassMetrics:
    """Precision, recall and F1 of one class, in [0, 1], as scikit-learn's with zero_division=0.

    Where scikit-learn would divide by zero they are None instead: recall and F1 of a class without
    images, precision if the class also was never predicted. support: evaluated images of the class.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int

    def to_json(self) -> dict[str, object]:
        """Plain data with the keys class, precision, recall, f1, support."""
        values = asdict(self)
        return {"class": values.pop("name"), **values}


@dataclass(frozen=True, eq=False)
class Metrics:
    """The metrics of a classifier on some images.

    accuracy: correct / images.
    interval: 95 % Wilson interval of the accuracy, (low, high).
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
            },
            "confusion": self.confusion.tolist(),
            "outside": self.outside,
        }


def compute_metrics(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], classes: Sequence[str]
) -> Metrics:
    """The metrics of `logits` [N, K_out] against `labels` [N], integers in [0, len(classes)).

    K_out may exceed the number of classes (a 1000-way head evaluated on 4 classes): outputs beyond
    the classes are wrong predictions and part of the softmax. A row of logits with a NaN is a wrong
    prediction. Of equal logits the lower index wins, as in argmax. Classes may be without labels.

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
    loss = np.take_along_axis(log_softmax(logits), labels[:, None], axis=1).mean()
    return Metrics(
        accuracy=accuracy,
        interval=wilson_interval(accuracy, len(labels)),
        top5=float((ranks < TOP).mean()) if number > TOP else None,
        loss=abs(float(loss)),  # never above 0 before; not "-", which would make 0 a -0
        images=len(labels),
        per_class=_per_class(labels, predicted, classes),
        confusion=confusion,
        outside=int((~inside).sum()),
    )


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
    labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(classes)), zero_division=0
    )
    predictions = np.bincount(predicted, minlength=len(classes))
    return tuple(
        ClassMetrics(
            name=name,
            precision=float(precision[k]) if support[k] or predictions[k] else None,
            recall=float(recall[k]) if support[k] else None,
            f1=float(f1[k]) if support[k] else None,
            support=int(support[k]),
        )
        for k, name in enumerate(classes)
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
