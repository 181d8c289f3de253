"""Time budgets are read as people write them, and a clock counts down."""

from __future__ import annotations

import math
import time

import pytest

from residua.errors import ResiduaError
from residua.system.budget import Clock, seconds_of


def test_a_budget_is_a_number_with_a_unit() -> None:
    texts = {"90s": 90, "2m": 120, "1.5h": 5400, "45": 45, " 2 m ": 120, "": math.inf}
    assert {text: seconds_of(text) for text in texts} == texts


@pytest.mark.parametrize("text", ["0", "0s", "-1m", "2 minutes", "m", "1e3", "1m30s"])
def test_other_budgets_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ResiduaError, match="such as 90s, 2m or 1h"):
        seconds_of(text)


def test_a_clock_counts_down_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(60)
    now[0] += 20
    assert (clock.passed, clock.left) == (20, 40)
    assert (clock.at(0.5), clock.ahead(0.5)) == (130, 140)
    now[0] += 100
    assert clock.left == 0


def test_a_clock_without_a_limit_has_no_deadline() -> None:
    clock = Clock(math.inf)
    assert not clock.bounded
    assert clock.left == math.inf
    assert clock.at(1) is None
    assert clock.ahead(1) is None
