"""A time budget such as "2m" -> seconds, and a clock of the time that remains."""

from __future__ import annotations

import math
import re
import time

from residua.errors import UsageError

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(budget: str) -> float:
    """Seconds of "90s", "2m", "1.5h" or "90"; infinite for "". Raises UsageError."""
    if not budget:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", budget.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"budget {budget!r}: expected a time such as 90s, 2m or 1h.")
    return float(match[1]) * _SECONDS[match[2]]


class Clock:
    """All times in seconds. seconds: the budget, may be infinite. began: time.monotonic() of its
    start; None: now."""

    def __init__(self, seconds: float, began: float | None = None) -> None:
        self.began, self.seconds = time.monotonic() if began is None else began, seconds

    @property
    def bounded(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(self.seconds)

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds that remain, at least 0; infinite without a limit."""
        return max(0.0, self.seconds - self.passed)

    def at(self, share: float) -> float | None:
        """time.monotonic() when this share of the budget is used; None without a limit."""
        return self.began + share * self.seconds if self.bounded else None

    def ahead(self, share: float) -> float | None:
        """time.monotonic() when this share of the remaining time is used; None without a limit."""
        return time.monotonic() + share * self.left if self.bounded else None
