"""One small study, trained once for all tests of its runs, results and page."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from residua.studies.claims.imagenet_accuracies import ROWS, Point, counted
from residua.studies.run_study import run_study
from residua.studies.study import StudyOptions
from residua.system.console import Console

TINY = """
title: Two <orders>
claim: It makes no difference.
source: nobody
settings:
  network.name: cifar_resnet14
  preprocessing.size: 8
  training.epochs: 1
  training.max_images: 32
rows:
  a: {description: original, network.ordering: a}
  e: {description: pre-activation, network.ordering: e}
families: {both: [a, e]}
published:
  - {title: Error of others, source: a paper, columns: [row, error], rows: [[a, 6.61], [e, 6.37]]}
time_to_accuracy: true
"""
MEASURED = ("seconds per epoch", "fastest seed", "slowest seed", "minutes of training")


@pytest.fixture(scope="session")
def tiny() -> str:
    """The text of a study of two rows."""
    return TINY


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a file."""
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def done(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder after two seeds; a test that writes to it copies it first."""
    out = tmp_path_factory.mktemp("done") / "study"
    return run_study(str(file), StudyOptions(seeds=2), str(out), Console(quiet=True)).parent


@pytest.fixture(scope="session")
def points() -> list[Point]:
    """Accuracy and cost of every network in the table of published accuracies."""
    return [counted(row) for row in ROWS]


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, str]]]:
    """Reads a table's CSV without the columns that are measured times."""

    def read(path: Path) -> list[dict[str, str]]:
        with path.open(newline="") as stream:
            return [
                {key: value for key, value in row.items() if key not in MEASURED}
                for row in csv.DictReader(stream)
            ]

    return read
