"""Features at several taps -> how well each separates the classes, by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from residua.data.chance import Integers
from residua.transfer.estimate import Estimate, estimate
from residua.transfer.features import Rows
from residua.transfer.linear import Probe, folds_of, neighbours, probe
from residua.transfer.taps import Tap


@dataclass(frozen=True, eq=False)
class Seen:
    """What cross-validation says of one tap.

    width: numbers it gives for a picture. linear, neighbours: accuracy of a linear head and of the
    ten nearest pictures, on pictures left out.
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
        """Mean loss on pictures left out, nats; what the choice goes by."""
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
) -> tuple[list[Seen], Estimate]:
    """Judge every tap on the same folds; labels and contents belong to the rows.

    The estimate is that of the tap and strength which will be chosen, corrected for the choice.
    Raises ResiduaError where nothing can be told.
    """
    folds = folds_of(labels, contents, seed)
    found = []
    for done, (tap, values) in enumerate(sorted(rows.values.items()), start=1):
        near = neighbours(values, labels, folds)
        judged = probe(values, labels, classes, folds, balanced=balanced)
        found.append(Seen(tap, values.shape[1], judged, float(near.mean())))
        if report:
            report(done, len(rows.values))
    rights = np.concatenate([each.probe.right for each in found], axis=1)
    losses = np.concatenate([each.probe.loss for each in found], axis=1)
    return found, estimate(rights, losses, seed)


def best_of(seen: Sequence[Seen]) -> Seen:
    """The tap with the smallest loss on pictures left out; of equals the later stage."""
    return min(seen, key=lambda each: (each.loss, -each.tap.stage))
