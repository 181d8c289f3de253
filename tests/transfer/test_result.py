"""The measurements of a transfer survive their file, and those of version 0.1.0 are read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from residua.transfer.result import (
    CrossValidation,
    DataSummary,
    LayerResult,
    Scenario,
    TransferResult,
    TrialResult,
)

RESULT = TransferResult(
    layers=(
        LayerResult(2, 4, 512, 0.62, 0.57, 0.01, 1.01),
        LayerResult(3, 1, 64, 0.58, 0.48, 0.1, 1.09, abandoned=True),
    ),
    images=2591,
    computed=590,
    feature_seconds=0.86,
    cross_validation=CrossValidation(0.616, (0.59, 0.64), 2000, 2591, skipped=1),
    trials=(
        TrialResult("features", "first", 0, 9.4, None, 0.65, 0.0, 0.0),
        TrialResult("full", "trial", 1, 18.5, 10.2, 0.6, -0.05, 0.02),
        TrialResult("full", "final", 3, 56.2, 33.9, 0.646, -0.004, 0.017),
    ),
    expected={"full": 0.87},
    data=DataSummary(2591, 5, 1.4, 320, 240),
    scenario=Scenario(4, "large and similar", True, True, "2,591 training images"),
    chosen="features",
    reason="no other strategy has a higher validation accuracy",
)
OLD: dict[str, Any] = {  # the same as version 0.1.0 wrote it
    "taps": [
        {"stage": 2, "side": 4, "numbers": 512, "linear": 0.62, "neighbours": 0.57}
        | {"strength": 0.01, "loss": 1.01, "followed": True},
        {"stage": 3, "side": 1, "numbers": 64, "linear": 0.58, "neighbours": 0.48}
        | {"strength": 0.1, "loss": 1.09, "followed": False},
    ],
    "pictures": 2591,
    "computed": 590,
    "seconds": {"features": 0.86},
    "cross_validated": {"accuracy": 0.616, "interval": [0.59, 0.64], "pictures": 2000}
    | {"taught": 2591, "alone": 1},
    "table": [
        {"way": "features", "length": "solved", "epochs": 0, "seconds": 9.4, "gain": 0.0}
        | {"predicted_seconds": None, "accuracy": 0.65, "noise": 0.0},
        {"way": "full", "length": "trial", "epochs": 1, "seconds": 18.5, "gain": -0.05}
        | {"predicted_seconds": 10.2, "accuracy": 0.6, "noise": 0.02},
        {"way": "full", "length": "long", "epochs": 3, "seconds": 56.2, "gain": -0.004}
        | {"predicted_seconds": 33.9, "accuracy": 0.646, "noise": 0.017},
    ],
    "hopes": {"full": 0.87},
    "data": {"pictures": 2591, "classes": 5, "largest_to_smallest_class": 1.4}
    | {"width": 320, "height": 240},
    "scenario": {"large": True, "number": 4, "name": "large and similar", "similar": True}
    | {"reason": "2,591 training images"},
    "chosen": "features",
    "reason": "no other strategy has a higher validation accuracy",
}


@pytest.mark.parametrize("written", [RESULT.to_json(), OLD])
def test_a_result_is_read_as_it_was_measured(written: dict[str, Any]) -> None:
    assert TransferResult.from_json(json.loads(json.dumps(written))) == RESULT


def test_parts_that_do_not_apply_are_not_written() -> None:
    assert TransferResult().to_json() == {}
    scratch = TransferResult(predicted_epochs=3, predicted_seconds=4.5)
    assert scratch.to_json() == {"predicted_epochs": 3, "predicted_seconds": 4.5}
    assert TransferResult.from_json(scratch.to_json()) == scratch


@pytest.mark.parametrize(
    "damage",
    [
        {"layers": [{**RESULT.to_json()["layers"][0], "accuracy": "high"}]},
        {"layers": 5},
        {"layers": [5]},
        {"trials": [{"strategy": "full"}]},
        {"images": 10**400},
        {"expected": {"full": "high"}},
        {"expected": [1]},
        {"scenario": []},
        {"unknown": 1},
    ],
)
def test_values_of_another_type_are_refused(damage: dict[str, Any]) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError)):
        TransferResult.from_json({**RESULT.to_json(), **damage})
