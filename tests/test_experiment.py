"""Training as a user meets it: real runs on small real images, real processes, real signals."""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from references.command_line import residua as command
from references.images import write_shapes
from references.runs import trained
from references.scenes import COPIES, scene, write_scenes
from safetensors.torch import load_file

import residua
from residua import experiment
from residua.config import parse
from residua.config.auto import Choice
from residua.config.recipes import compose
from residua.data.prepare import prepare
from residua.errors import ResiduaError
from residua.report import view
from residua.runs.folder import RunFolder
from residua.runs.provenance import with_leakage_notes
from residua.runs.sources import open_weights
from residua.system.budget import Clock
from residua.system.console import Console
from residua.training.context import Context
from residua.transfer.result import TOO_FEW_ERRORS
from residua.weights.load import read_file

HEAD = {
    "training.precise_bn_images": 32,
    "network.head": "linear",
    "network.stage": 1,
    "optimization.learning_rate": 0.1,
}
FAST = {"network.weights": "none", **HEAD}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> residua.Run:
    """One finished run that several tests look at."""
    return residua.train(
        shapes,
        model="cifar_resnet14",
        epochs=4,
        test_fraction=0.2,
        out=tmp_path_factory.mktemp("runs") / "shapes",
        settings={**FAST, "training.curve_test": True, "training.save_every": 2},
        quiet=True,
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("best.safetensors", "last.safetensors")
    }


def without_clocks(run: residua.Run) -> list[dict[str, float]]:
    clocks = ("images_per_second", "seconds")
    return [{key: row[key] for key in row if key not in clocks} for row in run.history]


def test_training_leaves_a_complete_run_folder(run: residua.Run) -> None:
    assert run.evaluate().scores.accuracy > 0.8
    for name in (
        "config.yaml",
        "classes.json",
        "split.csv",
        "unreadable.csv",
        "preprocessing.json",
        "environment.json",
        "choices.json",
        "log.jsonl",
        "history.csv",
        "best.safetensors",
        "last.safetensors",
        "state.safetensors",
        "report.html",
    ):
        assert (run.path / name).is_file(), name
    epochs = sorted(path.name for path in run.path.glob("epoch-*"))
    assert epochs == ["epoch-0002.safetensors", "epoch-0004.safetensors"]
    assert "auto" not in (run.path / "config.yaml").read_text()
    choices = json.loads((run.path / "choices.json").read_text())
    values = {choice["setting"]: choice["value"] for choice in choices}
    assert values["preprocessing.size"] == run.config.preprocessing.size
    assert all(choice["reason"] for choice in choices)
    assert not [path for path in run.path.rglob(".*") if path.name != ".lock"]
    assert residua.load(run.path).config == run.config
    assert all(0 <= row["test_accuracy"] <= 1 for row in run.history)


def test_the_saved_weights_are_those_that_were_validated(run: residua.Run) -> None:
    rows = run.history
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"], -row["epoch"]))
    with pytest.warns(UserWarning, match="48 of 60 images"):
        everything = run.evaluate(run.config.data.path)
    validated = {row.path for row in run.folder.read_split() if row.split == "validation"}
    correct = [row[4] for row in everything.rows() if row[0] in validated]
    assert sum(correct) / len(correct) == pytest.approx(best["val_accuracy"], abs=0.1)  # bf16


def test_the_same_seed_gives_the_same_weights(
    run: residua.Run, shapes: Path, tmp_path: Path
) -> None:
    for name, seed in (("again", 0), ("other", 1)):
        config = compose(shapes, run.path / "config.yaml", {"training.seed": seed})
        experiment.train(config, str(tmp_path / name), Console(quiet=True), report=False)
    first = load_file(run.path / "last.safetensors")
    again = load_file(tmp_path / "again" / "last.safetensors")
    other = load_file(tmp_path / "other" / "last.safetensors")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_evaluating_and_predicting_change_no_weights(run: residua.Run, shapes: Path) -> None:
    before = digests(run.path)
    evaluation = run.evaluate()
    with pytest.warns(UserWarning, match="48 of 60 images"):
        run.evaluate(shapes)
    rows = run.predict(shapes / "class1" / "000.png", shapes / "class1")
    assert digests(run.path) == before
    assert len(rows) == 21
    assert sum(probability for _, probability in rows[0].top) == pytest.approx(1)
    assert rows[0].top == rows[1].top  # the same file, by name and in its folder
    for path, _, predicted, probability, _ in evaluation.rows():  # one preprocessing
        (row,) = run.predict(shapes / path, top=1)
        assert row.top[0] == (predicted, pytest.approx(probability, abs=1e-5))


