"""Features, labels and groups -> likely label errors, overlapping classes, outliers of a class.

A label is predicted from images other than the image itself and its near-duplicates, in two ways:
by logistic regression, cross-validated, and by the vote of the nearest neighbours. How many labels
are wrong is estimated as the disagreement that remains where the mean of both is most confident
(uncertainty/label_noise.py). They are ranked by the probability of the label, its margin, and which
classes are mistaken for which (Northcutt et al. 2021, "Confident learning: estimating uncertainty
in dataset labels", section 3, counts these too).
The last counts as far as the errors of a class go to one other class: where they are spread evenly,
the counts are chance, or show classes that overlap. Labels of a class that predictions contradict
more often than not are not checked: the features do not show the class, or nearly all of it is
wrong, and both look the same (section 2.1 there assumes that each class is mostly right).
Legend: M images, K classes, D features on their main axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.audits.finding import EXAMPLES, Example, Finding
from residua.data.fixes import Fix
from residua.data.neighbours import nearest
from residua.data.random import Integers, uniform
from residua.inference.logistic import folds_of, single_blas_thread
from residua.inference.regressions import Floats, Regressions
from residua.system.words import agreeing, counted, percent
from residua.uncertainty.label_noise import wrong_share
from residua.uncertainty.ranks import average_ranks
from residua.uncertainty.softmax import softmax

Probabilities = npt.NDArray[np.float64]  # [M, K], rows sum to 1

C = 0.01  # of the logistic regression; features have unit variance on average
MOST = 20_000  # rows that a classifier is fitted on
PRECISION = 1e-3, 60  # tolerance, iterations
NEIGHBOURS = 10
NEIGHBOUR_WEIGHT = 0.4  # of the neighbours' vote in the combined probability
MARGIN_WEIGHT = 0.15  # of the margin to the likeliest other class, in the rank
REVIEW = 2.5, 0.03  # number and share of labels, from which on those that may be wrong are listed
COMMON = 1 / 2  # of the predictions: to count which class is mistaken for which
PRIOR_IMAGES = 10  # that the assumption of errors to all classes alike counts as, for each class
MIN_CLASS = 3  # images, without which a class is not checked
OVERLAP = 0.1, 5  # share of two classes' images confused with each other, and their number
OUTLIER = 5.0  # robust standard deviations of the similarity to the nearest images


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
    contradicted: indices of images predicted as another class, those of the lowest score first.
    suggested: int64 [M], the likeliest class. estimate, interval: number of wrong labels, beyond
    the errors of the predictions, and its 95 % interval. checked: bool [M], False for labels of the
    classes that most predictions contradict, which are in neither `contradicted` nor the estimate.
    """

    score: npt.NDArray[np.float64]
    contradicted: Integers
    suggested: Integers
    estimate: float
    interval: tuple[float, float]
    checked: npt.NDArray[np.bool_]

    @property
    def are_likely(self) -> bool:
        """Whether errors of the predictions do not explain all contradicted labels."""
        return self.interval[0] > 0

    @property
    def flagged(self) -> Integers:
        """Indices of likely errors, the likeliest first; if there may be some, of as many as there
        are at most."""
        if self.are_likely:
            return self.contradicted[: max(1, round(self.estimate))]
        most = self.interval[1]
        count = int(self.checked.sum())
        may_be = self.estimate >= 0.5 or most >= max(REVIEW[0], REVIEW[1] * count)
        return self.contradicted[: round(most) if may_be else 0]


def predict(
    features: Floats, labels: Integers, groups: Integers, classes: int, seed: int = 0
) -> Predictions:
    """Predict each image's class without it and its group.

    features: float32 [M, D], of unit length, as `main_axes` returns them.
    """
    rows = features * np.float32(features.shape[1] ** 0.5)
    folds = folds_of(labels, [str(group) for group in groups], seed)
    probabilities = np.full((len(labels), classes), 1e-6)
    chance = uniform(seed, 0, np.arange(len(labels)), 1, "rows")[:, 0]
    with single_blas_thread():
        for fold in np.unique(folds):
            train = np.flatnonzero(folds != fold)
            if len(train) > MOST:
                train = train[np.argsort(chance[train])[:MOST]]
            if len(np.unique(labels[train])) < 2:
                continue
            regressions = Regressions(rows[train], labels[train], classes, [np.ones(len(train))])
            regressions.fit(C, *PRECISION)
            out = np.flatnonzero(folds == fold)
            probabilities[out] = np.maximum(softmax(regressions.logits(0, rows[out])), 1e-6)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    vote, closeness = _neighbour_vote(features, labels, groups, classes)
    return Predictions(probabilities, vote, closeness)


