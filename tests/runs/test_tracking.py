"""Trackers: the events they get, TensorBoard's files, and failures that end no training."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from references.runs import ONE_STAGE, trained

import residua
from residua.errors import ResiduaError

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {
    "model": "cifar_resnet14",
    "epochs": 2,
    "batch_size": 30,
    "test_fraction": 0.2,
    "quiet": True,
    "settings": {"network.head": "linear", "network.stage": 1},
}


class Recorded:
    """Keeps its events; fails at an event if it is told to."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.events: list[tuple[str, Any]] = []

    def begin(self, run: Path, settings: Mapping[str, Any], epochs: int) -> None:
        self._keep("begin", (run, settings["training.epochs"], epochs))

    def epoch(self, row: Mapping[str, float]) -> None:
        self._keep("epoch", row)

    def end(self, metrics: Mapping[str, float], status: str) -> None:
        self._keep("end", (metrics, status))

    def _keep(self, name: str, value: Any) -> None:
        self.events.append((name, value))
        if name == self.failing:
            raise ConnectionError("no server")


@pytest.mark.slow
def test_a_tracker_gets_every_event_and_a_failing_one_ends_no_training(
    shapes: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    good, bad = Recorded(), Recorded("epoch")
    with pytest.warns(UserWarning, match="Recorded stopped tracking: ConnectionError: no server"):
        run = residua.train(shapes, out=tmp_path / "run", track=["tensorboard", good, bad], **QUICK)
    assert [name for name, _ in good.events] == ["begin", "epoch", "epoch", "end"]
    assert good.events[0][1] == (run.path, 2, 0)
    assert [row for name, row in good.events if name == "epoch"] == run.history
    accuracy = run.evaluate().metrics.accuracy
    assert good.events[-1][1] == ({"test_accuracy": accuracy}, "finished")
    assert [name for name, _ in bad.events] == ["begin", "epoch"]
    board = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("val_accuracy")] == [1, 2]
    assert board.Scalars("test_accuracy")[0].value == pytest.approx(accuracy)
    assert run.config.training.track == "tensorboard"


def test_the_earlier_setting_still_writes_tensorboard_files(shapes: Path, tmp_path: Path) -> None:
    settings = {**ONE_STAGE, "training.tensorboard": True}
    run = trained(shapes, tmp_path / "run", settings, epochs=1)
    assert list((run.path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("tensorbord", "--track tensorbord: is unknown"),
        ([3], "expected an object with the methods begin, epoch and end"),
        ([Recorded], "expected an object with the methods"),
    ],
)
def test_what_cannot_track_is_refused(shapes: Path, track: Any, message: str) -> None:
    with pytest.raises(ResiduaError, match=message):
        residua.train(shapes, track=track, **QUICK)


@pytest.mark.parametrize("package", ["mlflow", "wandb", "trackio"])
def test_a_missing_package_is_named(
    shapes: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ResiduaError, match=f"pip install {package}"):
        residua.train(shapes, track=package, **QUICK)


@pytest.mark.slow
def test_mlflow_stores_every_epoch_and_setting(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    mlflow = pytest.importorskip("mlflow")
    run = residua.train(shapes, out=tmp_path / "run", track="mlflow", **QUICK)
    (stored,) = mlflow.search_runs(experiment_names=["residua"], output_format="list")
    assert (stored.info.run_name, stored.info.status) == ("run", "FINISHED")
    assert stored.data.params["training.epochs"] == "2"
    assert stored.data.metrics["test_accuracy"] == run.evaluate().metrics.accuracy
    client = mlflow.MlflowClient()
    for name in run.history[0]:
        values = [
            (one.step, one.value) for one in client.get_metric_history(stored.info.run_id, name)
        ]
        assert values == [(row["epoch"], row[name]) for row in run.history]


def records(file: Path) -> list[Any]:
    """The records of a run of Weights & Biases, in LevelDB's log format after seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, found, start = file.read_bytes(), [], 7
    assert len(content) < 32768, "one block"
    while start < len(content):
        length = int.from_bytes(content[start + 4 : start + 6], "little")
        found.append(Record.FromString(content[start + 7 : start + 7 + length]))
        start += 7 + length
    return found


@pytest.mark.slow
def test_wandb_stores_every_epoch_offline_and_prints_nothing_to_stdout(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb = pytest.importorskip("wandb")
    run = residua.train(shapes, out=tmp_path / "run", track="wandb", **QUICK)
    wandb.teardown()  # wait until everything is written
    assert capfd.readouterr().out == ""
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    stored = records(file)
    rows = [
        {item.nested_key[0]: json.loads(item.value_json) for item in one.history.item}
        for one in stored
        if one.HasField("history")
    ]
    own = [{name: value for name, value in row.items() if name[0] != "_"} for row in rows]
    first, last = run.history
    assert own == [first, last | {"test_accuracy": run.evaluate().metrics.accuracy}]
    assert [one.exit.exit_code for one in stored if one.HasField("exit")] == [0]


@pytest.mark.slow
def test_trackio_stores_every_epoch_and_stdout_is_the_path_of_the_run(
    shapes: Path, tmp_path: Path
) -> None:
    """Not in the test extra: version 0.43 needs a Pillow older than 13."""
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("trackio is not installed")
    words = ["train", shapes, "--model", "cifar_resnet14", "--epochs", "2", "--batch-size", "30"]
    words += ["--test-fraction", "0.2", "--track", "trackio", "--out", tmp_path / "run"]
    done = subprocess.run(  # it reads its folder's name when it is imported
        [sys.executable, "-m", "residua", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"TRACKIO_DIR": str(tmp_path)},
    )
    assert done.stdout == f"{tmp_path / 'run'}\n"
    assert done.stderr.count("Run finished") == 1
    run = residua.load(tmp_path / "run")
    with contextlib.closing(sqlite3.connect(tmp_path / "residua.db")) as database:
        stored = database.execute("select metrics from metrics order by id").fetchall()
        ((settings,),) = database.execute("select config from configs").fetchall()
    accuracy = run.evaluate().metrics.accuracy
    assert [json.loads(row) for (row,) in stored] == [*run.history, {"test_accuracy": accuracy}]
    assert json.loads(settings)["training.epochs"] == 2
    (tmp_path / "run" / "report.html").unlink()  # as after an interruption
    subprocess.run(
        [sys.executable, "-m", "residua", "resume", tmp_path / "run"],
        check=True,
        capture_output=True,
        env=os.environ | {"TRACKIO_DIR": str(tmp_path)},
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "residua.db")) as database:
        runs = database.execute("select run_id, count(*) from metrics group by run_id").fetchall()
    assert [rows for _, rows in runs] == [4], "a resumed run is the same run"