def test_evaluations_on_other_data_are_stored_beside_the_runs_own(
    run: residua.Run, tmp_path: Path
) -> None:
    own = run.evaluate().to_json()
    data = write_shapes(tmp_path / "test", 3, classes=2)
    with pytest.warns(UserWarning, match="3 of 6 images"):
        foreign = run.evaluate(data)
    assert (foreign.split, foreign.scores.images) == ("all", 6)
    assert json.loads((run.path / "evaluations/test/scores.json").read_text()) == own
    stored = (run.path / "evaluations/data-test/predictions.csv").read_bytes()
    other = write_shapes(tmp_path / "other" / "test", 5, classes=2)
    with pytest.warns(UserWarning, match="5 of 10 images"):
        assert run.evaluate(other).scores.images == 10
    with pytest.warns(UserWarning, match="3 of 6 images"):
        run.evaluate(data)
    assert (run.path / "evaluations/data-test/predictions.csv").read_bytes() == stored
    names = sorted(path.name for path in (run.path / "evaluations").glob("data-test*"))
    assert names == ["data-test", "data-test-2"]


def test_without_validation_the_last_weights_are_used(shapes: Path, tmp_path: Path) -> None:
    run = trained(shapes, tmp_path / "run", FAST, epochs=1, val_fraction=0)
    assert run.folder.weights.name == "last.safetensors"
    assert {row.split for row in run.folder.read_split()} == {"train"}
    with pytest.raises(ResiduaError, match="all its images"):
        run.evaluate()


def cli(*words: str) -> list[str]:
    return [sys.executable, "-m", "residua", *words]


BUSY = ["--set", "optimization.ema_decay=0.9", "--set", "augmentation.mixup=0.3", "--curve-test"]
BUSY += ["--set", "optimization.optimizer=adamw", "--set", "optimization.learning_rate=0.01"]
BUSY += ["--weights", "none", "--test-fraction", "0.2", "--epochs", "6", "--batch", "12"]
BUSY += ["--set", "training.save_seconds=0", "--set", "network.stage=1", "--head", "linear"]


def awaited(process: subprocess.Popen[str], state: Path) -> None:
    """Wait until the process has written its state, and a little longer."""
    began = time.time()
    while not state.exists() or state.stat().st_mtime < began:
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.05)
    assert process.poll() is None, "it ended before it got a signal"


