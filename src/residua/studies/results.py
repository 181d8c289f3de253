"""The runs of a row -> what they came to."""

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

DIVERGED = "diverged.json"  # in the folder of a run whose loss or weights were no longer finite


@dataclass(frozen=True, eq=False)
class Outcome:
    """One row's runs: what each of the seeds that did not diverge came to, in their order [S].

    accuracy, train_accuracy: in [0, 1], of the test part by the last weights, and of the last
    epoch's training images as they were shown. seconds: of an epoch, learning alone, of the
    seeds that know it. size: bytes of the weights file; None if all seeds diverged. curves:
    history.csv of each seed. tested, taught: images. chosen: whether a validation part that the
    data brings chose the weights. diverged: the seeds whose loss did not stay finite. machines:
    what environment.json says.
    """

    row: Row
    config: Config
    counts: Counts
    accuracy: npt.NDArray[np.float64]
    train_accuracy: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    size: int | None
    curves: Sequence[Sequence[Mapping[str, float]]]
    tested: int
    taught: int
    chosen: bool
    diverged: tuple[int, ...]
    machines: Sequence[Mapping[str, Any]]


def place_of(folder: Path, row: Row, seed: int) -> Path:
    """The run folder of a row and a seed, in the folder of a study."""
    return folder / "runs" / row.name / f"seed-{seed}"


def has_diverged(place: Path) -> bool:
    """Whether the run came to its end by a loss that is not finite."""
    return (place / DIVERGED).exists()


def is_finished(place: Path) -> bool:
    """Whether nothing is left to train: the report is the last file that a run writes."""
    return (place / "report.html").exists() or has_diverged(place)


def judged(run: RunFolder) -> tuple[float, int]:
    """Accuracy in [0, 1] on the test part, which every run of a study has, and its images.

    Raises ResiduaError that names the file.
    """
    name = "evaluations/test/scores.json"
    scores = run.read_json(name)
    try:
        return float(scores["accuracy"]), int(scores["images"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResiduaError(
            f"{run.path / name}: expected accuracy and images. `residua evaluate {run.path}` "
            "writes it again."
        ) from error


def outcome_of(row: Row, folder: Path, seeds: int) -> Outcome:
    """Read all runs of a row, which are finished. Raises ResiduaError that names a bad file."""
    try:
        return _outcome(row, folder, seeds)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        place = folder / "runs" / row.name
        raise ResiduaError(
            f"{place}: a file of its runs is not what training writes: {error!r}. Remove the run "
            "that is damaged, and the same command trains it anew."
        ) from error


def compare_parts(folder: Path, rows: Sequence[Row], seeds: int) -> None:
    """Raise ResiduaError unless all rows of a seed learn from, and are judged by, the same."""
    for seed in range(seeds):
        parts = [_images(place_of(folder, row, seed)) for row in rows]
        for row, images in zip(rows, parts, strict=True):
            if images != parts[0]:
                raise ResiduaError(
                    f"{folder}: row {row.name}, seed {seed}, learns from or is judged by other "
                    f"images than row {rows[0].name}: the data has changed since the study "
                    "began. Give another --out, or restore the data and remove the runs that saw "
                    "it otherwise."
                )


def _images(place: Path) -> set[tuple[str, str, str]]:
    """Part, class and content of each."""
    return {(each.split, each.label, each.sha256) for each in RunFolder(place).read_split()}


def _outcome(row: Row, folder: Path, seeds: int) -> Outcome:
    places = [place_of(folder, row, seed) for seed in range(seeds)]
    diverged = tuple(seed for seed, place in enumerate(places) if has_diverged(place))
    first = RunFolder(places[0])
    runs = [RunFolder(place) for seed, place in enumerate(places) if seed not in diverged]
    curves, config = [run.read_history() for run in runs], first.config
    parts = [each.split for each in first.read_split()]
    taught = min(parts.count("train"), config.training.max_images or len(parts))
    return Outcome(
        row=row,
        config=config,
        counts=costs_of(config.network_spec, config.preprocessing.size),
        accuracy=np.array([judged(run)[0] for run in runs]),
        train_accuracy=np.array([curve[-1]["accuracy"] for curve in curves]),
        seconds=np.array([taught / np.median(each) for each in map(throughputs, curves) if each]),
        size=runs[0].weights.stat().st_size if runs else None,
        curves=curves,
        tested=parts.count("test"),
        taught=taught,
        chosen="validation" in parts,
        diverged=diverged,
        machines=[RunFolder(place).read_json("environment.json") for place in places],
    )
