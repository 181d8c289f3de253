"""A budget in words and what is left of it."""

from __future__ import annotations

import math
import re
import time

from residua.errors import ResiduaError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(budget: str) -> float:
    """ "90s", "2m", "1.5h", or a plain number of seconds; infinite for "". Raises ResiduaError."""
    if not budget:
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", budget.strip())
    if found is None or float(found[1]) == 0:
        raise ResiduaError(
            f"budget {budget!r}: expected a time such as 90s, 2m or 1h. Leave it out for no limit."
        )
    return float(found[1]) * _SECONDS[found[2] or "s"]


class Clock:
    """Runs from its making; seconds throughout."""

    def __init__(self, seconds: float) -> None:
        self.began, self.seconds = time.monotonic(), seconds

    @property
    def bounded(self) -> bool:
        """Whether there is a limit at all."""
        return math.isfinite(self.seconds)

    @property
    def passed(self) -> float:
        """Since the making."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Until the budget is used up; infinite without one, never below 0."""
        return max(0.0, self.seconds - self.passed)

    def at(self, share: float) -> float | None:
        """The time of time.monotonic() when this share of the budget is used; None without one."""
        return self.began + share * self.seconds if self.bounded else None

    def ahead(self, share: float) -> float | None:
        """The time of time.monotonic() when this share of what is left is used."""
        return time.monotonic() + share * self.left if self.bounded else None
