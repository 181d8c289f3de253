"""Results are read from the files of finished runs, and damaged files are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.studies import definition
from residua.studies.results import accuracy_on_test, check_same_splits, outcome_of, run_path
from residua.studies.run_study import run_study
from residua.studies.study import StudyOptions
from residua.system.console import Console

pytestmark = pytest.mark.slow
QUIET = Console(quiet=True)


@pytest.fixture
def out(done: Path, tmp_path: Path) -> Path:
    return shutil.copytree(done, tmp_path / "study")


def test_a_diverged_seed_excludes_its_row_from_the_intervals(
    file: Path, out: Path, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    RunFolder(out / "runs/a/seed-0").write_json("diverged.json", {"message": "the loss became nan"})
    text = run_study(str(file), StudyOptions(seeds=2), str(out), QUIET).read_text()
    assert "Diverged: a (1 of 2 seeds)" in text
    assert "No two rows are left to compare." in text
    assert rows_of(out / "differences.csv") == []
    first, _ = rows_of(out / "rows.csv")
    scores = RunFolder(out / "runs/a/seed-1").read_json("evaluations/test/scores.json")
    assert float(first["test accuracy %"]) == pytest.approx(100 * scores["accuracy"])
    assert (first["+-"], first["diverged"]) == ("", "1")


def test_damaged_files_are_named(file: Path, out: Path) -> None:
    row = definition.read(str(file)).rows[1]
    scores = run_path(out, row, 0) / "evaluations/test/scores.json"
    text = scores.read_text()
    scores.write_text("{}")
    with pytest.raises(ResiduaError, match=r"scores\.json: expected accuracy and images"):
        outcome_of(row, out, 2)
    scores.write_text(text)
    history = run_path(out, row, 0) / "history.csv"
    history.write_text(history.read_text().splitlines()[0] + "\n")
    with pytest.raises(ResiduaError, match=r"runs/e: a file of its runs is damaged"):
        outcome_of(row, out, 2)


def test_scores_of_earlier_versions_are_read(file: Path, out: Path) -> None:
    run = RunFolder(run_path(out, definition.read(str(file)).rows[0], 0))
    name = "evaluations/test/scores.json"
    expected, scores = accuracy_on_test(run), run.read_json(name)
    scores["pictures"] = scores.pop("images")
    (run.path / name).write_text(json.dumps(scores))
    assert accuracy_on_test(run) == expected


def test_rows_of_other_images_are_refused(file: Path, out: Path) -> None:
    rows = definition.read(str(file)).rows
    check_same_splits(out, rows, 2)
    split = run_path(out, rows[1], 1) / "split.csv"
    whole = split.read_text()
    train_line = next(line for line in whole.splitlines() if ",train," in line)
    for damaged in (whole.replace(",test", ",train", 1), whole.replace(train_line + "\n", "")):
        split.write_text(damaged)
        with pytest.raises(
            ResiduaError,
            match=r"row e, seed 1, was trained or evaluated on other images than row a",
        ):
            check_same_splits(out, rows, 2)
