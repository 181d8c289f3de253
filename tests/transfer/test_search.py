"""`auto` tries the strategies, keeps the best, and continues where it was interrupted."""

from __future__ import annotations

import dataclasses
import math
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from references.images import write_shapes
from references.lines import Lines

from residua.config import auto
from residua.config.validate import checked
from residua.inference import features
from residua.runs.folder import RunFolder
from residua.system.budget import Clock
from residua.system.signals import Interrupted
from residua.training.progress import Progress
from residua.transfer import search, small_network
from residua.transfer.context import StrategyContext, StrategyOutcome
from residua.transfer.result import TransferResult
from residua.transfer.search import Search
from residua.transfer.trial import Trial, expected_error, more_time, most_accurate, most_promising
from residua.weights.load import read_file

pytestmark = pytest.mark.slow  # each test trains

ContextOf = Callable[..., StrategyContext]
QUICK_LAYER = {"network__stage": 3, "network__pool_size": 1}
QUICK = {"training__epochs": 2, **QUICK_LAYER}


@pytest.fixture(scope="module", autouse=True)
def _every_error_counts() -> Iterator[None]:
    """The validation sets here have 18 images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MIN_ERRORS", 0)
        yield


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


class Killed(Lines):
    """The process ends after the first trial."""

    def print(self, line: str) -> None:
        super().print(line)
        if "full: val accuracy" in line:
            raise SystemExit


@dataclasses.dataclass
class Searched:
    """A search that ran through, its folder and its lines."""

    outcome: StrategyOutcome
    folder: RunFolder
    lines: list[str]


@pytest.fixture(scope="module")
def searched(
    with_splits: Path,
    weights: Path,
    context_of: ContextOf,
    tmp_path_factory: pytest.TempPathFactory,
) -> Searched:
    """Four strategies, two epochs each, on splits that the data set defines."""
    console, folder = Lines(), RunFolder(tmp_path_factory.mktemp("auto"))
    outcome = search.search(context_of(with_splits, weights, "auto", console, **QUICK), folder)
    return Searched(outcome, folder, console.lines)


def without_clocks(result: TransferResult) -> dict[str, Any]:
    """What does not depend on the speed of the machine or on the cache."""
    trials = [
        (trial.strategy, trial.phase, trial.epochs, trial.accuracy, trial.gain, trial.noise)
        for trial in result.trials
    ]
    layers = [(layer.stage, layer.pool_size, layer.loss, layer.c) for layer in result.layers]
    return {"trials": trials, "layers": layers, "chosen": result.chosen, "reason": result.reason}


def same_weights(one: RunFolder, other: RunFolder) -> bool:
    tensors, others = read_file(one.weights).tensors, read_file(other.weights).tensors
    return tensors.keys() == others.keys() and all(
        torch.equal(tensors[name], others[name]) for name in tensors
    )


@pytest.mark.slow
def test_every_strategy_is_tried_and_the_most_accurate_is_kept(searched: Searched) -> None:
    result = searched.outcome.result
    assert [(trial.strategy, trial.phase) for trial in result.trials][:4] == [
        ("features", "first"),
        ("full", "trial"),
        ("partial", "trial"),
        ("scratch", "trial"),
    ]
    best = max(trial.accuracy for trial in result.trials)
    assert best == max(t.accuracy for t in result.trials if t.strategy == result.chosen)
    prepared = searched.outcome.prepared
    assert prepared.config.transfer.strategy == result.chosen
    (choice,) = [c for c in prepared.choices if c.setting == "transfer.strategy"]
    assert choice.reason == result.reason
    members = prepared.splits["validation"]
    correct = searched.outcome.predict_logits(members).argmax(1) == prepared.labels[members]
    assert correct.mean() == pytest.approx(best)
    assert not (searched.folder.path / "tried").exists()
    assert result.scenario is not None
    assert result.scenario.number in (1, 2)
    assert result.data is not None
    assert (result.data.images, result.data.classes, result.data.imbalance) == (24, 3, 1.0)
    assert (result.data.width, result.data.height) == (16, 16)
    assert TransferResult.from_json(result.to_json()) == result


@pytest.mark.slow
def test_each_trial_is_one_line_and_the_choice_another(searched: Searched) -> None:
    result, lines = searched.outcome.result, searched.lines
    for trial in result.trials:
        assert any(
            line.startswith(f"{trial.strategy}: val accuracy {trial.accuracy:.4f}")
            for line in lines
        )
    assert lines[-1] == f"strategy {result.chosen}: {result.reason}"
    tried = [line for line in lines if "val accuracy" in line]
    assert len(tried) == len(result.trials)


@pytest.mark.slow
def test_a_search_interrupted_in_a_trial_ends_with_the_same_choice(
    searched: Searched,
    with_splits: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
) -> None:
    """Complete trials are not repeated; one that has only begun is."""
    with pytest.raises(SystemExit):
        search.search(context_of(with_splits, weights, "auto", Killed(), **QUICK), folder)
    assert (folder.path / "best.safetensors").exists()  # the linear probe
    ended = RunFolder(folder.path / "tried" / "full").read_json("ended.json")
    begun = folder.path / "tried" / "partial"
    begun.mkdir()
    (begun / "state.safetensors").write_bytes(b"half of a file")
    outcome = search.search(context_of(with_splits, weights, "auto", **QUICK), folder)
    (full,) = [t for t in outcome.result.trials if (t.strategy, t.phase) == ("full", "trial")]
    assert full.seconds == ended["seconds"]
    assert without_clocks(outcome.result) == without_clocks(searched.outcome.result)
    assert outcome.prepared.config == searched.outcome.prepared.config
    assert same_weights(folder, searched.folder)
    assert not (folder.path / "tried").exists()


@pytest.mark.slow
def test_the_test_set_plays_no_role(
    searched: Searched,
    with_splits: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
) -> None:
    """With other labels for every test image: the same choice, the same weights."""
    context = context_of(with_splits, weights, "auto", **QUICK)
    labels = context.prepared.labels.copy()
    test = context.prepared.splits["test"]
    labels[test] = (labels[test] + 1) % 3
    prepared = dataclasses.replace(context.prepared, labels=labels)
    outcome = search.search(context.with_prepared(prepared), folder)
    assert without_clocks(outcome.result) == without_clocks(searched.outcome.result)
    assert same_weights(folder, searched.folder)


@pytest.mark.slow
def test_a_clearly_better_strategy_is_continued_and_selected_after_an_interruption(
    with_splits: Path, blind: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    settings = {
        "training__epochs": 6,
        "training__batch_size": 8,
        "training__save_seconds": 0.0,
        "optimization__learning_rate": 0.05,
        "network__stage": 3,
        "network__pool_size": 1,
    }
    stopping = Lines(stop="epoch 2/6", number=signal.SIGTERM)
    with pytest.raises(Interrupted):
        search.search(context_of(with_splits, blind, "auto", stopping, **settings), folder)
    (history,) = folder.path.glob("tried/long-*/history.csv")
    before = history.read_text().splitlines()
    outcome = search.search(context_of(with_splits, blind, "auto", **settings), folder)
    result = outcome.result
    assert history.parent.name == f"long-{result.chosen}"
    assert (folder.path / "history.csv").read_text().splitlines()[: len(before)] == before
    assert len(outcome.progress.history) == 6
    first, *others = result.trials
    assert first.accuracy < 0.5
    best = max(others, key=lambda trial: trial.accuracy)
    assert (best.strategy, best.phase) == (result.chosen, "final")
    assert best.gain > best.noise
    assert result.reason is not None
    assert result.reason.endswith("points")
    assert outcome.prepared.config.network.head != "logistic"
    checked(outcome.prepared.config)
    members = outcome.prepared.splits["validation"]
    correct = outcome.predict_logits(members).argmax(1) == outcome.prepared.labels[members]
    assert correct.mean() == pytest.approx(best.accuracy)


def test_ctrl_c_ends_the_search_with_the_best_so_far(
    with_splits: Path, blind: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    settings = {"training__epochs": 6, "training__batch_size": 8, **QUICK_LAYER}
    settings["optimization__learning_rate"] = 0.05
    console = Lines(stop="epoch 2/6")
    outcome = search.search(context_of(with_splits, blind, "auto", console, **settings), folder)
    assert outcome.result.reason is not None
    assert outcome.result.reason.startswith("stopped by Ctrl-C: ")
    assert outcome.result.chosen != "features"  # whose features are the same for every image
    assert len(folder.read_history()) == 2
    members = outcome.prepared.splits["validation"]
    correct = outcome.predict_logits(members).argmax(1) == outcome.prepared.labels[members]
    assert correct.mean() == max(row["val_accuracy"] for row in folder.read_history())
    assert not (folder.path / "tried").exists()


def test_few_images_are_all_used_by_a_probe_and_held_out_to_compare_strategies(
    weights: Path, folder: RunFolder, tmp_path: Path, context_of: ContextOf
) -> None:
    """The probe is evaluated on the held-out images by heads that were not fitted on them."""
    data = write_shapes(tmp_path / "data", 10)
    context = context_of(data, weights, "auto", **QUICK)
    assert not len(context.prepared.splits["validation"])
    outcome = search.search(context, folder)
    first, *others = outcome.result.trials
    assert first.strategy == "features"
    assert outcome.result.images == 30
    assert {other.strategy for other in others} == {"full", "partial", "scratch"}
    held_out = len(outcome.prepared.splits["validation"])
    assert held_out == (0 if outcome.result.chosen == "features" else 6)
    assert all(round(trial.accuracy * 6) == pytest.approx(trial.accuracy * 6) for trial in others)


def test_a_probe_without_errors_needs_no_trials(
    with_splits: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "MIN_ERRORS", 19)  # of 18 images
    outcome = search.search(context_of(with_splits, weights, "auto", **QUICK), folder)
    assert outcome.result.chosen == "features"
    assert [trial.strategy for trial in outcome.result.trials] == ["features"]
    assert outcome.result.reason is not None
    assert "of 18 validation images misclassified: too few" in outcome.result.reason


@pytest.mark.parametrize("batch_size", [8, 64])
def test_a_failing_strategy_does_not_take_the_linear_probe_away(
    with_splits: Path, weights: Path, folder: RunFolder, context_of: ContextOf, batch_size: int
) -> None:
    """Whether its loss diverges, or its only step leaves weights that are not finite."""
    console = Lines()
    settings = {**QUICK, "optimization__learning_rate": 1e30, "training__batch_size": batch_size}
    context = context_of(with_splits, weights, "auto", console, **settings)
    outcome = search.search(context, folder)
    assert outcome.result.chosen == "features"
    assert "warning: full skipped: " in console.text
    assert folder.weights.name == "best.safetensors"


@pytest.fixture
def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first probe has no time, and is fitted on a small batch or two."""
    monkeypatch.setattr(search, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr("residua.transfer.context.LEAST_IMAGES", 0)
    monkeypatch.setattr(features, "BATCH_PIXELS", 1)
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("hurried")
def test_without_a_validation_set_the_probe_is_kept_on_all_images(
    weights: Path,
    folder: RunFolder,
    tmp_path: Path,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first probe is fitted on fewer images, the final one on all."""
    console = Lines()
    data = write_shapes(tmp_path / "data", 13)
    settings = {**QUICK, "data__val_fraction": 0}
    outcome = search.search(context_of(data, weights, "auto", console, **settings), folder)
    result = outcome.result
    assert "24 images misclassified" in console.text
    assert "fitted on 24 of 39 training images; next, a linear probe on all" in console.text
    assert "the time budget suffices" not in console.text  # the final probe has all of them
    assert (result.chosen, result.images, result.trials) == ("features", 39, ())
    assert result.cross_validation is not None
    assert result.cross_validation.images == 39
    assert result.reason == "no validation set to compare strategies on"
    # so is a head that is trained
    settings["network__head"] = "mlp:16"
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "another cache"))
    outcome = search.search(context_of(data, weights, "auto", **settings), folder)
    assert (outcome.result.chosen, outcome.result.images) == ("features", 39)
    assert len(outcome.progress.history) == 2


@pytest.mark.usefixtures("hurried")
def test_a_probe_of_all_images_replaces_the_first_one_within_the_noise(
    weights: Path, tmp_path: Path, context_of: ContextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it classifies a validation image fewer correctly, by chance."""
    fewer_correct = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        data, folder = tmp_path / f"data{seed}", RunFolder(tmp_path / f"run{seed}")
        folder.path.mkdir()
        for label in range(3):
            (data / str(label)).mkdir(parents=True)
            for number in range(20):
                pixels = random.normal(120 + 3 * label, 40, (16, 16, 3)).clip(0, 255)
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(data / str(label) / f"{number}.png")
        context = context_of(data, weights, "auto", data__val_fraction=0.3)
        runner = search.Search(context, folder)
        probe = runner.probe()
        first, more = (round(row.accuracy * len(probe.correct)) for row in runner.rows)
        if more >= first - 1:
            assert probe.outcome.result.images == len(runner.context.prepared.training_members)
            fewer_correct += more < first
    assert fewer_correct


@pytest.mark.usefixtures("hurried")
def test_a_probe_that_lacks_images_for_want_of_time_is_reported(
    weights: Path,
    folder: RunFolder,
    tmp_path: Path,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "MORE_SHARE", 0.0)
    console = Lines()
    data = write_shapes(tmp_path / "data", 13)
    settings = {**QUICK, "data__val_fraction": 0, "transfer__budget": "1h"}
    outcome = search.search(context_of(data, weights, "auto", console, **settings), folder)
    images = outcome.result.images
    assert images is not None
    assert images < 39
    assert console.text.count("expected accuracy") == 1  # no second probe on the same images
    assert f"warning: the time budget suffices for features of {images} of 39" in console.text


def test_no_trial_takes_the_time_that_finishing_needs(
    with_splits: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "CALIBRATION_FITS", 10**9)
    monkeypatch.setattr(search, "MIN_ERRORS", 0)
    context = context_of(with_splits, weights, "auto", **QUICK, transfer__budget="1h")
    result = search.search(context, folder).result
    assert [trial.strategy for trial in result.trials] == ["features"]
    assert result.images == len(context.prepared.splits["train"])  # nor is it fitted again


@pytest.mark.parametrize(("budget", "chosen"), [("1h", "full"), ("40s", "partial")])
def test_within_a_time_limit_fine_tuning_has_the_time_that_is_left(
    with_splits: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
    budget: str,
    chosen: str,
) -> None:
    """All layers if many epochs fit, without a trial first; from scratch is tried."""
    monkeypatch.setattr(search, "MANY_EPOCHS", 10 if chosen == "full" else 10**9)
    settings = {"training__epochs": 3, "transfer__budget": budget}
    console = Lines()
    context = context_of(with_splits, weights, "auto", console, **settings)
    trials = search.search(context, folder).result.trials
    strategies = [(trial.strategy, trial.phase) for trial in trials]
    assert strategies[:2] == [("features", "first"), ("scratch", "trial")]
    assert set(strategies[2:]) <= {(chosen, "trial"), (chosen, "final"), ("scratch", "final")}
    is_better = trials[1].accuracy >= trials[0].accuracy  # than what fine-tuning begins with
    assert ((chosen, "trial") in strategies) is is_better
    limit = re.search(r"other strategies: at most (\d+) s; Ctrl-C ends", console.text)
    assert limit is not None
    assert 0 < float(limit[1]) <= (3600 if budget == "1h" else 40)


def test_a_large_network_is_replaced_by_a_small_one_from_scratch(
    with_splits: Path,
    shapes: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The small network is as if there were no weights, and its data is prepared once."""
    monkeypatch.setattr(small_network, "LARGE_NETWORK", 1)
    for data in (with_splits, shapes):
        console = Lines()
        settings = {"transfer__views": 2, "preprocessing__mean": [9.0] * 3, **QUICK}
        trials = Search(context_of(data, weights, "auto", console, **settings), folder)
        small = trials.context_for("scratch")
        assert trials.context_for("scratch") is small
        assert len(console.lines) == 1
        assert "scratch: cifar_resnet20 at 32 px (cifar_resnet20 takes too long" in console.text
        config = small.prepared.config
        checked(config)
        assert (config.network.head, config.preprocessing.size) == ("default", 32)
        given, own = (
            [choice for choice in prepared.choices if choice.setting == "data.val_fraction"]
            for prepared in (trials.context.prepared, small.prepared)
        )
        assert own == given
        assert (config.transfer.views, config.network.stage) == (0, None)
        assert config.preprocessing.mean != (9.0,) * 3
        same = ("train", "validation", "test")
        splits = trials.context.prepared.splits
        assert all(np.array_equal(small.prepared.splits[s], splits[s]) for s in same)  # type: ignore[index]
        assert small.network().state_dict().keys()
    monkeypatch.setattr(small_network, "LARGE_NETWORK", 10**12)
    assert trials.context_for("scratch").prepared.config.preprocessing.size == 16


def trial(*correct: bool, strategy: str = "any", **result: Any) -> Trial:
    outcome: Any = type("Outcome", (), {"result": TransferResult(**result), "progress": Progress()})
    return Trial(strategy, outcome, None, np.array(correct), 1.0)  # type: ignore[arg-type]


def test_the_most_accurate_is_kept_if_it_is_clearly_better_than_the_probe() -> None:
    first = trial(*[False] * 10, *[True] * 90)
    one_more = trial(*[False] * 9, *[True] * 91)
    others = trial(*[True] * 10, *[False] * 10, *[True] * 80)  # 10 won and 10 lost
    clear, clearer = (trial(*[False] * (10 - n), *[True] * (90 + n)) for n in (5, 6))
    assert one_more.gain_over(first) == pytest.approx((0.01, 0.01))
    assert others.gain_over(first) == pytest.approx((0.0, math.sqrt(20) / 100))
    assert most_accurate([others, one_more], first) is first
    assert most_accurate([clear, clearer, others], first) is clearer
    assert most_accurate([], first) is first


def test_a_trial_whose_initial_weights_are_the_best_is_no_gain() -> None:
    first, kept = trial(*[False] * 10, *[True] * 90), trial(*[True] * 100)
    assert most_accurate([kept], first) is kept
    progress = kept.outcome.progress
    progress.improve({"val_accuracy": 1.0, "val_loss": 0.1}, "accuracy", 0)
    progress.epoch = 1
    assert progress.kept_initial
    assert most_accurate([kept], first) is first


def test_an_accuracy_before_training_is_named_as_such() -> None:
    kept = trial(*[True] * 3, False)
    kept.outcome.progress.epoch = 1
    assert kept.summary == "val accuracy 0.7500 (4 images), 1 epoch, 1.0 s"
    kept.outcome.progress.improve({"val_accuracy": 0.75, "val_loss": 0.1}, "accuracy", 0)
    expected = "val accuracy 0.7500 (4 images) before training, not improved in 1 epoch, 1.0 s"
    assert kept.summary == expected
    assert kept.compared_with(kept, "trial").kept_initial


def test_a_strategy_that_the_limit_left_no_time_for_is_named() -> None:
    full = trial(True, strategy="full", predicted_seconds=1000.0)
    partial = trial(True, strategy="partial", predicted_seconds=130.0)
    assert "all epochs of partial take about 3 min: --effort best" in more_time(
        [full, partial], Clock(60.0)
    )
    assert more_time([full], Clock(2000.0)) == ""
    assert more_time([full], Clock(math.inf)) == ""
    scratch = trial(True, strategy="scratch", predicted_seconds=90.0)
    assert more_time([scratch], Clock(60.0)) == ""


def test_partial_is_continued_only_if_it_is_clearly_better_than_full() -> None:
    full = trial(*[False] * 30, *[True] * 70, strategy="full")
    little = trial(*[False] * 29, *[True] * 71, strategy="partial")
    clear = trial(*[False] * 20, *[True] * 80, strategy="partial")
    errors = {"full": 0.2, "partial": 0.1, "scratch": 0.3}
    assert most_promising([full, little], errors) is full
    assert most_promising([full, clear], errors) is clear
    assert most_promising([little], errors) is little


def test_errors_fall_with_the_root_of_the_time_left() -> None:
    tried = trial(*[False] * 40, *[True] * 60, predicted_seconds=4.0, predicted_epochs=40)
    assert expected_error(Clock(math.inf), tried) == pytest.approx(0.4 * math.sqrt(0.1))
    assert expected_error(Clock(1e6), tried) == pytest.approx(0.4 * math.sqrt(1 / 4))
    assert expected_error(Clock(0.5), tried) == pytest.approx(0.4)


@pytest.mark.slow
def test_trials_of_version_0_1_0_are_continued(
    searched: Searched, with_splits: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    """Their measurements have the keys of that version."""
    context = context_of(with_splits, weights, "auto", **QUICK)
    trials = Search(context, folder)
    first = trials.probe()
    trial = trials._try("full", RunFolder(folder.path / "tried" / "full"), final=False)
    assert trial is not None
    ended = trial.folder.read_json("ended.json")
    result = ended.pop("result")
    (layer,) = result["layers"]
    old = {"stage": layer["stage"], "side": layer["pool_size"], "numbers": layer["features"]}
    old |= {"linear": layer["accuracy"], "neighbours": layer["neighbours"], "strength": layer["c"]}
    old |= {"loss": layer["loss"], "followed": True}
    times = {key: result[key] for key in ("predicted_epochs", "predicted_seconds")}
    measured = {"taps": [old], "pictures": result["images"], **times}
    trial.folder.write_json("ended.json", ended | {"measured": measured})
    again = trials._try("full", trial.folder, final=False)
    assert again is not None
    assert again.outcome.result == trial.outcome.result
    assert np.array_equal(again.correct, trial.correct)
    assert again.seconds == trial.seconds
    assert first.strategy == "features"


def test_few_images_without_errors_are_all_used(
    weights: Path,
    folder: RunFolder,
    tmp_path: Path,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No validation set is drawn where no strategy could show a gain on it."""
    monkeypatch.setattr(search, "MIN_ERRORS", 7)  # of the 6 that would be held out
    data = write_shapes(tmp_path / "data", 10)
    outcome = search.search(context_of(data, weights, "auto", **QUICK), folder)
    assert (outcome.result.chosen, outcome.result.trials) == ("features", ())
    assert not len(outcome.prepared.splits["validation"])
    assert outcome.result.reason is not None
    assert "of 30 images misclassified in cross-validation" in outcome.result.reason


def test_a_selected_probe_is_fitted_on_the_validation_images_too(
    weights: Path,
    folder: RunFolder,
    tmp_path: Path,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auto, "CROSS_VALIDATED", (20, 20))  # 30 images are many
    monkeypatch.setattr(search, "MIN_ERRORS", 7)  # of 6
    data = write_shapes(tmp_path / "data", 10)
    context = context_of(data, weights, "auto", **QUICK)
    assert len(context.prepared.splits["validation"]) == 6
    outcome = search.search(context, folder)
    assert (outcome.result.chosen, outcome.result.images) == ("features", 30)
    assert {member.split for member in outcome.prepared.members} == {"train"}
    own = {**QUICK, "data__val_fraction": 0.2}  # the user's stays
    outcome = search.search(context_of(data, weights, "auto", **own), folder)
    assert (outcome.result.images, len(outcome.prepared.splits["validation"])) == (24, 6)
