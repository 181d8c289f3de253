"""Features and labels of known images -> a detector of images that belong to no known class.

Legend: N images, D features, K classes, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from residua.data.random import shuffled
from residua.system.words import joined
from residua.uncertainty.quantiles import conformal_quantile
from residua.uncertainty.ranks import area_under_roc
from residua.uncertainty.temperature import group_folds
from residua.uncertainty.unknown_scores import (
    MOST_REFERENCES,
    SCORES,
    Arrays,
    Head,
    checked_arrays,
    combined,
    standardisation,
)

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]
FitHead = Callable[[Floats, Integers], tuple[Floats, Floats]]

# The scores to choose from, the default first; A+B is the combination of A and B. All have a part
# that measures distances: scores of the head alone recognise other classes of the same kind, but
# may rank foreign images as the most known of all (benchmarks/results/uncertainty.txt).
CANDIDATES = (
    "mahalanobis+nci+probability",
    "mahalanobis+probability",
    "mahalanobis+nci",
    "knn+nci",
    "mahalanobis",
    "knn",
)
WITHOUT_HEAD = "mahalanobis"
FALSE_ALARM_RATE = 0.05
FOLDS = 10  # for the threshold: with fewer the reference is sparser than it will be
_COMPARED_FOLDS = 5
_MOST_LEFT_OUT = 5
_MANY = 1000  # images that make fits slow, and references dense
_MOST_COMPARED = 800  # images on which scores are compared
_MOST_CALIBRATED = 4000  # images that scores are fitted on for the threshold
ENOUGH = 1000  # images whose scores suffice for the threshold
_LEAST_KNOWN = 2  # classes that remain when one is left out
_LEAST_COMPARED = 3  # classes left out, for a standard error
# Scores of one image differ by up to 1e-5 between runtimes. The threshold is the score of a known
# image, which must not exceed it anywhere.
_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class UnknownDetector:
    """Decides whether an image belongs to none of the known classes.

    name: of the score, one of CANDIDATES. threshold: a higher score is unknown.
    false_alarm_rate: the share of known images that are called unknown, at most, on average.
    auroc: area under the ROC curve, the mean over `left_out` classes that were left out in turn;
    None if none were. tested, reported: images of these classes, and those of them that a threshold
    with this false-alarm rate reports; 0 if too few images are known for one, or not recorded.
    features: D. temperature: the factor that gives back the network's own logits from those passed
    to `scores`, which are divided by it. arrays: what the score needs, as "nci.weight"; "centres"
    and "scales" of its parts.
    """

    name: str
    threshold: float
    false_alarm_rate: float
    auroc: float | None
    left_out: int
    features: int
    temperature: float
    arrays: Arrays
    tested: int = 0
    reported: int = 0

    @property
    def outputs(self) -> int | None:
        """The number of logits that the score needs; None if any number will do."""
        weight = self.arrays.get("nci.weight")
        return None if weight is None else len(weight)

    @property
    def title(self) -> str:
        """The score in words for users."""
        return joined([SCORES[part].title for part in self.name.split("+")])

    @property
    def reason(self) -> str:
        """Why an image is unknown, in a few words for users."""
        parts = self.name.split("+")
        return SCORES[parts[0]].reason if len(parts) == 1 else "unlike the training images"

    def scores(self, features: Floats, logits: Floats) -> npt.NDArray[np.float64]:
        """float64 [N], higher is more unknown; infinite where a row is not finite.

        features: float [N, D]; logits: float [N, K], divided by the temperature. Raises ValueError
        if shapes do not fit.
        """
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(f"features {features.shape}, {self.features} columns expected")
        if logits.ndim != 2 or len(logits) != len(features):
            raise ValueError(f"features {features.shape}, logits {logits.shape}")
        if self.outputs not in (None, logits.shape[1]):
            raise ValueError(f"logits {logits.shape}, {self.outputs} columns expected")
        names = self.name.split("+")
        parts = _scored(names, self.arrays, features, logits * self.temperature)
        return _sum(parts, names, self.arrays)

    def is_unknown(self, features: Floats, logits: Floats) -> npt.NDArray[np.bool_]:
        """bool [N]; arguments and errors as those of `scores`."""
        rounding = _ROUNDING * max(1.0, abs(self.threshold))
        return np.asarray(self.scores(features, logits) > self.threshold + rounding)

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Plain data and arrays, from which `from_arrays` makes the same object."""
        names = [field.name for field in fields(self) if field.name != "arrays"]
        values = {name: getattr(self, name) for name in names}
        return values, dict(self.arrays)

    @classmethod
    def from_arrays(
        cls, values: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> UnknownDetector:
        """The object of `to_arrays`. Raises ValueError with a sentence if anything is damaged."""
        if not isinstance(values, Mapping):
            raise ValueError("unknown images: the values are missing.")
        name, columns = values.get("name"), values.get("features")
        if not isinstance(name, str) or name not in CANDIDATES:
            raise ValueError(
                f"unknown images: the score {name!r:.60} is not known, expected one of "
                f"{', '.join(CANDIDATES)}."
            )
        if type(columns) is not int or not 1 <= columns <= 10_000_000:
            raise ValueError(f"unknown images: features is {columns!r:.60}, expected a number.")
        left_out = values.get("left_out")
        if type(left_out) is not int or not 0 <= left_out <= _MOST_LEFT_OUT:
            raise ValueError(f"unknown images: left_out is {left_out!r:.60}.")
        tested, reported = values.get("tested", 0), values.get("reported", 0)
        if not type(tested) is type(reported) is int or not 0 <= reported <= tested:
            raise ValueError(f"unknown images: reported is {reported!r:.60} of {tested!r:.60}.")
        auroc = values.get("auroc")
        return cls(
            name=name,
            threshold=_number(values, "threshold", -math.inf, math.inf),
            false_alarm_rate=_number(values, "false_alarm_rate", 0.0, 1.0),
            auroc=None if auroc is None else _number(values, "auroc", 0.0, 1.0),
            left_out=left_out,
            features=columns,
            temperature=_number(values, "temperature", 1e-3, 1e3),
            arrays=checked_arrays(name, columns, arrays),
            tested=tested,
            reported=reported,
        )

    @classmethod
    def of_network(
        cls,
        reference: tuple[Floats, Integers],
        calibration: tuple[Floats, Integers, Floats],
        head: tuple[Floats, Floats] | None,
        groups: Integers | None = None,
        *,
        temperature: float = 1.0,
    ) -> UnknownDetector:
        """Of a network whose features of its training images are not those of new images, because
        it was trained on them.

        reference: features [M, D] and labels [M] of training images. calibration: features [N, D],
        labels [N] and logits [N, K] of images that were not used for training, and their groups
        [N]. The logits are the network's own; temperature: what they are divided by later.
        head: weight [K, D] and bias [K] of the last layer; None if it is not linear.
        No class can be left out of such a network, so the score is the default one, or without a
        head `WITHOUT_HEAD`. Raises ValueError if shapes do not fit or an array is empty.
        """
        features, labels = reference
        images, _, logits = calibration
        _check(features, labels, 1)
        if images.ndim != 2 or images.shape[1] != features.shape[1] or not len(images):
            raise ValueError(f"calibration features {images.shape}, features {features.shape}")
        if len(logits) != len(images):
            raise ValueError(f"calibration features {images.shape}, logits {logits.shape}")
        name = WITHOUT_HEAD if head is None else CANDIDATES[0]
        rows = _references(labels, MOST_REFERENCES, 0)
        layer = _NO_HEAD if head is None else Head(*head)
        arrays = _fitted(name.split("+"), features[rows], labels[rows], layer)
        parts = _scored(name.split("+"), arrays, images, logits)
        columns = features.shape[1]
        return _detector(name, arrays, parts, groups, columns, temperature, FALSE_ALARM_RATE)


class _Data(NamedTuple):
    """Known images: features [N, D], labels [N], groups [N], and the function that fits a head."""

    features: Floats
    labels: Integers
    groups: Integers
    fit_head: FitHead
    seed: int

    def part(self, images: int) -> _Data:
        """At most `images` of these, as many of each class as possible."""
        rows = _references(self.labels, images, self.seed)
        return self._replace(
            features=self.features[rows], labels=self.labels[rows], groups=self.groups[rows]
        )

    def head(self) -> Head:
        """The head fitted on these images, of the classes that they have."""
        labels = np.unique(self.labels, return_inverse=True)[1]
        return Head(*self.fit_head(self.features, labels))


def choose(
    features: Floats,
    labels: npt.NDArray[np.integer],
    groups: npt.NDArray[np.integer] | None,
    fit_head: FitHead,
    *,
    temperature: float = 1.0,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    seed: int = 0,
) -> UnknownDetector:
    """The detector for a linear head on the features of a frozen network.

    features: float [N, D], finite, of the images that the head is fitted on; labels: int [N] in
    [0, K); groups: int [N], of near-copies, or None. fit_head: (features, labels in [0, k)) ->
    (weight [k, D], bias [k]), called with some of the images or without a class. temperature: what
    the logits are divided by before they are passed to the detector.

    Up to five classes are left out in turn. Head and scores are fitted on the other images but a
    fifth; AUROC is that between the left-out class and this fifth. The default score is replaced
    by one that is better by more than the noise of this comparison. The threshold is the conformal
    quantile of cross-fitted scores: known images exceed it with a probability of at most
    `false_alarm_rate`, or 1 / (G + 1) if there are so few; images of a class that is in one fold
    alone have no such score. With two classes none is left out. Raises ValueError if shapes do not
    fit or there are no images.
    """
    _check(features, labels, 2)
    if groups is not None and groups.shape != labels.shape:
        raise ValueError(f"groups {groups.shape}, labels {labels.shape}")
    group = np.arange(len(labels)) if groups is None else groups.astype(np.int64)
    everything = _Data(features, labels.astype(np.int64), group, fit_head, seed)
    turns = _turns(everything.part(_MOST_COMPARED), false_alarm_rate)
    name = _best([turn.areas for turn in turns])
    names = name.split("+")
    data = everything.part(_MOST_CALIBRATED)
    folds = FOLDS if len(data.labels) <= _MANY else _COMPARED_FOLDS
    alone = len(np.unique(data.groups)) == 1  # then nothing is left without its images
    fold = group_folds(np.arange(len(data.labels)) if alone else data.groups, folds, seed)
    parts = {part: np.empty(len(data.labels)) for part in names}
    scored = np.zeros(len(data.labels), np.bool_)
    for number in np.unique(fold):
        seen = np.unique(data.labels[fold != number])
        here = (fold == number) & np.isin(data.labels, seen)
        if len(seen) < _LEAST_KNOWN or not here.any():
            continue
        if scored.sum() >= ENOUGH:
            break
        scored |= here
        for part, values in _fitted_scores(data, fold != number, here, names).items():
            parts[part][here] = values
    parts = {part: values[scored] for part, values in parts.items()}
    head = everything.head() if any(SCORES[part].uses_head for part in names) else _NO_HEAD
    rows = _references(everything.labels, MOST_REFERENCES, seed)
    arrays = _fitted(names, features[rows], everything.labels[rows], head)
    groups, columns = data.groups[scored], features.shape[1]
    detector = _detector(name, arrays, parts, groups, columns, temperature, false_alarm_rate)
    return replace(
        detector,
        auroc=float(np.mean([turn.areas[name] for turn in turns])) if turns else None,
        left_out=len(turns),
        tested=sum(turn.images for turn in turns),
        reported=sum(turn.reported[name] for turn in turns),
    )


class _Turn(NamedTuple):
    """A class that is left out: AUROC of each score; images of the class and those reported by it,
    0 if there are too few known ones for a threshold."""

    areas: dict[str, float]
    images: int
    reported: dict[str, int]


def _turns(data: _Data, false_alarm_rate: float) -> list[_Turn]:
    """Each class that is left out in turn."""
    names, counts = np.unique(data.labels, return_counts=True)
    if len(names) <= _LEAST_KNOWN:
        return []
    left_out = names[np.argsort(-counts, kind="stable")][:_MOST_LEFT_OUT]
    fold = group_folds(data.groups, _COMPARED_FOLDS, data.seed)
    turns = []
    for turn, label in enumerate(left_out):
        known = data.labels != label
        reference = known & (fold != turn % _COMPARED_FOLDS)
        seen = np.unique(data.labels[reference])
        if len(seen) < _LEAST_KNOWN:
            continue
        test = known & (fold == turn % _COMPARED_FOLDS) & np.isin(data.labels, seen)
        images = test | (~known & ~np.isin(data.groups, data.groups[reference]))
        if not test.any() or not (images & ~known).any():
            continue
        parts = _fitted_scores(data, reference, images, list(SCORES))
        unknown, groups = ~known[images], data.groups[test]
        is_enough = 1 / (len(np.unique(groups)) + 1) <= false_alarm_rate
        found = _Turn({}, int(unknown.sum()) if is_enough else 0, {})
        for name in (*CANDIDATES, *SCORES):
            scores = [parts[part] for part in name.split("+")]
            of_known = standardisation([score[~unknown] for score in scores])
            total = combined(scores, *of_known)
            threshold = conformal_quantile(total[~unknown], groups, 1 - false_alarm_rate)
            found.areas[name], _ = area_under_roc(total, unknown)
            found.reported[name] = int((total[unknown] > threshold).sum())
        turns.append(found)
    return turns


def _best(areas: list[dict[str, float]]) -> str:
    """The default score, or the best of those that exceed it by more than two standard errors."""
    best, gain = CANDIDATES[0], 0.0
    for name in CANDIDATES[1:]:
        differences = np.array([row[name] - row[CANDIDATES[0]] for row in areas])
        if len(differences) < _LEAST_COMPARED:
            continue
        mean = float(differences.mean())
        error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
        if mean > max(gain, 2 * error):
            best, gain = name, mean
    return best


def _fitted_scores(
    data: _Data,
    reference: npt.NDArray[np.bool_],
    images: npt.NDArray[np.bool_],
    names: list[str],
) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of `images`, bool [N], by head and scores that are fitted on `reference`, bool [N]."""
    part = data._replace(
        features=data.features[reference],
        labels=np.unique(data.labels[reference], return_inverse=True)[1],
        groups=data.groups[reference],
    )
    head, logits = _NO_HEAD, np.zeros((int(images.sum()), 1))
    rows = data.features[images]
    if any(SCORES[name].uses_head for name in names):
        head = part.head()
        logits = rows @ head.weight.T + head.bias
    chosen = _references(part.labels, MOST_REFERENCES, data.seed)
    arrays = _fitted(names, part.features[chosen], part.labels[chosen], head)
    return _scored(names, arrays, rows, logits)


def _fitted(names: list[str], features: Floats, labels: Integers, head: Head) -> Arrays:
    arrays = {}
    for name in names:
        for key, array in SCORES[name].fit(features, labels, head).items():
            arrays[f"{name}.{key}"] = array
    return arrays


def _references(labels: Integers, most: int, seed: int) -> Integers:
    """Indices of at most `most` images, as many of each class as possible; sorted."""
    if len(labels) <= most:
        return np.arange(len(labels))
    order = shuffled(seed, 0, np.arange(len(labels)))
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    rank = np.arange(len(labels)) - starts
    return np.sort(by_class[np.argsort(rank, kind="stable")[:most]])


def _detector(
    name: str,
    arrays: Arrays,
    parts: dict[str, npt.NDArray[np.float64]],
    groups: Integers | None,
    columns: int,
    temperature: float,
    false_alarm_rate: float,
) -> UnknownDetector:
    """parts: scores of known images that were not used to fit the arrays."""
    names = name.split("+")
    centres, scales = standardisation([parts[part] for part in names])
    arrays = {**arrays, "centres": centres, "scales": scales}
    scores = _sum(parts, names, arrays)
    count = len(scores) if groups is None else len(np.unique(groups))
    rate = max(false_alarm_rate, 1 / (count + 1))
    threshold = conformal_quantile(scores, groups, 1 - rate)
    return UnknownDetector(name, threshold, rate, None, 0, columns, temperature, arrays)


def _sum(
    parts: dict[str, npt.NDArray[np.float64]], names: list[str], arrays: Arrays
) -> npt.NDArray[np.float64]:
    return combined([parts[part] for part in names], arrays["centres"], arrays["scales"])


def _scored(
    names: list[str], arrays: Arrays, features: Floats, logits: Floats
) -> dict[str, npt.NDArray[np.float64]]:
    """float64 [N] of each score; infinite where a row is not finite."""
    usable = np.isfinite(features).all(axis=1) & np.isfinite(logits).all(axis=1)
    scores = {}
    for name in names:
        own = {key: arrays[f"{name}.{key}"] for key in SCORES[name].stored}
        values = np.full(len(features), np.inf)
        values[usable] = SCORES[name].score(own, features[usable], logits[usable])
        scores[name] = np.where(np.isnan(values), np.inf, values)
    return scores


def _check(features: Floats, labels: npt.NDArray[np.integer], least: int) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or len(labels) < max(1, least):
        raise ValueError(f"features {features.shape}, labels {labels.shape}")


def _number(values: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = values.get(name)
    if isinstance(value, float | int) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and low <= number <= high:
            return number
    raise ValueError(f"unknown images: {name} is {value!r:.60}, expected a finite number.")


_NO_HEAD = Head(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