def find_issues(
    predictions: Predictions,
    labels: Integers,
    margins: npt.NDArray[np.float64] | None = None,
    groups: Integers | None = None,
) -> LabelIssues:
    """Rank labels by predictions from other images, and estimate how many are wrong.

    margins: float64 [M] of a training on these labels; NaN: not trained on. The score is then the
    mean of both ranks. groups: int64 [M], of copies, each of which counts as one image in the
    estimate; None: none.
    """
    probabilities, every = predictions.combined, np.arange(len(labels))
    predicted = probabilities.argmax(axis=1)
    rival = probabilities.copy()
    rival[every, labels] = -1
    own = probabilities[every, labels]
    margin = own - rival.max(axis=1)
    confusion, concentration = _confusion(probabilities, labels)
    given = probabilities * confusion[:, labels].T
    posterior = given[every, labels] / given.sum(axis=1)
    score = (own + MARGIN_WEIGHT * margin) / (1 + MARGIN_WEIGHT) + concentration * posterior
    if margins is not None:
        score = _mean_rank(score, margins)
    order = np.argsort(score, kind="stable")
    _, group, sizes = np.unique(
        every if groups is None else groups, return_inverse=True, return_counts=True
    )
    is_right, weights = predicted == labels, 1 / sizes[group]
    checked = (2 * np.bincount(labels, is_right) >= np.bincount(labels))[labels]
    count = int(checked.sum())
    share, (low, high) = (
        wrong_share(probabilities[checked], labels[checked], weights[checked])
        if count
        else (0.0, (0.0, 0.0))
    )
    return LabelIssues(
        score,
        order[~is_right[order] & checked[order]],
        rival.argmax(axis=1),
        share * count,
        (low * count, high * count),
        checked,
    )


def _confusion(
    probabilities: Probabilities, labels: Integers
) -> tuple[npt.NDArray[np.float64], float]:
    """Probabilities [j, k] that an image of class j has the label k, from sure predictions; and how
    concentrated errors are: 0 if those of a class are spread evenly over the others, 1 if all have
    the same label.
    """
    classes, sure = probabilities.shape[1], _surest(probabilities, COMMON)
    predicted = probabilities[sure].argmax(axis=1)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (predicted, labels[sure]), 1)
    share = max(float((predicted != labels[sure]).mean()), 1e-3)
    prior = np.full((classes, classes), share / max(classes - 1, 1))
    np.fill_diagonal(prior, 1 - share)
    confusion = counts + PRIOR_IMAGES * prior
    errors = counts - np.diag(np.diag(counts))
    return confusion / confusion.sum(axis=1, keepdims=True), _concentration(errors)


def _concentration(errors: npt.NDArray[np.float64]) -> float:
    """Of errors [K, K] by class and label: the share of pairs of errors of a class that have the
    same label (Simpson 1949, "Measurement of diversity"), 0 at the share by chance."""
    pairs = errors.sum(axis=1) * (errors.sum(axis=1) - 1)
    if len(errors) < 3 or not pairs.any():
        return 0.0
    chance = 1 / (len(errors) - 1)
    alike = float((errors * (errors - 1)).sum() / pairs.sum())
    return max(0.0, (alike - chance) / (1 - chance))


