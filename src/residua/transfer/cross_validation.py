"""Features of several layers and labels -> the best layer, its regularisation, its accuracy.

Independent of files, images and torch.
Legend: N rows, D features, K classes, S values of C, M configurations (layer, C).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureRows
from residua.inference.logistic import (
    SampleWeights,
    StandardRows,
    check,
    class_weights,
    folds_of,
    single_blas_thread,
)
from residua.inference.regressions import Floats, Labels, Regressions
from residua.transfer.expected_accuracy import Estimate, estimate
from residua.transfer.result import LayerResult
from residua.uncertainty.softmax import log_softmax

C_VALUES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of LogisticRegression, the smoothest first
_PRECISION = 5e-4, 60  # tolerance, iterations: starting from the solution of the last C
_MAX_LOSS = 30.0  # nats, of a row: a probability of 0 must not outweigh all others
_NEIGHBOUR_BLOCK = 2048  # rows whose neighbours are searched at once
_HOPELESS = 0.6  # of the highest accuracy: no layer below it was the best of any data set tried
_SHORT = 2.0  # seconds, that all layers may take for a value of C after the deadline
_HALVED = 4  # contents of a class, the fewest that are halved
_HALF = 0.6  # of the rows, that half of each class may be at most


@dataclass(frozen=True, eq=False)
class ProbeScores:
    """Predictions of linear probes for rows that they were not trained on, at each value of C.

    correct: bool [N, S]. loss: float64 [N, S], nats, weighted as the probes are.
    evaluated: bool [N], False where no other fold has the row's class, so no probe can predict it.
    abandoned: whether larger values of C were not tried, as another layer is better in any case, or
    time ran out.
    log_probabilities: float32 [N, K] at the best C, at least -_MAX_LOSS, as for a class that the
    other folds lack.
    """

    correct: npt.NDArray[np.bool_]
    loss: npt.NDArray[np.float64]
    evaluated: npt.NDArray[np.bool_]
    abandoned: bool
    log_probabilities: Floats

    @property
    def best(self) -> int:
        """Index of the C with the smallest mean loss; of equals the smaller C."""
        return int(self.loss.mean(axis=0).argmin())

    @property
    def c(self) -> float:
        """The best C."""
        return C_VALUES[self.best]

    @property
    def mean_loss(self) -> float:
        """At the best C, nats."""
        return float(self.loss[:, self.best].mean())

    @property
    def accuracy(self) -> float:
        """At the best C; slightly optimistic, see `estimate`."""
        correct = self.correct[self.evaluated, self.best]
        return float(correct.mean()) if len(correct) else 0.0


@dataclass(frozen=True, eq=False)
class LayerScore:
    """A feature layer with `dimension` features, its probes, and the accuracy of its neighbours."""

    layer: FeatureLayer
    dimension: int
    probes: ProbeScores
    neighbours: float

    @property
    def result(self) -> LayerResult:
        """The score as a row of transfer.json."""
        return LayerResult(
            stage=self.layer.stage,
            pool_size=self.layer.pool_size,
            earlier_pools=self.layer.earlier_pools,
            features=self.dimension,
            accuracy=self.probes.accuracy,
            neighbours=self.neighbours,
            c=self.probes.c,
            loss=self.probes.mean_loss,
            abandoned=self.probes.abandoned,
        )


@dataclass(frozen=True, eq=False)
class Targets:
    """The labels that probes of N rows predict, and the weights of the rows.

    labels: int64 [N] in 0..classes-1. balanced, weights: see `fit_logistic`.
    contents: a key of each row; rows of equal keys share a fold. seed: of folds and bootstrap.
    """

    labels: Labels
    classes: int
    balanced: bool = False
    weights: SampleWeights | None = None
    contents: Sequence[str] = ()
    seed: int = 0

    def take(self, rows: Integers) -> Targets:
        """Those of some rows."""
        return replace(
            self,
            labels=self.labels[rows],
            weights=None if self.weights is None else self.weights[rows],
            contents=[self.contents[row] for row in rows.tolist()],
        )


def score_layers(
    rows: FeatureRows,
    targets: Targets,
    *,
    report: Callable[[int, int], None] | None = None,
    threads: int = 1,
    deadline: float | None = None,
) -> tuple[list[LayerScore], Estimate | None]:
    """Cross-validate every layer on the same folds; targets: of the rows. deadline: see `race`.

    The estimate is of the layer and C that will be chosen; None if no class has two images. Raises
    ResiduaError if there is nothing to cross-validate.
    """
    labels, contents, seed = targets.labels, targets.contents, targets.seed
    folds, layers = folds_of(labels, contents, seed), sorted(rows.values)
    features = [rows.values[layer] for layer in layers]
    probes = race(features, targets, folds, report=report, threads=threads, deadline=deadline)
    scores = [
        LayerScore(layer, values.shape[1], probe, float(neighbours(values, labels, folds).mean()))
        for layer, values, probe in zip(layers, features, probes, strict=True)
    ]
    correct = np.concatenate([probe.correct for probe in probes], axis=1)
    loss = np.concatenate([probe.loss for probe in probes], axis=1)
    evaluated = probes[0].evaluated
    if not evaluated.any():
        return scores, None
    groups = np.unique(contents, return_inverse=True)[1]
    best, gain = best_layer(scores), 0.0
    if deadline is None or time.monotonic() < deadline:
        gain = measured_gain(rows.values[best.layer], targets, folds, best.probes, threads=threads)
    return scores, estimate(correct[evaluated], loss[evaluated], seed, groups[evaluated], gain)


def best_layer(scores: Sequence[LayerScore]) -> LayerScore:
    """The smallest cross-validated loss; of equals the later stage."""
    return min(scores, key=lambda score: (score.probes.mean_loss, -score.layer.stage))


def race(
    features: Sequence[Floats],
    targets: Targets,
    folds: Labels,
    *,
    report: Callable[[int, int], None] | None = None,
    threads: int = 1,
    deadline: float | None = None,
) -> list[ProbeScores]:
    """Evaluate each row by probes fitted on the other folds, at each C; features [N, D] each.

    Features are standardised once, on all rows, which uses no label. As C grows the loss falls,
    ever more slowly, and then rises. A layer whose loss rises is complete; one that could not
    become the best even if its loss fell further at the last rate is abandoned, and one of far
    lower accuracy.
    report: called after each C. threads: that fit concurrently. deadline: time.monotonic() after
    which no further C is tried if one takes longer than _SHORT. Raises ResiduaError as
    `fit_logistic`.
    """
    for values in features:
        check(values, targets.labels, targets.classes)
    if len(np.unique(folds)) < 2:
        raise ResiduaError(
            f"All {len(folds)} images are in one fold, so none can be left out: "
            "cross-validation needs at least two different images."
        )
    with single_blas_thread(), ThreadPoolExecutor(threads) as pool:
        paths = list(pool.map(lambda values: _Path(values, targets, folds), features))
        for index in range(len(C_VALUES)):
            began, running = time.monotonic(), [path for path in paths if not path.ended]
            tasks = [(path, folds) for path in running for folds in path.regressions.blocks]
            tasks.sort(key=lambda task: task[0].regressions.rows.shape[1], reverse=True)  # longest
            list(pool.map(lambda task, index=index: task[0].evaluate(task[1], index), tasks))
            for path in running:
                path.complete(index)
            lowest = min(float(path.means.min()) for path in paths)
            highest = max(path.accuracy(index) for path in paths)
            is_late = deadline is not None and time.monotonic() > max(deadline, began + _SHORT)
            for path in running:
                path.end_if_decided(index, lowest, highest)
                if is_late and not path.ended and index + 1 < len(C_VALUES):
                    path.end(index, abandoned=True)
            if report:
                report(index + 1, len(C_VALUES))
    return [
        ProbeScores(path.correct, path.loss, path.evaluated, path.abandoned, path.best)
        for path in paths
    ]


class _Path:
    """The regularisation path of one layer, from the smallest C on; see ProbeScores.

    means: mean losses, [S], infinite where not yet known. ended: whether no larger C is tried.
    current, best: log-probabilities [N, K] at the last C, and at the best so far.
    """

    def __init__(self, features: Floats, targets: Targets, folds: Labels) -> None:
        labels, classes, balanced = targets.labels, targets.classes, targets.balanced
        self.labels = labels
        self.weights = np.ones(len(labels)) if targets.weights is None else targets.weights
        fitted, self.left_out = [], []
        self.evaluated = np.zeros(len(labels), np.bool_)
        self.current = np.full((len(labels), classes), -_MAX_LOSS, np.float32)
        correct = np.zeros(len(labels), np.bool_)
        for fold in np.unique(folds):
            train, left_out = folds != fold, np.flatnonzero(folds == fold)
            present = np.unique(labels[train])
            left_out = left_out[np.isin(labels[left_out], present)]
            self.evaluated[left_out] = True
            if len(present) < 2:
                correct[left_out] = True  # there is only one class to predict
                self.current[np.ix_(left_out, present)] = 0.0
            elif len(left_out):
                of_fold = np.zeros(len(labels))
                of_fold[train] = class_weights(labels[train]) if balanced else 1.0
                fitted.append(of_fold * self.weights)
                self.left_out.append(left_out)
        if balanced:
            self.weights = self.weights * class_weights(labels)
        shape = len(labels), len(C_VALUES)
        self.correct = np.repeat(correct[:, None], len(C_VALUES), axis=1)
        self.loss = np.full(shape, np.log(classes)) * self.weights[:, None]
        self.ended = self.abandoned = False
        self.means = np.full(len(C_VALUES), np.inf)
        self.best = self.current
        rows = StandardRows.of(features).reduced.astype(np.float32)
        self.regressions = Regressions(rows, labels, classes, fitted)
        self.rows = self.regressions.rows[:, :-1]  # without the constant

    def evaluate(self, folds: slice, index: int) -> None:
        """Fit some folds for a value of C, and predict the rows that they leave out."""
        self.regressions.fit_block(folds, C_VALUES[index], *_PRECISION)
        for fold in range(folds.start, folds.stop):
            rows = self.left_out[fold]
            log_probabilities = log_softmax(self.regressions.logits(fold, self.rows[rows]))
            true = log_probabilities[np.arange(len(rows)), self.labels[rows]]
            self.correct[rows, index] = log_probabilities.argmax(axis=1) == self.labels[rows]
            self.loss[rows, index] = -np.maximum(true, -_MAX_LOSS) * self.weights[rows]
            self.current[rows] = np.maximum(log_probabilities, -_MAX_LOSS)

    def complete(self, index: int) -> None:
        """Note the losses of all folds for a value of C."""
        self.means[index] = self.loss[:, index].mean()
        if self.means[index] < min(self.means[:index], default=np.inf):
            self.best = self.current.copy()

    def accuracy(self, index: int) -> float:
        """At a value of C."""
        return float(np.average(self.correct[:, index], weights=self.weights))

    def end_if_decided(self, index: int, lowest: float, highest: float) -> None:
        """End the path if a larger C is worse or cannot win. lowest: mean loss of any path.
        highest: accuracy of any at this C."""
        falls = -np.diff(self.means[: index + 1])  # from each C to the next
        remaining = len(C_VALUES) - 1 - index
        rises = index > 0 and falls[-1] < 0
        slows = index > 1 and falls[-1] < falls[-2]
        cannot_win = slows and self.means[index] - remaining * falls[-1] > lowest
        noise = len(self.labels) ** -0.5  # two standard errors at most
        is_hopeless = index > 0 and self.accuracy(index) < _HOPELESS * highest - noise
        if rises or cannot_win or (is_hopeless and self.means[index] > lowest):
            self.end(index, abandoned=not rises)

    def end(self, index: int, *, abandoned: bool) -> None:
        """End the path at this C: the results of larger ones count as worse."""
        self.ended, self.abandoned = True, abandoned
        self.correct[:, index + 1 :] = self.correct[:, index, None]
        self.loss[:, index + 1 :] = self.loss[:, index, None] + 1.0


def measured_gain(
    features: Floats, targets: Targets, folds: Labels, probes: ProbeScores, *, threads: int = 1
) -> float:
    """The accuracy that a head on all rows clearly has above `probes`, each without a fold.

    Probes at the best C are fitted on half of each class, and the error is extrapolated as
    a + b / sqrt(rows). The result is less by its standard error, and at least 0; 0 where most
    classes have too few images to halve.
    """
    kept = _half(targets)
    if kept.mean() > _HALF:
        return 0.0
    weights = np.where(kept, 1.0 if targets.weights is None else targets.weights, 0.0)
    with single_blas_thread(), ThreadPoolExecutor(threads) as pool:
        path = _Path(features, replace(targets, weights=weights), folds)
        blocks = path.regressions.blocks
        for index in range(max(0, probes.best - 1), probes.best + 1):  # a solution to start from
            list(pool.map(lambda block, index=index: path.evaluate(block, index), blocks))
    fold = 1 - 1 / len(np.unique(folds))  # share of all rows that a probe is fitted on
    evaluated = probes.evaluated & path.evaluated
    if not evaluated.any():
        return 0.0
    with_all, with_half = (each.correct[evaluated, probes.best] for each in (probes, path))
    gained = with_all.astype(np.float64) - with_half
    half = fold * kept.mean()
    factor = (fold**-0.5 - 1) / (half**-0.5 - fold**-0.5)
    noise = math.sqrt(float(np.square(gained).sum())) / len(gained)
    return max(0.0, float(factor * (gained.mean() - noise)))


def _half(targets: Targets) -> npt.NDArray[np.bool_]:
    """The rows of half of the contents of each class, all of a class of fewer than _HALVED; bool
    [N], a function of the contents, whatever their order."""
    contents_of: dict[int, set[str]] = {}
    for label, content in zip(targets.labels.tolist(), targets.contents, strict=True):
        contents_of.setdefault(label, set()).add(content)
    left_out = {
        (label, content)
        for label, contents in contents_of.items()
        if len(contents) >= _HALVED
        for content in sorted(contents)[1::2]
    }
    rows = zip(targets.labels.tolist(), targets.contents, strict=True)
    return np.array([row not in left_out for row in rows], np.bool_)


def neighbours(
    features: Floats, labels: Labels, folds: Labels, count: int = 10
) -> npt.NDArray[np.bool_]:
    """Whether the `count` nearest rows of other folds predict the label; bool [N].

    Cosine similarity; a vote counts its similarity, a negative one 0; ties go to the lower label.
    A row of zeros is similar to none.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    targets = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    correct = np.zeros(len(labels), np.bool_)
    for start in range(0, len(labels), _NEIGHBOUR_BLOCK):
        block = slice(start, start + _NEIGHBOUR_BLOCK)
        similarity = unit[block] @ unit.T
        similarity[folds[block, None] == folds] = -1
        nearest = np.argpartition(similarity, -min(count, len(labels)), axis=1)[:, -count:]
        votes = np.maximum(np.take_along_axis(similarity, nearest, axis=1), 0)
        sums = np.einsum("nc,nck->nk", votes, targets[nearest])
        correct[block] = (sums.argmax(axis=1) == labels[block]) & (sums.max(axis=1) > 0)
    return correct
