"""Weights and uint8 images -> for each its probabilities, its prediction set, and whether it is
unknown.

Legend: B batch, S side of the images, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from residua.data.dataset import Pixels
from residua.errors import ResiduaError
from residua.evaluation.metrics import class_name
from residua.evaluation.score import NOT_FINITE, detecting_classifier
from residua.system.notebook import shown
from residua.uncertainty.prediction_sets import COVERAGE
from residua.uncertainty.softmax import softmax
from residua.weights.load import Weights


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    file: path or address as given; paths below a folder for a folder; "image N" for the image at
    position N, from 0, that is no file.
    top: (class, probability) of the most likely classes, best first; empty with an error.
    error: why there is no prediction, or None.
    set: the classes that contain the true one with the stated coverage, most likely first; None
    where the weights have no prediction sets.
    unknown: why the image seems to show none of the classes, or that its probability is below
    min_probability; None if neither.
    """

    file: str
    top: tuple[tuple[str, float], ...]
    error: str | None = None
    set: tuple[str, ...] | None = None
    unknown: str | None = None

    def at_least(self, probability: float) -> Prediction:
        """With a reason in `unknown` if the probability of the predicted class is lower."""
        if self.unknown is not None or not self.top or self.top[0][1] >= probability:
            return self
        return replace(self, unknown=f"probability is below {probability:g}")

    def to_json(self) -> dict[str, object]:
        """The object that `residua predict --format json` prints for the file."""
        top = [{"class": name, "probability": probability} for name, probability in self.top]
        return {
            "file": self.file,
            "top": top,
            "set": None if self.set is None else list(self.set),
            "unknown": self.unknown,
            "error": self.error,
        }

    def _repr_html_(self) -> str:
        return str(shown("predictions_html", [self]))


class Predictions(list[Prediction]):
    """A list of predictions; a notebook shows it as images and bars."""

    def _repr_html_(self) -> str:
        return str(shown("predictions_html", self))


@dataclass(frozen=True, eq=False)
class Output:
    """The result for one image, without names.

    probabilities: float64 [K]. members: bool [K], of its prediction set, or None. unknown: see
    Prediction.
    """

    probabilities: npt.NDArray[np.float64]
    members: npt.NDArray[np.bool_] | None = None
    unknown: str | None = None

    def prediction(self, file: str, top: int, classes: tuple[str, ...]) -> Prediction:
        """With names, for `top` classes."""
        chances = self.probabilities
        if not np.isfinite(chances).all():
            return Prediction(file, (), NOT_FINITE)
        order = np.argsort(-chances, kind="stable")
        best = tuple((class_name(classes, int(k)), float(chances[k])) for k in order[:top])
        if self.members is None:
            return Prediction(file, best, unknown=self.unknown)
        inside = tuple(class_name(classes, int(k)) for k in order if self.members[k])
        return Prediction(file, best, set=inside, unknown=self.unknown)


Predictor = Callable[[Pixels], list[Output]]  # uint8 [B, S, S, C], B may be 0 -> B outputs


def predictor_of(
    weights: Weights, device: torch.device, images: int, coverage: float | None = None
) -> Predictor:
    """The predictor of some weights.

    images: that will be predicted, as far as known. coverage: of the prediction sets, in (0, 1);
    None: COVERAGE, where the weights have sets. Raises ResiduaError if the weights cannot classify,
    or have no sets of the requested coverage.
    """
    uncertainty = weights.metadata.uncertainty
    sets = None if uncertainty is None else uncertainty.sets
    unknown = None if uncertainty is None else uncertainty.unknown
    if sets is None and coverage is not None:
        raise ResiduaError(
            f"{weights.path}: has no prediction sets: they come with a run of `residua train` that "
            "has a validation set or is cross-validated."
        )
    wanted = COVERAGE if coverage is None else coverage
    if sets is not None and coverage is None and sets.highest_coverage < wanted:
        sets = None
    elif sets is not None:
        sets.threshold(wanted)  # refuses what the data do not support
    classify = detecting_classifier(weights, device, images, unknown)
    reason = None if unknown is None else unknown.reason

    def predict(pixels: Pixels) -> list[Output]:
        if not len(pixels):
            return []
        logits, flags = classify(pixels)
        probabilities = softmax(logits)
        members = None if sets is None else sets.sets(probabilities, wanted)
        return [
            Output(row, None if members is None else members[at], reason if flags[at] else None)
            for at, row in enumerate(probabilities)
        ]

    return predict
