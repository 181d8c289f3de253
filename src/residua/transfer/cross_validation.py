"""Features and labels -> how well linear heads did on rows left out, at several strengths.

Knows no files, no images and no torch. Legend: N rows, D features, S strengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError
from residua.evaluation.metrics import log_softmax
from residua.transfer.logistic import (
    Floats,
    Labels,
    Plane,
    check,
    class_weights,
    one_thread,
    regression,
    solve,
    unwarned,
)

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of LogisticRegression: small is smooth
_JUDGED = 1e-3, 60  # tolerance, iterations: from where a smoother one ended
_LARGEST_LOSS = 30.0  # nats, of one row: a chance of 0 must not outweigh all others


@dataclass(frozen=True, eq=False)
class Probe:
    """What heads said of rows that they had not seen, at each strength.

    right: bool [N, S]; loss: float64 [N, S], nats, weighed by class where the heads are balanced.
    judged: bool [N], False where no other fold has the row's class, so that no head could be right.
    followed: whether the best strength was reached; another path was better in any case, if not.
    """

    strengths: tuple[float, ...]
    right: npt.NDArray[np.bool_]
    loss: npt.NDArray[np.float64]
    judged: npt.NDArray[np.bool_]
    followed: bool

    @property
    def best(self) -> int:
        """Index of the strength with the smallest mean loss; the smoother one of equals."""
        return int(self.loss.mean(axis=0).argmin())

    @property
    def accuracy(self) -> float:
        """Share of right answers at the best strength; a little flattering, see `estimate`."""
        right = self.right[self.judged, self.best]
        return float(right.mean()) if len(right) else 0.0


def probe(
    features: Floats,
    labels: Labels,
    classes: int,
    folds: Labels,
    *,
    balanced: bool = False,
) -> Probe:
    """Cross-validation: each row judged by heads fitted on the other folds, at each strength.

    Features are standardised once, on all rows, which tells nothing of a label. Raises ResiduaError
    as `fit` does.
    """
    return race([features], labels, classes, folds, balanced=balanced)[0]


def race(
    features: Sequence[Floats],
    labels: Labels,
    classes: int,
    folds: Labels,
    *,
    balanced: bool = False,
    report: Callable[[int, int], None] | None = None,
    threads: int = 1,
) -> list[Probe]:
    """`probe` of several features of the same rows, each [N, D], as far as each is of interest.

    Losses fall with the strength, less and less, and then rise. One that rises goes no further, nor
    does one that could not become the lowest any more if it went on falling as it just did. report:
    is told of each strength. threads: fits at once. Raises ResiduaError as `fit` does.
    """
    for each in features:
        check(each, labels, classes)
    if len(np.unique(folds)) < 2:
        raise ResiduaError(
            f"All {len(labels)} images are in one fold, so none can be left out: "
            "cross-validation needs at least two different images."
        )
    with one_thread(), unwarned(), ThreadPoolExecutor(threads) as pool:
        paths = list(pool.map(lambda each: _Path(each, labels, classes, folds, balanced), features))
        for index, strength in enumerate(STRENGTHS):
            going = [each for each in paths if not each.ended]
            asked = [(path, fold) for path in going for fold in path.folds]
            judged = list(pool.map(partial(_judged, strength), asked))
            for (path, fold), found in zip(asked, judged, strict=True):
                path.take(index, fold, *found)
            for path in going:
                path.means[index] = path.loss[:, index].mean()
            lowest = min(float(path.means.min()) for path in paths)
            for path in going:
                path.stop(index, lowest)
            if report:
                report(index + 1, len(STRENGTHS))
    return [Probe(STRENGTHS, each.right, each.loss, each.judged, each.followed) for each in paths]


@dataclass(frozen=True, eq=False)
class _Fold:
    """A head that learns from the rows `train`, bool [N], and judges the rows `left`, numbers.

    It goes on from where it ended with a smaller strength.
    """

    model: Any
    train: npt.NDArray[np.bool_]
    left: Labels


class _Path:
    """Features and their heads from the smallest strength on; right, loss, judged: see Probe.

    ended: whether rougher heads are of no interest any more; followed: see Probe. means: of the
    losses, [S], infinite where there are none yet.
    """

    def __init__(
        self, features: Floats, labels: Labels, classes: int, folds: Labels, balanced: bool
    ) -> None:
        self.labels, self.rows = labels, Plane.of(features).rows.astype(np.float32)
        self.weights = class_weights(labels) if balanced else np.ones(len(labels))
        shape = len(labels), len(STRENGTHS)
        self.right = np.zeros(shape, np.bool_)
        self.loss = np.full(shape, np.log(classes)) * self.weights[:, None]
        self.judged = np.zeros(len(labels), np.bool_)
        self.ended, self.followed = False, True
        self.means = np.full(len(STRENGTHS), np.inf)
        self.folds: list[_Fold] = []
        for fold in np.unique(folds):
            train, left = folds != fold, np.flatnonzero(folds == fold)
            known = np.unique(labels[train])
            left = left[np.isin(labels[left], known)]  # nobody knows a class of this fold alone
            self.judged[left] = True
            if len(known) < 2:
                self.right[left] = True  # the only class that is known
            elif len(left):
                self.folds.append(_Fold(regression(balanced, _JUDGED), train, left))

    def take(
        self,
        index: int,
        fold: _Fold,
        right: npt.NDArray[np.bool_],
        loss: npt.NDArray[np.float64],
    ) -> None:
        """What a fold's head said of the rows that it left out."""
        self.right[fold.left, index] = right
        self.loss[fold.left, index] = loss * self.weights[fold.left]

    def stop(self, index: int, lowest: float) -> None:
        """End here if rougher heads are worse, or too bad. lowest: mean loss of any path."""
        fallen = -np.diff(self.means[: index + 1])  # by which each strength was better
        to_come = len(STRENGTHS) - 1 - index
        rises = index > 0 and fallen[-1] < 0
        late = index > 1 and fallen[-1] < fallen[-2]
        if rises or (late and self.means[index] - to_come * fallen[-1] > lowest):
            self.ended, self.followed = True, bool(rises)
            self.right[:, index + 1 :] = self.right[:, index, None]
            self.loss[:, index + 1 :] = self.loss[:, index, None] + 1.0


def _judged(
    strength: float, asked: tuple[_Path, _Fold]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Right answers and losses in nats on the rows that a fold leaves out."""
    path, fold = asked
    solve(fold.model, strength, path.rows[fold.train], path.labels[fold.train])
    scores = fold.model.decision_function(path.rows[fold.left])
    if scores.ndim == 1:  # of two classes it gives the second's alone
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    chances = log_softmax(scores)
    place = np.searchsorted(fold.model.classes_, path.labels[fold.left])
    own = chances[np.arange(len(place)), place]
    return chances.argmax(axis=1) == place, -np.maximum(own, -_LARGEST_LOSS)
