"""The scenario of tutorial 3, from what was measured alone."""

from __future__ import annotations

from residua.transfer.result import LayerResult, TrialResult
from residua.transfer.scenario import scenario_of

LAYERS = [LayerResult(stage, 1, 64, 0.8, 0.7, 0.1, 0.3 - stage / 10) for stage in (1, 2)]


def trial(strategy: str, accuracy: float, seconds: float = 1.0) -> TrialResult:
    return TrialResult(strategy, "trial", 1, seconds, None, accuracy, 0.0, 0.0)


def test_without_a_trial_from_scratch_the_scenario_is_unknown() -> None:
    scenario = scenario_of(2_000, LAYERS, [trial("features", 0.8)])
    assert (scenario.number, scenario.is_similar, scenario.is_large) == (None, None, True)
    assert "stage 2 of 2 has the best features" in scenario.reason
    assert scenario_of(999, LAYERS, []).is_large is False


def test_the_best_trials_decide_whether_the_data_is_similar() -> None:
    probe, scratch = trial("features", 0.8), trial("scratch", 0.7)
    longer = trial("scratch", 0.9, 30.0)
    assert scenario_of(2_000, LAYERS, [probe, scratch]).number == 4
    different = scenario_of(2_000, LAYERS, [probe, scratch, longer])
    assert different.number == 3
    assert "0.900 after 30 s: large and different: train from scratch" in different.reason
    better = trial("features", 0.95)
    assert scenario_of(2_000, LAYERS, [probe, better, scratch, longer]).number == 4
    assert scenario_of(60, LAYERS, [probe, scratch]).number == 1
    assert scenario_of(60, LAYERS, [probe, longer]).number == 2
