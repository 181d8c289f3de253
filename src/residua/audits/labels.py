"""Features, labels and groups -> likely label errors, overlapping classes, outliers of a class.

A label is predicted from images other than the image itself and its near-duplicates, in two ways:
by logistic regression, cross-validated, and by the vote of the nearest neighbours. The rank is that
of the mean of both, by the probability of the label (as confident learning: Northcutt et al. 2021,
"Confident learning: estimating uncertainty in dataset labels", section 3) and its margin.
Legend: M images, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.audits.finding import Example, Finding, counted
from residua.data.fixes import Fix
from residua.data.neighbours import nearest, reduced
from residua.data.random import Integers, uniform
from residua.transfer.logistic import (
    Floats,
    folds_of,
    new_model,
    no_convergence_warnings,
    refit,
    single_blas_thread,
)

Probabilities = npt.NDArray[np.float64]  # [M, K], rows sum to 1

DIMENSIONS = 256  # main axes of the features that are classified
C = 0.005  # of the logistic regression; features have unit variance on average
MOST = 20_000  # rows that a classifier is fitted on
PRECISION = 1e-3, 60  # tolerance, iterations
NEIGHBOURS = 10
NEIGHBOUR_WEIGHT = 0.5  # of the neighbours' vote in the combined probability
MARGIN_WEIGHT = 0.3  # of the margin to the likeliest other class, in the rank
MIN_CLASS = 3  # images, without which a class is not checked
OVERLAP = 0.1, 5  # share of two classes' images confused with each other, and their number
OUTLIER = 5.0  # robust standard deviations of the similarity to the nearest images
_RESAMPLES = 200


@dataclass(frozen=True, eq=False)
class Predictions:
    """Cross-validated predictions.

    probabilities: of the classifier, neighbours: of the vote, float64 [M, K] each.
    closeness: mean cosine similarity to the nearest images, float32 [M].
    """

    probabilities: Probabilities
    neighbours: Probabilities
    closeness: Floats

    @property
    def combined(self) -> Probabilities:
        """The weighted mean of both."""
        vote = NEIGHBOUR_WEIGHT * self.neighbours
        return vote + (1 - NEIGHBOUR_WEIGHT) * self.probabilities


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Likely label errors.

    score: float64 [M], how likely the label is right: the lower, the likelier an error.
    flagged: indices of likely errors, the likeliest first. suggested: int64 [M], the likeliest
    class. estimate, interval: number of flagged labels, with a 95 % bootstrap interval of the
    sampling error alone: where classes overlap, the number of wrong labels may be outside it
    (benchmarks/results/audit-labels.txt).
    """

    score: npt.NDArray[np.float64]
    flagged: Integers
    suggested: Integers
    estimate: float
    interval: tuple[float, float]


def predict(
    features: Floats, labels: Integers, groups: Integers, classes: int, seed: int = 0
) -> Predictions:
    """Predict each image's class without it and its group; features float32 [M, D]."""
    rows = reduced(features, min(DIMENSIONS, features.shape[1]))
    rows = rows * np.float32(rows.shape[1] ** 0.5)
    folds = folds_of(labels, [str(group) for group in groups], seed)
    probabilities = np.full((len(labels), classes), 1e-6)
    chance = uniform(seed, 0, np.arange(len(labels)), 1, "rows")[:, 0]
    with single_blas_thread(), no_convergence_warnings():
        for fold in np.unique(folds):
            train = np.flatnonzero(folds != fold)
            if len(train) > MOST:
                train = train[np.argsort(chance[train])[:MOST]]
            present = np.unique(labels[train])
            if len(present) < 2:
                continue
            model = new_model(False, PRECISION)
            refit(model, C, rows[train], labels[train])
            out = np.flatnonzero(folds == fold)
            probabilities[np.ix_(out, model.classes_)] = model.predict_proba(rows[out])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    vote, closeness = _neighbour_vote(features, labels, groups, classes)
    return Predictions(probabilities, vote, closeness)


