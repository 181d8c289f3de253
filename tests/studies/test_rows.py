"""Runs of a study are trained once, resume after any stop, and share their work."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from references.lines import Lines

from residua.runs.folder import RunFolder
from residua.studies.run_study import run_study
from residua.studies.study import StudyOptions
from residua.system.console import Console
from residua.system.signals import Interrupted

pytestmark = pytest.mark.slow
QUIET = Console(quiet=True)
Rows = Callable[[Path], list[dict[str, str]]]


def started(file: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """The command in a process that does not start itself again."""
    command = [sys.executable, "-m", "residua", "study", str(file), "--out", str(out), *options]
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def await_files(process: subprocess.Popen[str], out: Path, pattern: str, number: int = 1) -> None:
    """Wait until a running process has written that many files."""
    deadline = time.monotonic() + 120
    while len(list(out.glob(pattern))) < number and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    assert len(list(out.glob(pattern))) >= number


def modified(folder: Path) -> dict[Path, int]:
    files = folder.glob("runs/*/*/*")
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in files}


def test_rows_are_ordinary_runs_whose_accuracies_the_table_averages(
    done: Path, rows_of: Rows
) -> None:
    for row in rows_of(done / "rows.csv"):
        runs = [RunFolder.existing(done / "runs" / row["row"] / f"seed-{k}") for k in range(2)]
        scores = [run.read_json("evaluations/test/scores.json")["accuracy"] for run in runs]
        assert float(row["test accuracy %"]) == pytest.approx(50 * sum(scores))
        assert [run.config.training.seed for run in runs] == [0, 1]
        names = {"a": "original", "e": "full_preactivation"}
        assert {run.config.network.ordering for run in runs} == {names[row["row"]]}
        assert all((run.path / "report.html").exists() for run in runs)


def test_finished_runs_are_not_trained_again(
    file: Path, done: Path, tmp_path: Path, rows_of: Rows
) -> None:
    out = shutil.copytree(done, tmp_path / "study")
    before = modified(out)
    run_study(str(file), StudyOptions(seeds=2), str(out), QUIET)
    assert modified(out) == before
    assert rows_of(out / "rows.csv") == rows_of(done / "rows.csv")


def test_a_killed_study_resumes_to_the_same_tables(
    file: Path, done: Path, tmp_path: Path, rows_of: Rows
) -> None:
    out = shutil.copytree(done, tmp_path / "study")
    last = out / "runs" / "e" / "seed-1"
    shutil.rmtree(last)
    (out / "index.html").unlink()
    process = started(file, out, "--seeds", "2")
    await_files(process, last, "log.jsonl")
    process.kill()
    process.communicate()
    assert not (out / "index.html").exists()
    run_study(str(file), StudyOptions(seeds=2), str(out), QUIET)
    expected = RunFolder(done / "runs" / "e" / "seed-1")
    assert RunFolder(last).weights.read_bytes() == expected.weights.read_bytes()
    for name in ("rows", "costs", "differences", "time-to-accuracy", "published-1"):
        assert rows_of(out / f"{name}.csv") == rows_of(done / f"{name}.csv")


def test_runs_that_another_process_trains_are_awaited(
    file: Path, done: Path, tmp_path: Path, rows_of: Rows
) -> None:
    out, console = shutil.copytree(done, tmp_path / "study"), Lines()
    row = out / "runs" / "a"
    (row / "seed-1").rename(tmp_path / "finished elsewhere")
    locked = threading.Event()

    def finish() -> None:
        with RunFolder(row).lock():
            locked.set()
            deadline = time.monotonic() + 120
            while "waiting" not in console.text and time.monotonic() < deadline:
                time.sleep(0.02)
            (tmp_path / "finished elsewhere").rename(row / "seed-1")

    other = threading.Thread(target=finish)
    other.start()
    locked.wait()
    run_study(str(file), StudyOptions(seeds=2), str(out), console)
    other.join()
    assert "waiting for another process, which trains 3 of 4: a, seed 1" in console.text
    assert modified(out) == modified(done)
    assert rows_of(out / "rows.csv") == rows_of(done / "rows.csv")


def test_ctrl_c_stops_the_workers_too_and_prints_how_to_resume(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    both = [out / "runs" / row / "seed-0" / "state.safetensors" for row in "ae"]

    def interrupt() -> None:
        deadline = time.monotonic() + 120
        while not all(state.exists() for state in both) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    options = StudyOptions(seeds=1, jobs=2, settings={"training.epochs": 200})
    with pytest.raises(Interrupted, match=f"the same command resumes the study in {out}"):
        run_study(str(file), options, str(out), QUIET)
    assert all(state.exists() for state in both)  # both processes were training
    assert not multiprocessing.active_children()
    for row in "ae":
        with RunFolder(out / "runs" / row).lock():
            pass


def test_a_diverged_run_is_recorded_and_excluded(tiny: str, tmp_path: Path, rows_of: Rows) -> None:
    text = tiny.replace("original,", "original, optimization.learning_rate: 1.0e+30,")
    text = text.replace("[a, e]}", "[a, e, c]}", 1)
    text = text.replace("families", "  c: {description: other, network.ordering: c}\nfamilies")
    (tmp_path / "wild.yaml").write_text(text)
    out = tmp_path / "study"
    for _ in range(2):  # the second time nothing is trained
        before = modified(out)
        run_study(str(tmp_path / "wild.yaml"), StudyOptions(seeds=1), str(out), QUIET)
        assert before in ({}, modified(out))
        assert "finite" in (out / "runs/a/seed-0/diverged.json").read_text()
        rows = {row["row"]: row for row in rows_of(out / "rows.csv")}
        assert [rows[name]["diverged"] for name in "aec"] == ["1", "0", "0"]
        assert rows["a"]["test accuracy %"] == ""
        (pair,) = rows_of(out / "differences.csv")
        assert (pair["from"], pair["to"]) == ("e", "c")
        page = (out / "index.html").read_text()
        assert "Diverged: a (1 of 1 seed), excluded from all claims" in page


def test_more_seeds_are_trained_beside_the_earlier_ones(
    file: Path, done: Path, tmp_path: Path, rows_of: Rows
) -> None:
    out = shutil.copytree(done, tmp_path / "study")
    shutil.rmtree(out / "runs" / "e" / "seed-1")
    run_study(str(file), StudyOptions(seeds=1), str(out), QUIET)
    (single,) = rows_of(out / "differences.csv")
    assert single["significant"] == "one seed"
    assert "nothing is claimed" in (out / "index.html").read_text()
    before = modified(out)
    run_study(str(file), StudyOptions(seeds=2), str(out), QUIET)
    assert rows_of(out / "differences.csv") == rows_of(done / "differences.csv")
    assert before.items() <= modified(out).items()
