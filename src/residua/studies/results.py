"""The runs of a configuration -> their metrics over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.networks.analysis.cost import Counts, costs_of
from residua.runs.folder import RunFolder, throughputs
from residua.studies.definition import Row

DIVERGED = "diverged.json"  # in the folder of a run whose loss or weights became NaN or infinite


@dataclass(frozen=True, eq=False)
class Outcome:
    """The results of a row, one for each seed that did not diverge, in the order of the seeds [S].

    accuracy: of the last weights on the test set, in [0, 1]. train_accuracy: of the last epoch, on
    its augmented training images, in [0, 1]. seconds: of training, the median epoch, for the seeds
    that recorded it. file_bytes: size of the weights file, None if all seeds diverged. curves:
    history.csv of each seed. test_images, train_images: numbers of images. validated: whether the
    dataset's own validation set selected the epoch. diverged: seeds that diverged. environments:
    environment.json of all seeds.
    """

    row: Row
    config: Config
    counts: Counts
    accuracy: npt.NDArray[np.float64]
    train_accuracy: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    file_bytes: int | None
    curves: Sequence[Sequence[Mapping[str, float]]]
    test_images: int
    train_images: int
    validated: bool
    diverged: tuple[int, ...]
    environments: Sequence[Mapping[str, Any]]


def run_path(folder: Path, row: Row, seed: int) -> Path:
    """The run folder of a row and a seed, in the folder of a study."""
    return folder / "runs" / row.name / f"seed-{seed}"


def has_diverged(path: Path) -> bool:
    """Whether the run ended because its loss or weights became NaN or infinite."""
    return (path / DIVERGED).exists()


def is_finished(path: Path) -> bool:
    """Whether nothing is left to train."""
    return RunFolder(path).is_finished or has_diverged(path)


def accuracy_on_test(run: RunFolder) -> tuple[float, int]:
    """Accuracy in [0, 1] on the test set, and its number of images.

    Raises ResiduaError that names the file.
    """
    name = "evaluations/test/scores.json"
    scores = run.read_json(name)
    try:
        # Version 0.1.0 wrote "pictures"
        images = scores["images"] if "images" in scores else scores["pictures"]
        return float(scores["accuracy"]), int(images)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ResiduaError(
            f"{run.path / name}: expected accuracy and images. `residua evaluate {run.path}` "
            "writes it again."
        ) from error


def outcome_of(row: Row, folder: Path, seeds: int) -> Outcome:
    """Read all runs of a row, which are finished. Raises ResiduaError that names the row."""
    try:
        return _outcome(row, folder, seeds)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise ResiduaError(
            f"{folder / 'runs' / row.name}: a file of its runs is damaged: {error!r}. Remove that "
            "run, and the same command trains it again."
        ) from error


def check_same_splits(folder: Path, rows: Sequence[Row], seeds: int) -> None:
    """Raise ResiduaError unless all rows of a seed have the same training and test images."""
    for seed in range(seeds):
        splits = [_split(run_path(folder, row, seed)) for row in rows]
        for row, split in zip(rows, splits, strict=True):
            if split != splits[0]:
                raise ResiduaError(
                    f"{folder}: row {row.name}, seed {seed}, was trained or evaluated on other "
                    f"images than row {rows[0].name}: the dataset has changed since the study "
                    "started. Use another --out, or restore the dataset and remove the runs that "
                    "differ."
                )


def _split(path: Path) -> set[tuple[str, str, str]]:
    """Split, class and content of each image."""
    return {(member.split, member.label, member.sha256) for member in RunFolder(path).read_split()}


def _outcome(row: Row, folder: Path, seeds: int) -> Outcome:
    paths = [run_path(folder, row, seed) for seed in range(seeds)]
    diverged = tuple(seed for seed, path in enumerate(paths) if has_diverged(path))
    first = RunFolder(paths[0])
    runs = [RunFolder(path) for seed, path in enumerate(paths) if seed not in diverged]
    curves, config = [run.read_history() for run in runs], first.config
    splits = [member.split for member in first.read_split()]
    train_images = min(splits.count("train"), config.training.max_images or len(splits))
    speeds = [speed for speed in map(throughputs, curves) if speed]
    return Outcome(
        row=row,
        config=config,
        counts=costs_of(config.network_spec, config.preprocessing.size),
        accuracy=np.array([accuracy_on_test(run)[0] for run in runs]),
        train_accuracy=np.array([curve[-1]["accuracy"] for curve in curves]),
        seconds=np.array([train_images / np.median(speed) for speed in speeds]),
        file_bytes=runs[0].weights.stat().st_size if runs else None,
        curves=curves,
        test_images=splits.count("test"),
        train_images=train_images,
        validated="validation" in splits,
        diverged=diverged,
        environments=[RunFolder(path).read_json("environment.json") for path in paths],
    )
