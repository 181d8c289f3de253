"""Features at several taps -> how well each separates the classes, by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.data.random import Integers
from residua.transfer.cross_validation import Probe, race
from residua.transfer.estimate import Estimate, estimate
from residua.transfer.feature_layers import Tap
from residua.transfer.features import Rows
from residua.transfer.folds import folds_of
from residua.transfer.logistic import Floats, Labels

_BLOCK = 2048  # rows whose neighbours are sought at once


@dataclass(frozen=True, eq=False)
class Seen:
    """What cross-validation says of one tap.

    width: numbers it gives for an image. linear, neighbours: accuracy of a linear head and of the
    ten nearest images, on images left out.
    """

    tap: Tap
    width: int
    probe: Probe
    neighbours: float

    @property
    def linear(self) -> float:
        """Accuracy at the strength that was chosen."""
        return self.probe.accuracy

    @property
    def strength(self) -> float:
        """C of the logistic regression that was chosen."""
        return self.probe.strengths[self.probe.best]

    @property
    def loss(self) -> float:
        """Mean loss on images left out, nats; what the choice goes by."""
        return float(self.probe.loss[:, self.probe.best].mean())

    def to_json(self) -> dict[str, object]:
        """A row of the table that is printed and kept."""
        return {
            "stage": self.tap.stage,
            "side": self.tap.side,
            "numbers": self.width,
            "linear": self.linear,
            "neighbours": self.neighbours,
            "strength": self.strength,
            "loss": self.loss,
            "followed": self.probe.followed,
        }


def look(
    rows: Rows,
    labels: Integers,
    contents: Sequence[str],
    classes: int,
    seed: int,
    *,
    balanced: bool,
    report: Callable[[int, int], None] | None = None,
    threads: int = 1,
) -> tuple[list[Seen], Estimate | None]:
    """Judge every tap on the same folds; labels and contents belong to the rows.

    The estimate is that of the tap and strength which will be chosen, corrected for the choice;
    None where every class has a single image. Raises ResiduaError where nothing can be told.
    """
    folds, taps = folds_of(labels, contents, seed), sorted(rows.values)
    features = [rows.values[tap] for tap in taps]
    probes = race(
        features, labels, classes, folds, balanced=balanced, report=report, threads=threads
    )
    near = [float(neighbours(each, labels, folds).mean()) for each in features]
    found = [
        Seen(tap, values.shape[1], probed, vote)
        for tap, values, probed, vote in zip(taps, features, probes, near, strict=True)
    ]
    rights = np.concatenate([each.probe.right for each in found], axis=1)
    losses = np.concatenate([each.probe.loss for each in found], axis=1)
    judged = found[0].probe.judged
    return found, estimate(rights[judged], losses[judged], seed) if judged.any() else None


def neighbours(
    features: Floats, labels: Labels, folds: Labels, count: int = 10
) -> npt.NDArray[np.bool_]:
    """Whether the `count` nearest rows of other folds vote for the truth; bool [N].

    Nearest by cosine, a vote counts its similarity (a negative one nothing); ties go to the lower
    label. A row of zeros is near to nothing.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    targets = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    right = np.zeros(len(labels), np.bool_)
    for start in range(0, len(labels), _BLOCK):
        block = slice(start, start + _BLOCK)
        near = unit[block] @ unit.T
        near[folds[block, None] == folds] = -1
        best = np.argpartition(near, -min(count, len(labels)), axis=1)[:, -count:]
        votes = np.maximum(np.take_along_axis(near, best, axis=1), 0)
        sums = np.einsum("nc,nck->nk", votes, targets[best])
        right[block] = (sums.argmax(axis=1) == labels[block]) & (sums.max(axis=1) > 0)
    return right


def best_of(seen: Sequence[Seen]) -> Seen:
    """The tap with the smallest loss on images left out; of equals the later stage."""
    return min(seen, key=lambda each: (each.loss, -each.tap.stage))
