"""Logits, labels and class names -> accuracy with its interval, loss, scores per class, confusion.

Knows no files, no images and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError

TOP = 5


@dataclass(frozen=True)
class ClassScore:
    """One class: precision, recall and F1 in [0, 1], `support` the judged images of the class.

    As scikit-learn gives them with zero_division=0, except that what no image can tell is None:
    recall and F1 of a class without judged images, and its precision if it was never predicted.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int

    def to_json(self) -> dict[str, object]:
        """Plain data with the keys class, precision, recall, f1, support."""
        return {
            "class": self.name,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "support": self.support,
        }


@dataclass(frozen=True, eq=False)
class Scores:
    """How good some logits are.

    accuracy: correct / images. interval: its 95 % Wilson interval. top5: share of images with
    the truth among the five largest outputs, None up to five classes. loss: mean cross entropy in
    nats (may be infinite or NaN; `to_json` gives None then). confusion: int64 [K, K], rows are the
    truth. outside: images whose largest output is no class, so in no column of `confusion`.
    """

    accuracy: float
    interval: tuple[float, float]
    top5: float | None
    loss: float
    images: int
    per_class: tuple[ClassScore, ...]
    confusion: npt.NDArray[np.int64]
    outside: int

    @property
    def correct(self) -> int:
        """Number of images whose largest output is the truth."""
        return int(np.trace(self.confusion))

    def to_json(self) -> dict[str, object]:
        """Plain data that is valid JSON: what is undefined or not finite is None."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "top5": self.top5,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "images": self.images,
            "per_class": [score.to_json() for score in self.per_class],
            "macro": {
                "precision": _mean(score.precision for score in self._judged),
                "recall": _mean(score.recall for score in self._judged),
                "f1": _mean(score.f1 for score in self._judged),
            },
            "confusion": self.confusion.tolist(),
            "outside": self.outside,
        }

    @property
    def _judged(self) -> list[ClassScore]:
        return [score for score in self.per_class if score.support]


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share, (low, high) in [0, 1] (Wilson 1927; no continuity correction).

    Raises ResiduaError if `total` is 0, ValueError if the numbers make no share.
    """
    if total == 0:
        raise ResiduaError("There are no images to judge, so there is no accuracy.")
    if not 0 <= correct <= total or not 0 < confidence < 1:
        raise ValueError(f"wilson({correct}, {total}, {confidence}) is no share")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # The bounds at 0 and at `total` are exact; rounding must not say 0.9999999999999999.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == total else centre + half
    return low, high


def summarize(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], classes: Sequence[str]
) -> Scores:
    """Scores of `logits` [N, K_out] against `labels` [N], integers in [0, K) with K = len(classes).

    K_out may exceed K (a 1000-way head judged on 4 classes): an output beyond the classes is a
    wrong answer and takes part in the softmax. The labels may be of some classes only. A row of
    logits with a NaN is a wrong answer. Equal logits: the lower index wins, as in argmax.

    Raises ResiduaError without images, ValueError if shapes or labels do not fit.
    """
    number, width = len(classes), logits.shape[1] if logits.ndim == 2 else 0
    if len(labels) == 0:
        raise ResiduaError("There are no images to judge: the part is empty.")
    if labels.shape != logits.shape[:1] or width < number:
        raise ValueError(f"logits {logits.shape}, labels {labels.shape}, {number} classes")
    if labels.min() < 0 or labels.max() >= number:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, {number} classes")
    ranks = _ranks(logits, labels)
    predicted = np.where(np.isnan(logits).any(axis=1), width, logits.argmax(axis=1))
    inside = predicted < number
    confusion = np.zeros((number, number), np.int64)
    np.add.at(confusion, (labels[inside], predicted[inside]), 1)
    correct = int(np.trace(confusion))
    return Scores(
        accuracy=correct / len(labels),
        interval=wilson(correct, len(labels)),
        top5=float((ranks < TOP).mean()) if number > TOP else None,
        loss=_cross_entropy(logits, labels),
        images=len(labels),
        per_class=_per_class(labels, predicted, classes),
        confusion=confusion,
        outside=int((~inside).sum()),
    )


def _ranks(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Place of the truth among the outputs, 0 the largest; rows with NaN come last. [N]"""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    ranks: npt.NDArray[np.int64] = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    ranks[np.isnan(logits).any(axis=1)] = logits.shape[1]
    return ranks


def _cross_entropy(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """Mean of -log softmax at the truth, in float64, shifted by the maximum against overflow."""
    with np.errstate(invalid="ignore"):  # rows of inf - inf are NaN, and said so
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        own = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
        return float((np.log(np.exp(shifted).sum(axis=1)) - own).mean())


def _per_class(
    labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: Sequence[str]
) -> tuple[ClassScore, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(classes)), zero_division=0
    )
    guesses = np.bincount(predicted, minlength=len(classes))
    return tuple(
        ClassScore(
            name=name,
            precision=float(precision[k]) if support[k] or guesses[k] else None,
            recall=float(recall[k]) if support[k] else None,
            f1=float(f1[k]) if support[k] else None,
            support=int(support[k]),
        )
        for k, name in enumerate(classes)
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