def find_issues(predictions: Predictions, labels: Integers, seed: int = 0) -> LabelIssues:
    """Rank labels by predictions from other images; flag those that both predictions contradict.

    A label is flagged if classifier and neighbours agree on the same other class, and the
    neighbours' share of it is at least 1 - a / 2, where a is the share of labels that the
    neighbours confirm: where even these are often wrong, they must be surer.
    """
    probabilities, count = predictions.combined, len(labels)
    own = probabilities[np.arange(count), labels]
    rival = probabilities.copy()
    rival[np.arange(count), labels] = -1
    score = own + MARGIN_WEIGHT * (own - rival.max(axis=1))
    voted = predictions.neighbours.argmax(axis=1)
    least = 1 - float((voted == labels).mean()) / 2
    wrong = (voted != labels) & (predictions.probabilities.argmax(axis=1) == voted)
    wrong &= predictions.neighbours.max(axis=1) >= least
    flagged = np.flatnonzero(wrong)
    flagged = flagged[np.argsort(score[flagged], kind="stable")]
    chance = uniform(seed, 0, np.arange(_RESAMPLES), count, "bootstrap")
    drawn = [wrong[(row * count).astype(np.int64)].sum() for row in chance]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return LabelIssues(
        score, flagged, rival.argmax(axis=1), float(wrong.sum()), (float(low), float(high))
    )


def check_labels(
    predictions: Predictions,
    labels: Integers,
    classes: Sequence[str],
    paths: Sequence[str],
) -> list[Finding]:
    """Findings about labels of the images `paths`."""
    findings = []
    issues = find_issues(predictions, labels)
    outliers = _outliers(predictions.closeness, labels)
    flagged = issues.flagged[~np.isin(issues.flagged, outliers)]  # of those, the vote means little
    if len(flagged):
        names = [classes[n] for n in issues.suggested]
        findings.append(
            Finding(
                "label-errors",
                "warning",
                f"{counted(len(flagged), 'label')} likely wrong, of {len(labels):,}",
                len(flagged),
                "Check them, the likeliest first; --fix-list proposes the suggested labels.",
                tuple(Example(paths[n], f"{classes[labels[n]]} -> {names[n]}") for n in flagged),
                tuple(Fix(paths[n], "relabel", names[n], "likely wrong label") for n in flagged),
            )
        )
    findings += _overlaps(predictions.combined, labels, classes)
    if len(outliers):
        findings.append(
            Finding(
                "outliers",
                "note",
                f"{counted(len(outliers), 'image')} unlike all others of the data set",
                len(outliers),
                "Check that they show what the class means.",
                tuple(Example(paths[n], classes[labels[n]]) for n in outliers),
            )
        )
    return findings


def _neighbour_vote(
    features: Floats, labels: Integers, groups: Integers, classes: int
) -> tuple[Probabilities, Floats]:
    """The classes of the nearest images of other groups, and the mean similarity to these."""
    vectors = reduced(features, min(DIMENSIONS, features.shape[1]))
    count = min(NEIGHBOURS + 5, max(len(labels) - 1, 1))
    indices, similarities = nearest(vectors, vectors, count)
    usable = (indices >= 0) & (groups[indices] != groups[:, None])
    usable &= np.cumsum(usable, axis=1) <= NEIGHBOURS
    votes = np.where(usable, np.maximum(similarities, 0) ** 2, 0).astype(np.float64)
    shares = np.full((len(labels), classes), 0.1 / classes)
    np.add.at(shares, (np.arange(len(labels))[:, None], labels[indices]), votes)
    number = np.maximum(usable.sum(axis=1), 1)
    closeness = np.where(usable, similarities, 0).sum(axis=1) / number
    return shares / shares.sum(axis=1, keepdims=True), closeness.astype(np.float32)


def _overlaps(
    probabilities: Probabilities, labels: Integers, classes: Sequence[str]
) -> list[Finding]:
    """Pairs of classes that are confused with each other."""
    count = len(classes)
    predicted = probabilities.argmax(axis=1)
    matrix = np.bincount(labels * count + predicted, minlength=count**2).reshape(count, count)
    confused = np.triu(matrix + matrix.T, 1)
    sizes = matrix.sum(axis=1)
    share = confused / np.maximum(sizes[:, None] + sizes[None, :], 1)
    overlapping = np.argwhere((share >= OVERLAP[0]) & (confused >= OVERLAP[1])).tolist()
    return [
        Finding(
            "overlapping-classes",
            "warning",
            f"{classes[a]} and {classes[b]} overlap: {share[a, b]:.0%} of their images are "
            "predicted as the other class",
            int(confused[a, b]),
            "Define what separates them, merge them, or add images that show the difference.",
        )
        for a, b in sorted(overlapping, key=lambda pair: -share[tuple(pair)])
    ]


def _outliers(closeness: Floats, labels: Integers) -> Integers:
    """Images far less similar to their nearest images than is usual in their class."""
    found = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        values = closeness[members]
        middle = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - middle))
        if len(members) >= 10:
            found.append(members[values < middle - OUTLIER * max(spread, 0.02)])
    joined = np.concatenate([np.zeros(0, np.int64), *found])
    return joined[np.argsort(closeness[joined], kind="stable")]