def _mean_rank(
    score: npt.NDArray[np.float64], margins: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The mean rank by score and margin, 0..1; by score alone where the margin is NaN."""
    known = np.isfinite(margins)
    ranks = average_ranks(score) / len(score)
    by_margin = ranks.copy()
    by_margin[known] = average_ranks(margins[known]) / max(int(known.sum()), 1)
    return np.asarray((ranks + by_margin) / 2)


def _surest(probabilities: Probabilities, share: float) -> Integers:
    """Indices of this share of the images, those with the highest probability of any class."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    return order[: max(1, round(share * len(order)))]


def check_labels(
    predictions: Predictions,
    labels: Integers,
    classes: Sequence[str],
    paths: Sequence[str],
    alike: Integers,
    margins: npt.NDArray[np.float64] | None = None,
) -> list[Finding]:
    """Findings about labels of the images `paths`. alike: a group of each, int64 [M], of copies.
    margins: see `find_issues`."""
    findings = []
    issues = find_issues(predictions, labels, margins, alike)
    outliers = _outliers(predictions.closeness, labels)
    flagged = issues.flagged[~np.isin(issues.flagged, outliers)]  # of those, the vote means little
    flagged, suggested = _alike(flagged, predictions.combined, labels, alike)
    if len(flagged):
        names = [classes[n] for n in suggested]
        low, high = issues.interval
        are_likely, number = issues.are_likely, counted(len(flagged), "label")
        total = int(issues.checked.sum())
        title = (
            f"{number} likely wrong, of {total:,} (estimated number: {max(low, 1):.0f} to "
            f"{high:.0f})"
            if are_likely
            else f"{number} that predictions contradict: that may be label errors (0 to {high:.0f} "
            f"of {total:,}) or errors of the predictions"
        )
        fixes = [Fix(paths[n], "relabel", names[n], "likely wrong label") for n in flagged]
        findings.append(
            Finding(
                "label-errors",
                "warning" if are_likely else "note",
                title,
                len(flagged),
                agreeing(len(flagged), "Check it", "Check them, the likeliest first")
                + ("; the fix list has the suggested labels." if are_likely else "."),
                tuple(Example(paths[n], f"{classes[labels[n]]} -> {names[n]}") for n in flagged),
                tuple(fixes) if are_likely else (),
            )
        )
    findings += _unchecked(issues.checked, predictions.combined, labels, classes)
    findings += _overlaps(predictions.combined, labels, classes)
    if len(outliers):
        findings.append(
            Finding(
                "outliers",
                "note",
                f"{counted(len(outliers), 'image')} unlike all others of the data set",
                len(outliers),
                f"Check that {agreeing(len(outliers), 'it shows', 'they show')} the class.",
                tuple(Example(paths[n], classes[labels[n]]) for n in outliers),
            )
        )
    return findings


def _unchecked(
    checked: npt.NDArray[np.bool_],
    probabilities: Probabilities,
    labels: Integers,
    names: Sequence[str],
) -> list[Finding]:
    """One finding about the classes whose labels predictions mostly contradict, or none."""
    wrong = probabilities.argmax(axis=1) != labels
    shares = [
        f"{names[n]} ({int(wrong[labels == n].sum()):,} of {int((labels == n).sum()):,})"
        for n in np.unique(labels[~checked])
    ]
    if not shares:
        return []
    shown = ", ".join(shares[:EXAMPLES]) + (", ..." if shares[EXAMPLES:] else "")
    them = agreeing(len(shares), "Its", "Their")
    return [
        Finding(
            "unchecked-labels",
            "note",
            f"Predictions contradict most labels of {counted(len(shares), 'class', 'classes')}: "
            f"{shown}",
            len(shares),
            f"{them} labels were not checked. The features may not show what the "
            f"{agreeing(len(shares), 'class is', 'classes are')}: small details, for example, need "
            "fine-tuning or larger images.",
            details=tuple(shares) if shares[EXAMPLES:] else (),
        )
    ]


def _alike(
    flagged: Integers, probabilities: Probabilities, labels: Integers, alike: Integers
) -> tuple[Integers, Integers]:
    """Likely errors, and the suggested class of each image: one for all copies of an image.

    Where copies have different labels, one of these labels is suggested. Where an image is flagged,
    so are its copies, unless they have the suggested label already.
    """
    group = np.unique(alike, return_inverse=True)[1]
    count, classes = int(group.max()) + 1, probabilities.shape[1]
    total, present = np.zeros((count, classes)), np.zeros((count, classes), np.bool_)
    np.add.at(total, group, probabilities)
    present[group, labels] = True
    contradicts = present.sum(axis=1, keepdims=True) > 1
    suggested = np.where(contradicts & ~present, -1, total).argmax(axis=1)[group]
    rank = np.full(count, len(flagged))
    np.minimum.at(rank, group[flagged], np.arange(len(flagged)))
    rows = np.flatnonzero((rank[group] < len(flagged)) & (suggested != labels))
    return rows[np.argsort(rank[group[rows]], kind="stable")], suggested


def _neighbour_vote(
    features: Floats, labels: Integers, groups: Integers, classes: int
) -> tuple[Probabilities, Floats]:
    """The classes of the nearest images of other groups, and the mean similarity to these."""
    count = min(NEIGHBOURS + 5, max(len(labels) - 1, 1))
    indices, similarities = nearest(features, features, count)
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
    """One finding about the pairs of classes that are confused with each other, or none."""
    count = len(classes)
    predicted = probabilities.argmax(axis=1)
    matrix = np.bincount(labels * count + predicted, minlength=count**2).reshape(count, count)
    confused = np.triu(matrix + matrix.T, 1)
    sizes = matrix.sum(axis=1)
    share = confused / np.maximum(sizes[:, None] + sizes[None, :], 1)
    overlapping = np.argwhere((share >= OVERLAP[0]) & (confused >= OVERLAP[1])).tolist()
    if not overlapping:
        return []
    pairs = [
        (f"{classes[a]} and {classes[b]}", percent(share[a, b]))
        for a, b in sorted(overlapping, key=lambda pair: -share[tuple(pair)])
    ]
    (names, most), several = pairs[0], len(pairs) > 1
    predictions = f"{most} of their images are predicted as the other class"
    return [
        Finding(
            "overlapping-classes",
            "warning",
            f"{len(pairs)} pairs of classes overlap, most of all {names}: {predictions}"
            if several
            else f"{names} overlap: {predictions}",
            sum(int(confused[a, b]) for a, b in overlapping),
            "Define what separates them, merge them, or add images that show the difference.",
            details=tuple(f"{pair}: {value}" for pair, value in pairs) if several else (),
        )
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
