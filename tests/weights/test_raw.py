"""Numbers that make every output useless are named."""

from __future__ import annotations

import pytest
import torch

from residua.weights.formats.raw import numeric_flaw

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_not_finite_in_float32(value: float) -> None:
    tensor = torch.tensor([1.0, value], dtype=torch.float64)
    assert numeric_flaw("conv.weight", tensor) == "numbers that are not finite (NaN or infinity)"


def test_a_negative_variance_is_a_flaw_and_a_negative_mean_is_not() -> None:
    tensor = torch.tensor([1.0, -1.0])
    assert numeric_flaw("norm.running_var", tensor) == "negative variances"
    assert numeric_flaw("norm.running_mean", tensor) is None


def test_large_numbers_whose_sum_overflows_are_fine() -> None:
    assert numeric_flaw("weight", torch.full((10,), 3e38)) is None
    assert numeric_flaw("weight", torch.zeros(0)) is None
