"""Events of a training -> TensorBoard, MLflow, Weights & Biases, Trackio, or the user's tracker."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

from residua.config import parse
from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.system.console import Console

Status = Literal["finished", "interrupted", "failed"]
Settings = Mapping[str, str | int | float | bool | None]

MLFLOW_BATCH = 100  # parameters of one request


class Tracker(Protocol):
    """The calls of a training; any object with these methods can be given as `track=[...]`.

    An exception is printed as a warning and ends the tracking, not the training.
    """

    def begin(self, run: Path, settings: Settings, epochs: int) -> None:
        """A training begins. run: its folder. settings: by dotted name. epochs: complete already,
        if it is resumed; else 0."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is complete. row: a line of history.csv: epoch, loss, val_accuracy, ..."""

    def end(self, metrics: Mapping[str, float], status: Status) -> None:
        """The training has ended. metrics: such as test_accuracy; empty unless it is finished."""


class TensorBoard:
    """Event files in the run's folder tensorboard/; see Tracker."""

    def __init__(self) -> None:
        self.writer_class = _imported("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.epochs = 0

    def begin(self, run: Path, settings: Settings, epochs: int) -> None:
        self.writer = self.writer_class(str(run / "tensorboard"), purge_step=epochs + 1)

    def epoch(self, row: Mapping[str, float]) -> None:
        self.epochs = int(row["epoch"])
        self._add(row)

    def end(self, metrics: Mapping[str, float], status: Status) -> None:
        self._add(metrics)
        self.writer.close()

    def _add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, self.epochs)
        self.writer.flush()


class MLflow:
    """A run of MLflow, in the store that MLFLOW_TRACKING_URI names; see Tracker."""

    def __init__(self) -> None:
        self.mlflow = _imported("mlflow", "mlflow")
        self.entities = _imported("mlflow.entities", "mlflow")

    def begin(self, run: Path, settings: Settings, epochs: int) -> None:
        self.client = self.mlflow.MlflowClient()
        experiment = self.mlflow.set_experiment("residua").experiment_id
        self.id = self.client.create_run(experiment, run_name=run.name).info.run_id
        parameters = [self.entities.Param(name, str(value)) for name, value in settings.items()]
        for start in range(0, len(parameters), MLFLOW_BATCH):
            self.client.log_batch(self.id, params=parameters[start : start + MLFLOW_BATCH])
        self.epochs = epochs

    def epoch(self, row: Mapping[str, float]) -> None:
        self.epochs = int(row["epoch"])
        self._log(row)

    def end(self, metrics: Mapping[str, float], status: Status) -> None:
        self._log(metrics)
        states = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
        with _stdout_unused():
            self.client.set_terminated(self.id, states[status])

    def _log(self, values: Mapping[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self.entities.Metric(*pair, now, self.epochs) for pair in values.items()]
        self.client.log_batch(self.id, metrics)


class WandB:
    """A run of Weights & Biases, or of Trackio, whose interface is the same; see Tracker."""

    def __init__(self, package: Literal["wandb", "trackio"] = "wandb") -> None:
        self.library = _imported(package, package)
        self.is_trackio = package == "trackio"  # which resumes a run by its name, not by an id

    def begin(self, run: Path, settings: Settings, epochs: int) -> None:
        resume = {"resume": "allow"} if self.is_trackio and epochs else {}
        with _stdout_unused():
            self.run = self.library.init(
                project="residua", name=run.name, config=dict(settings), **resume
            )

    def epoch(self, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=int(row["epoch"]))

    def end(self, metrics: Mapping[str, float], status: Status) -> None:
        if metrics:
            self.run.log(dict(metrics))
        failed = {} if self.is_trackio or status == "finished" else {"exit_code": 1}
        with _stdout_unused():
            # of the package: Trackio ends a run of `run.finish` once more
            self.library.finish(**failed)


TRACKERS: Mapping[str, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "trackio": lambda: WandB("trackio"),
}


class Trackers:
    """Several trackers; one that fails is dropped with a warning."""

    def __init__(self, trackers: Sequence[Tracker], console: Console) -> None:
        self.trackers, self.console = list(trackers), console

    def begin(self, run: Path, config: Config, epochs: int) -> None:
        settings = parse.flat(config)
        self._each(lambda tracker: tracker.begin(run, settings, epochs))

    def epoch(self, row: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.epoch(dict(row)))

    def end(self, metrics: Mapping[str, float], status: Status) -> None:
        self._each(lambda tracker: tracker.end(dict(metrics), status))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
                self.console.caution(f"{type(tracker).__name__} stopped tracking: {reason}")


def trackers_for(config: Config, given: Sequence[Tracker]) -> list[Tracker]:
    """The trackers that the settings name, and those of the user. Raises ResiduaError."""
    names = [name.strip() for name in config.training.track.split(",") if name.strip()]
    if config.training.tensorboard:
        names.append("tensorboard")
    for name in names:
        if name not in TRACKERS:
            raise ResiduaError(
                f"--track {name}: is unknown: expected {', '.join(TRACKERS)}, several with commas."
            )
    for tracker in given:
        missing = [name for name in ("begin", "epoch", "end") if not hasattr(tracker, name)]
        if missing or isinstance(tracker, type):
            raise ResiduaError(
                f"track = {tracker!r}: expected an object with the methods begin, epoch and end, "
                f"or one of {', '.join(TRACKERS)}."
            )
    return [*(TRACKERS[name]() for name in dict.fromkeys(names)), *given]


def by_kind(track: object) -> tuple[str, list[Tracker]]:
    """`track` as users give it -> names, joined by commas, and objects."""
    listed: list[Any] = list(track) if isinstance(track, list | tuple) else [track]
    names = [one for one in listed if isinstance(one, str)]
    return ",".join(names), [one for one in listed if not isinstance(one, str)]


def _stdout_unused() -> redirect_stdout[TextIO]:
    """Packages print to stderr, since the stdout of `residua train` is the path of the run."""
    return redirect_stdout(sys.stderr)


def _imported(module: str, package: str) -> Any:
    """A tracker's package. Raises ResiduaError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ResiduaError(
            f"{package} is not installed: pip install {package}, or track otherwise; history.csv "
            "and log.jsonl hold the same numbers."
        ) from error
