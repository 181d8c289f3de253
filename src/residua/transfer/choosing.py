"""Ways that learnt for a short while -> which is to go on, and of all that was tried the best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.runs.folder import RunFolder
from residua.system.budget import Clock
from residua.transfer.context import Learnt
from residua.transfer.fine_tune import MANY_EPOCHS

TRIAL_EPOCHS = 0.1  # of a way's usual epochs, without a budget
DOUBT = 2.0  # times the noise of a difference, beyond which it is beyond doubt

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tried:
    """One way, and how it did on the validation part. right: bool [N]."""

    way: str
    learnt: Learnt
    folder: RunFolder
    right: Right
    seconds: float

    def gain_over(self, other: Tried) -> tuple[float, float]:
        """Difference of the accuracies on the same images, and how large chance makes it.

        The latter is its standard deviation if both are equally good: of as many images as only
        one of them names rightly, each is as likely won as lost (McNemar 1947).
        """
        won = int((self.right & ~other.right).sum())
        lost = int((other.right & ~self.right).sum())
        number = len(self.right)
        return (won - lost) / number, math.sqrt(won + lost) / number

    def to_json(self, first: Tried, length: str) -> dict[str, object]:
        """A row of the table that is printed and kept."""
        gain, noise = self.gain_over(first)
        return {
            "way": self.way,
            "length": length,
            "epochs": self.learnt.progress.epoch,
            "seconds": self.seconds,
            "predicted_seconds": self.learnt.measured.get("predicted_seconds"),
            "accuracy": float(self.right.mean()),
            "gain": gain,
            "noise": noise,
        }


def has_time(clock: Clock, full: Tried) -> bool:
    """Whether what is left of a budget holds many epochs of it."""
    told = full.learnt.measured
    seconds, epochs = told.get("predicted_seconds"), told.get("predicted_epochs", 0)
    if not clock.bounded or not seconds:
        return False
    return bool(epochs * min(1.0, clock.left / seconds) >= MANY_EPOCHS)


def hope(clock: Clock, tried: Tried) -> float:
    """The error that a way may reach in the time left: errors fall about as the root of time."""
    longer = tried.seconds / TRIAL_EPOCHS
    if clock.bounded:  # or less, where all of its epochs are done before
        longer = min(clock.left, tried.learnt.measured.get("predicted_seconds") or math.inf)
    share = min(1.0, tried.seconds / max(longer, 1e-9))
    return (1 - float(tried.right.mean())) * math.sqrt(share)


def most_hopeful(tried: list[Tried], hopes: dict[str, float]) -> Tried:
    """The way to go on with: not partial where full may be as good, for that can learn more.

    A short trial flatters the way that has less to learn, so partial must be better beyond doubt.
    """
    best = min(tried, key=lambda each: hopes[each.way])
    full = next((each for each in tried if each.way == "full"), None)
    if full is None or best.way != "partial":
        return best
    gain, noise = best.gain_over(full)
    return full if gain <= DOUBT * noise else best


def furthest(tried: list[Tried], best: Tried) -> Tried:
    """What names the most images rightly; of equals `best`, then the first."""
    return max([best, *tried], key=lambda each: int(each.right.sum()))