def test_terminated_killed_and_resumed_is_bit_identical(shapes: Path, tmp_path: Path) -> None:
    """SIGTERM and SIGKILL, in the middle of epochs or validations."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command("train", str(shapes), "--out", str(whole), *BUSY).status == 0
    words = cli("train", str(shapes), "--out", str(broken), *BUSY)
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        awaited(process, broken / "state.safetensors")
        process.send_signal(number)
        _, printed = process.communicate(timeout=60)
        if number == signal.SIGTERM:
            assert process.returncode == 128 + signal.SIGTERM
            assert f"residua resume {broken}" in printed
            assert "Traceback" not in printed
            last = (broken / "log.jsonl").read_text().splitlines()[-1]
            assert json.loads(last)["event"] == "interrupted"
        words = cli("resume", str(broken))
    assert command("resume", str(broken)).status == 0
    assert digests(whole) == digests(broken)
    assert without_clocks(residua.load(whole)) == without_clocks(residua.load(broken))
    events = [json.loads(line) for line in (broken / "log.jsonl").read_text().splitlines()]
    epochs = [event["epoch"] for event in events if event["event"] == "epoch"]
    assert epochs == list(range(1, 7))  # no epoch twice in the log either


def test_a_finished_run_is_left_as_it_is(
    run: residua.Run, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    residua.resume(run)
    printed = " ".join(capsys.readouterr().err.split())
    accuracy = json.loads((run.path / "evaluations" / "test" / "scores.json").read_text())[
        "accuracy"
    ]
    assert f"is finished and was not changed: test accuracy {accuracy:.4f}, report" in printed
    further = printed.split("residua ")[-1]
    words = f"train {shapes} --test-fraction 0.2 --weights {run.path} --transfer full --epochs 10"
    assert further == words
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert after == before


def test_further_training_of_a_default_probe_keeps_its_data_settings(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixes = tmp_path / "my fixes.csv"
    fixes.write_text("path,action,label,reason\nclass0/000.png,exclude,,\n")
    options = {"test_fraction": 0.2, "split_seed": 3, "effort": "quick", "fixes": fixes}
    settings = {"data.max_pixels": 10_000}
    run = residua.train(shapes, out=tmp_path / "run", settings=settings, quiet=True, **options)
    assert not any("class0/000.png" in member.path for member in run.folder.read_split())
    residua.resume(run)
    printed = " ".join(capsys.readouterr().err.split())
    assert shlex.split(printed.split("residua ")[-1]) == [
        *("train", str(shapes), "--test-fraction", "0.2", "--split-seed", "3"),
        *("--fixes", str(fixes), "--set", "data.max_pixels=10000", "--effort", "best"),
    ]
    reason = f"2 of 480 images misclassified: {TOO_FEW_ERRORS}"  # more time would not change this
    others = [choice for choice in run.folder.choices if choice.setting != "transfer.strategy"]
    choice = Choice("transfer.strategy", "features", reason)
    run.folder.write_settings(run.folder.config, [*others, choice])
    residua.resume(run)
    assert capsys.readouterr().err.split()[-4:] == ["--transfer", "full", "--epochs", "10"]


def test_resume_refuses_changed_data_and_accepts_moved_ones(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", 8)
    run = trained(data, tmp_path / "run", FAST, epochs=1)
    data = data.rename(tmp_path / "moved")
    with pytest.raises(ResiduaError, match="name their present path with --data"):
        residua.resume(run, quiet=True)
    residua.resume(run, quiet=True, data_path=data)
    assert run.config.data.path == str(data)
    Image.new("RGB", (16, 16), "white").save(data / "class0" / "000.png")
    (run.path / "report.html").unlink()
    with pytest.raises(ResiduaError, match=r"differ from split\.csv"):
        residua.resume(run, quiet=True)


def test_nothing_is_written_into_the_data(
    run: residua.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_shapes(tmp_path / "data", 4)
    monkeypatch.chdir(data)
    for out in (None, "sub/run"):
        with pytest.raises(ResiduaError, match="residua never writes to"):
            residua.train(".", out=out, quiet=True)
    with pytest.raises(ResiduaError, match="never writes to"):
        residua.predict(run, data, grid=data / "grid.png")
    assert sorted(path.name for path in data.iterdir()) == ["class0", "class1", "class2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preprocessing.channels": 2}, "one of 1, 3"),
        ({"preprocessing.channels": 1, "preprocessing.mean": [1, 2, 3]}, "one number per channel"),
        ({"preprocessing.std": [0, 1, 1]}, "above 0"),
        ({"network.classes": 2}, "has 3 classes"),
        ({"training.seed": 2**32}, "from 0 to"),
    ],
)
def test_contradictions_are_refused_before_training(
    shapes: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ResiduaError, match=message):
        residua.train(shapes, out=tmp_path / "run", settings=settings, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_readable_image_is_named(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", 4)
    for file in (data / "class1").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ResiduaError, match="class1"):
        residua.train(data, weights="none", epochs=1, out=tmp_path / "run", quiet=True)


def test_a_time_budget_plans_the_epochs(shapes: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    run = residua.train(shapes, budget="6s", out=tmp_path / "run", settings=FAST, quiet=True)
    assert time.monotonic() - began < 30
    reasons = {choice.setting: choice.reason for choice in run.folder.choices}
    assert "of the budget" in reasons["training.epochs"]
    assert run.config.training.epochs >= len(run.history) >= 1


def test_few_lines_are_printed_before_the_first_epoch(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**FAST, "training.epochs": 1}
    experiment.train(compose(shapes, None, given), str(tmp_path / "run"), Console(), report=False)
    lines = capsys.readouterr().err.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("epoch"))
    assert first <= 7
    header = "\n".join(lines[:first])
    for words in ("60 images in 3 classes", "1 epoch, batch size", "augmentation:", "run folder"):
        assert words in header


def test_a_resumed_run_still_warns_of_images_that_its_weights_were_trained_on(
    run: residua.Run, shapes: Path, tmp_path: Path
) -> None:
    options = {"epochs": 1, "test_fraction": 0.3}
    first = trained(shapes, tmp_path / "first", FAST, split_seed=0, **options)
    options |= {"weights": first.path, "split_seed": 1, "settings": HEAD, "quiet": True}
    again = residua.train(shapes, out=tmp_path / "again", **options)
    warning = "images were used to train"
    assert warning not in (run.path / "report.html").read_text("utf-8")
    assert warning in (again.path / "report.html").read_text("utf-8")
    (again.path / "report.html").unlink()
    residua.resume(again, quiet=True)
    assert warning in (again.path / "report.html").read_text("utf-8")


def test_no_warning_is_left_of_images_that_only_unused_weights_have_seen(
    run: residua.Run, shapes: Path, tmp_path: Path
) -> None:
    """`auto` may choose a network from scratch."""
    settings = {"data.test_fraction": 0.3, "data.split_seed": 1, "network.weights": str(run.path)}
    prepared = prepare(compose(shapes, None, settings), Console(quiet=True))
    folder = RunFolder(tmp_path)
    folder.write_settings(prepared.config, prepared.choices)
    noted = with_leakage_notes(prepared, folder)
    assert "images were used to train" in noted.notes[-1]
    chosen = parse.with_settings(prepared.config, {"transfer.strategy": "scratch"})
    folder.write_settings(chosen, prepared.choices)
    folder.discard_initial_weights()
    assert with_leakage_notes(prepared, folder).notes == prepared.notes


class Nearly(Clock):
    """A budget of which nothing but the time for the report is left."""

    @property
    def left(self) -> float:
        return 2.5


def test_less_than_an_epoch_trains_frozen_networks_on_fewer_images(
    run: residua.Run, shapes: Path, tmp_path: Path
) -> None:
    given = {
        "network.weights": str(run.path),
        "network.freeze": 1,
        "training.batch_size": 4,
        "augmentation.flip": False,
        "augmentation.crop_padding": 0,
    }
    config, console = compose(shapes, None, given), Console(quiet=True)
    weights = open_weights(run.path, None, console)
    prepared = prepare(config, console, weights.expects)
    folder = RunFolder(tmp_path)
    experiment._train(Context(prepared, weights, config, Nearly(10.0), console), folder)
    assert folder.config.training.max_images == 8  # two batches
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "epoch"] == [2]


@pytest.mark.slow
def test_a_network_from_scratch_has_no_initial_weights(
    run: residua.Run, shapes: Path, tmp_path: Path
) -> None:
    """Though weights were given: their images do not count, nor is a file of theirs left."""
    settings = {"training.precise_bn_images": 32, "training.seed": 3}
    scratch = residua.train(
        shapes,
        weights=run.path,
        transfer="scratch",
        epochs=1,
        test_fraction=0.2,
        split_seed=5,
        out=tmp_path / "run",
        settings=settings,
        quiet=True,
    )
    names = {path.name for path in scratch.path.iterdir()}
    assert not names & {"weights.json", "earlier_images.csv"}
    assert scratch.evaluate().caveat == ""
    report = (scratch.path / "report.html").read_text("utf-8")
    assert "features of the trained network" in report
    assert "initial weights" not in report
    for name in ("report.html", "state.safetensors"):
        (scratch.path / name).unlink()
    residua.resume(scratch, quiet=True)
    assert (scratch.path / "report.html").is_file()


def test_scores_have_what_the_report_states_of_probabilities_and_baselines(
    shapes: Path, tmp_path: Path
) -> None:
    settings = {**FAST, "network.name": "cifar_resnet14"}
    options = {"epochs": 1, "test_fraction": 0.4, "settings": settings, "quiet": True}
    run = residua.train(shapes, out=tmp_path / "run", **options)
    assert run.cross_validation is None
    file = "evaluations/test/scores.json"
    written = run.folder.read_json(file)
    assert written["baselines"]["majority class"] == pytest.approx(1 / 3)
    probability = written["reliability"]
    assert 0 <= probability["calibration"]["error"] <= 1
    assert "too few" in probability["calibration"]["reason"]
    assert probability["calibration"]["interval"] is None
    assert 0 <= probability["calibration"]["brier"] <= 2
    report = (run.path / "report.html").read_text("utf-8")
    assert f"<dt>Brier score</dt><dd>{view.number(probability['calibration']['brier'])}" in report
    assert run.evaluate().to_json()["baselines"] == written["baselines"]
    assert run.folder.read_json(file) == written


@pytest.mark.slow
def test_a_refused_run_leaves_no_folder(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(ResiduaError, match="a batch of a single image"):
        residua.train(
            shapes, out=tmp_path / "run", model="resnet18", size=32, batch_size=1, quiet=True
        )
    assert not (tmp_path / "run").exists()


def test_an_unwritable_folder_is_refused_before_an_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "run", Path("/proc/residua-run")):
        with pytest.raises(ResiduaError, match=f"{out}: cannot be written"):
            residua.train(tmp_path / "missing", out=out, quiet=True)


@pytest.mark.slow
def test_a_run_on_all_images_reports_cross_validated_predictions(
    shapes: Path, write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "random.safetensors", 7)
    run = residua.train(
        shapes, weights=weights, transfer="features", out=tmp_path / "run", quiet=True
    )
    assert {member.split for member in run.folder.read_split()} == {"train"}
    table = (run.path / "evaluations" / "cross-validation" / "predictions.csv").read_text()
    assert len(table.splitlines()) == 1 + len(run.folder.read_split())
    report = (run.path / "report.html").read_text("utf-8")
    assert "left out in turn (cross-validation): rows are true classes" in report
    crossed = run.cross_validation
    assert crossed is not None
    assert crossed.interval[0] < crossed.accuracy <= crossed.interval[1]
    low = view.percent(crossed.interval[0], 1)
    assert f"95&nbsp;% CI {low}" in report.replace("\u00a0", " ")
    assert "expected accuracy" in report


@pytest.mark.slow
@pytest.mark.parametrize("classes", [3, 2])
def test_an_image_alone_in_its_class_is_trained_on_but_not_evaluated(
    classes: int, write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_shapes(tmp_path / "data", 24, classes=classes)
    for file in sorted((data / "class0").glob("*.png"))[1:]:
        file.unlink()
    weights = write_weights(tmp_path / "random.safetensors", 7)
    run = residua.train(
        data, weights=weights, transfer="features", out=tmp_path / "run", quiet=True
    )
    table = (run.path / "evaluations" / "cross-validation" / "predictions.csv").read_text()
    assert len(table.splitlines()) == 1 + 24 * (classes - 1)
    assert "class0/" not in table
    assert run.cross_validation is not None
    assert run.cross_validation.skipped == 1
    uncertainty = read_file(run.folder.weights).metadata.uncertainty
    assert uncertainty is not None
    assert uncertainty.unknown is not None
    files = sorted(data.rglob("*.png"))
    assert [row.unknown for row in run.predict(files)].count(True) <= 4


@pytest.mark.slow
def test_copies_in_the_users_own_splits_are_errors_of_the_data_check(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_scenes(data / "train", count=8)
    for label in (0, 1):
        (data / "test" / f"class{label}").mkdir(parents=True)
        scene(5000 + label).save(data / "test" / f"class{label}" / "0.png")
    COPIES["mirrored"](scene(3)).save(data / "test" / "class0" / "copy.png")
    for name, is_found in (("found", True), ("clean", False)):
        if not is_found:
            (data / "test" / "class0" / "copy.png").unlink()
        settings = {**FAST, "network.stage": None, "network.name": "cifar_resnet14"}
        run = residua.train(data, epochs=1, settings=settings, out=tmp_path / name)
        report = (run.path / "report.html").read_text("utf-8")
        printed = capfd.readouterr().err
        title = "2 images with near-duplicates in different splits"
        assert (title in report, title in printed) == (is_found, False)
        assert printed.count("test images is a near-duplicate of images in the") == is_found
        assert ("data check: Copies across classes or splits, as noted" in printed) == is_found
        assert (run.path / "audit.json").exists() == is_found
        assert ("Nothing was found." in report) != is_found
        assert report.count("Labels were not checked") == 1
        assert f"To check all: <code>residua audit {data}</code>" in report
        assert (run.path / "fixes.csv").exists() == ("fixes.csv" in report) == is_found
        assert (str(run.path / "audit.json") in printed) == is_found
    found = json.loads((tmp_path / "found" / "audit.json").read_text("utf-8"))["findings"]
    assert [(f["kind"], f["severity"]) for f in found] == [
        ("near-duplicates-across-splits", "error")
    ]
