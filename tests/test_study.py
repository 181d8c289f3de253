"""A study is its runs, its tables and its page; it goes on where it was stopped."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from residua.cli.options import parsed
from residua.errors import ResiduaError
from residua.report.page import Figure, Page, Section, Table, write
from residua.runs.folder import RunFolder
from residua.studies import definition
from residua.studies.plan import Asked, settled
from residua.studies.provenance import settings_said
from residua.studies.run_study import conduct, listing
from residua.system.console import Console

QUIET = Console(quiet=True)
TINY = """
title: Two <orders>
claim: It makes no difference.
source: nobody
settings: {network.name: cifar_resnet20, training.epochs: 1, training.max_images: 96}
rows:
  a: {what: original, network.ordering: a}
  e: {what: pre-activation, network.ordering: e}
families: {both: [a, e]}
published:
  - {title: Error of others, source: a paper, columns: [row, error], rows: [[a, 6.61], [e, 6.37]]}
reach: true
"""
GRID = """
title: Depth
claim: It hurts.
source: nobody
degradation: {network: cifar_resnet, depths: [14, 32], ways: {SGD: {}, Adam: {}}}
"""
MEASURED = (  # of time, so never the same twice
    *("seconds an epoch", "fastest seed", "slowest seed"),
    "minutes of learning",
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def done(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done") / "study"
    return conduct(str(file), Asked("digits", 2), str(out), QUIET).parent


def started(file: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """The command in a process of its own, one that does not start itself again."""
    command = [sys.executable, "-m", "residua", "study", str(file), "--out", str(out), *more]
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def await_files(process: subprocess.Popen[str], out: Path, pattern: str, number: int = 1) -> None:
    """Until a running process has written that many files."""
    deadline = time.monotonic() + 120
    while len(list(out.glob(pattern))) < number and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    assert len(list(out.glob(pattern))) >= number


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return [
            {key: value for key, value in row.items() if key not in MEASURED}
            for row in csv.DictReader(stream)
        ]


def test_rows_are_ordinary_runs_whose_figures_the_table_holds(done: Path) -> None:
    for row in rows_of(done / "rows.csv"):
        runs = [RunFolder.existing(done / "runs" / row["row"] / f"seed-{k}") for k in range(2)]
        scores = [run.read_json("evaluations/test/scores.json")["accuracy"] for run in runs]
        assert float(row["test accuracy %"]) == pytest.approx(50 * sum(scores))
        assert [run.config.training.seed for run in runs] == [0, 1]
        assert {run.config.network.ordering for run in runs} == {row["row"]}
        assert all((run.path / "report.html").exists() for run in runs)


def test_the_page_says_what_its_tables_hold_and_asks_for_nothing(done: Path) -> None:
    text = (done / "index.html").read_text()
    (found,) = rows_of(done / "differences.csv")
    assert "Two &lt;orders&gt;" in text
    assert "http:" not in text.replace("http://www.w3.org", "")
    assert "https:" not in text
    assert ("no difference seen" in text) == (found["seen"] == "no")
    assert ("points higher than a" in text or "points lower than a" in text) == (
        found["seen"] == "yes"
    )
    assert "Error of others" in text
    assert text.count("data:image/svg+xml;base64,") == 3


def test_figures_are_images(done: Path) -> None:
    for name in ("curves", "losses", "accuracies"):
        with Image.open(done / "figures" / f"{name}.png") as image:
            assert image.size[0] > 800
        assert ET.parse(done / "figures" / f"{name}.svg").getroot().tag.endswith("svg")


def test_what_is_finished_is_not_trained_again(file: Path, done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*/*")}
    table = rows_of(done / "rows.csv")
    conduct(str(file), Asked("digits", 2), str(done), QUIET)
    assert {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*/*")} == before
    assert rows_of(done / "rows.csv") == table


def test_killed_and_gone_on_with_it_gives_the_same_tables(
    file: Path, done: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    for awaited in ("runs/a/seed-0/log.jsonl", "runs/e/seed-0/report.html"):
        process = started(file, out, "--seeds", "2")
        await_files(process, out, awaited)
        process.kill()
        process.communicate()
        assert not (out / "index.html").exists()
    process = started(file, out, "--seeds", "2")
    assert process.communicate(timeout=300)
    assert process.returncode == 0
    for name in ("rows.csv", "costs.csv", "differences.csv", "reach.csv", "published-1.csv"):
        assert rows_of(out / name) == rows_of(done / name)


def test_stopped_by_the_user_it_says_how_to_go_on(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    process = started(file, out)
    await_files(process, out, "runs/a/seed-0/state*")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"the same command goes on, in {out}" in " ".join(said.split())
    assert "Traceback" not in said


def test_a_folder_of_another_study_is_refused(file: Path, done: Path, tmp_path: Path) -> None:
    other = Asked("digits", 2, given={"training.epochs": 2})
    with pytest.raises(ResiduaError, match=r"training\.epochs = 1, not 2.*another --out"):
        conduct(str(file), other, str(done), QUIET)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ResiduaError, match="holds something else"):
        conduct(str(file), Asked("digits", 1), str(tmp_path), QUIET)
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


def test_two_at_once_give_the_same_tables(file: Path, done: Path, tmp_path: Path) -> None:
    conduct(str(file), Asked("digits", 2, jobs=2), str(tmp_path / "study"), QUIET)
    for name in ("rows.csv", "differences.csv"):
        assert rows_of(tmp_path / "study" / name) == rows_of(done / name)


def test_the_same_command_may_run_twice_at_once(file: Path, done: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    both = [started(file, out, "--seeds", "2") for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    for name in ("rows.csv", "differences.csv"):
        assert rows_of(out / name) == rows_of(done / name)


def test_ctrl_c_stops_helpers_too(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    process = started(file, out, "--jobs", "2", "--epochs", "200")
    await_files(process, out, "runs/*/seed-0/state*", 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"the same command goes on, in {out}" in " ".join(said.split())
    assert "Traceback" not in said
    for row in "ae":
        with RunFolder(out / "runs" / row).lock():
            pass


def test_a_helper_outlives_its_killed_parent_by_no_run(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    process = started(file, out, "--jobs", "2", "--epochs", "200")
    await_files(process, out, "runs/*/seed-0/state*", 2)
    process.kill()
    process.wait()
    time.sleep(4)
    before = {each: each.stat().st_mtime_ns for each in out.rglob("*")}
    time.sleep(2)
    assert {each: each.stat().st_mtime_ns for each in out.rglob("*")} == before
    for row in "ae":
        with RunFolder(out / "runs" / row).lock():
            pass


def test_a_run_that_diverges_is_recorded_and_left_out(tmp_path: Path) -> None:
    text = TINY.replace("original,", "original, optimization.learning_rate: 1.0e+30,")
    text = text.replace("[a, e]}", "[a, e, c]}", 1)
    text = text.replace("families", "  c: {what: other, network.ordering: c}\nfamilies")
    (tmp_path / "wild.yaml").write_text(text)
    out = tmp_path / "study"
    for _ in range(2):  # the second time nothing is trained
        conduct(str(tmp_path / "wild.yaml"), Asked("digits", 2), str(out), QUIET)
        assert "the loss became" in (out / "runs/a/seed-0/diverged.json").read_text()
        rows = {each["row"]: each for each in rows_of(out / "rows.csv")}
        assert [rows[name]["diverged"] for name in "aec"] == ["2", "0", "0"]
        assert rows["a"]["test accuracy %"] == ""
        (pair,) = rows_of(out / "differences.csv")
        assert (pair["from"], pair["to"]) == ("e", "c")
        text = (out / "index.html").read_text()
        assert "Diverged: a (2 of 2 seeds), so it is compared with nothing" in text
        written = {each: each.stat().st_mtime_ns for each in out.glob("runs/*/*/*")}
    assert {each: each.stat().st_mtime_ns for each in out.glob("runs/*/*/*")} == written


def test_one_diverged_seed_keeps_its_row_out_of_the_intervals(
    file: Path, done: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(done, tmp_path / "study")
    RunFolder(out / "runs/a/seed-0").write_json("diverged.json", {"message": "the loss became nan"})
    text = conduct(str(file), Asked("digits", 2), str(out), QUIET).read_text()
    assert "Diverged: a (1 of 2 seeds)" in text
    assert "No two rows are left to compare." in text
    assert rows_of(out / "differences.csv") == []
    first, _ = rows_of(out / "rows.csv")
    scores = RunFolder(out / "runs/a/seed-1").read_json("evaluations/test/scores.json")
    assert float(first["test accuracy %"]) == pytest.approx(100 * scores["accuracy"])
    assert (first["+-"], first["diverged"]) == ("", "1")


def test_damaged_runs_and_other_data_are_named(file: Path, done: Path, tmp_path: Path) -> None:
    out = shutil.copytree(done, tmp_path / "study")
    scores = out / "runs/a/seed-0/evaluations/test/scores.json"
    text = scores.read_text()
    scores.write_text("{}")
    with pytest.raises(ResiduaError, match=r"scores\.json: expected accuracy and images"):
        conduct(str(file), Asked("digits", 2), str(out), QUIET)
    scores.write_text(text)
    history = out / "runs/e/seed-0/history.csv"
    rows = history.read_text()
    history.write_text(rows.splitlines()[0] + "\n")
    with pytest.raises(ResiduaError, match=r"runs/e: a file of its runs is not what training"):
        conduct(str(file), Asked("digits", 2), str(out), QUIET)
    history.write_text(rows)
    split = out / "runs/e/seed-1/split.csv"
    whole = split.read_text()
    lines = whole.splitlines()
    without = next(each for each in lines if ",train," in each)
    for damaged in (whole.replace(",test", ",train", 1), whole.replace(without + "\n", "")):
        split.write_text(damaged)
        with pytest.raises(
            ResiduaError,
            match=r"row e, seed 1, learns from or is judged by other images than row a",
        ):
            conduct(str(file), Asked("digits", 2), str(out), QUIET)


def test_settings_stay_those_of_a_process_that_prepares_its_first_run(
    file: Path, tmp_path: Path
) -> None:
    """It has settled them, but its run folder has no file yet."""
    out = tmp_path / "study"
    (out / "runs" / "a").mkdir(parents=True)
    settled(definition.read(str(file)), Asked("digits", 1), out, QUIET)
    holding = (
        "import sys; from pathlib import Path; from residua.run import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holding, str(out / "runs" / "a")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        longer = Asked("digits", 1, given={"training.epochs": 5})
        with pytest.raises(ResiduaError, match="holds runs of this study with other settings"):
            settled(definition.read(str(file)), longer, out, QUIET)
    finally:
        other.communicate()
    configs, _ = settled(definition.read(str(file)), longer, out, QUIET)
    assert configs["a"].training.epochs == 5


def test_a_shorter_paper_drops_its_rate_at_the_same_shares(tmp_path: Path) -> None:
    study = definition.read("orderings", paper=True)
    asked = Asked("digits", 1, paper=True, given=parsed(["training.epochs=41"]))
    configs, _ = settled(study, asked, tmp_path, QUIET)
    assert configs["a"].optimization.steps == ((20.5, 0.1), (30.75, 0.01))  # of 82, 123 in 164
    own = {"training.epochs": 41, "optimization.steps": [[5, 0.1]]}
    by_hand = Asked("digits", 1, paper=True, given=own)
    configs, _ = settled(study, by_hand, tmp_path, QUIET)
    assert "keep" not in settings_said(by_hand, True)
    assert configs["a"].optimization.steps == ((5, 0.1),)
    said = settings_said(asked, True)
    assert "but for what was given: training.epochs = 41 (the steps of the rate keep" in said
    assert settings_said(Asked("digits", 1, paper=True), True).endswith("for its paper (--paper).")
    assert "as many epochs as 20m hold" in settings_said(Asked("digits", 1, budget="20m"), True)


def test_a_mistake_before_the_first_run_claims_no_folder(file: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "study")
    wrong = Asked("digits", 1, given={"network.name": "cifar_resnet21"})
    with pytest.raises(ResiduaError, match=r"study tiny, row a: 'cifar_resnet21' is no known"):
        conduct(str(file), wrong, out, QUIET)
    with pytest.raises(ResiduaError, match="nowhere"):
        conduct(str(file), Asked(str(tmp_path / "nowhere"), 1), out, QUIET)
    assert conduct(str(file), Asked("digits", 1), out, QUIET).exists()


def test_the_papers_settings_are_laid_over_those_for_a_small_machine() -> None:
    depth = definition.read("depth", paper=True)
    (sgd, *_) = depth.degradation
    assert [row.name for row in sgd.plain] == [f"plain{k}-sgd" for k in (20, 32, 44, 56)]
    config = depth.config(sgd.plain[-1], {})
    assert config.network.name == "cifar_resnet56"
    assert (config.network.shortcut, config.optimization.learning_rate) == ("none", 0.1)
    assert (config.training.epochs, config.training.batch_size) == (164, 128)
    assert depth.config(depth.degradation[2].residual[0], {}).optimization.optimizer == "adam"
    steps, cosine = definition.read("recipe", paper=True).rows
    recipe = definition.read("recipe", paper=True).config(steps, {})
    assert recipe.optimization.steps == ((81, 0.1), (122, 0.01))
    assert recipe.training.epochs == 200 > cosine.settings["training.epochs"]
    tutorial = definition.read("mixed34", paper=True)
    config = tutorial.config(tutorial.rows[1], {})
    assert (config.network.name, config.augmentation.shift) == ("tutorial_cifar_resnet34", 0.125)


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("orderings", Asked("digits", 1, given={"training.seed": 3}), "a study sets it itself"),
        ("recipe", Asked("digits", 1, budget="1m"), "has its own epochs"),
        (
            "recipe",
            Asked("digits", 1, given={"training.epochs": 3}),
            r"--epochs: the rows of study recipe differ in it \(steps: 40, cosine: 13\)",
        ),
        (
            "recipe",
            Asked("digits", 1, given={"optimization.schedule": "cosine"}),
            "differ in it",  # by the recipe of one of them
        ),
        (
            "depth",
            Asked("digits", 1, given={"optimization.optimizer": "sgd"}),
            r"--set optimization.optimizer: .* which is what they compare",
        ),
        (
            "deep",
            Asked("digits", 1, given={"network.name": "cifar_resnet20"}),
            "differ in it",
        ),
        (
            "orderings",
            Asked("digits", 1, budget="1m", given={"training.epochs": 3}),
            "leave one out",
        ),
    ],
)
def test_what_would_spoil_a_comparison_is_refused(
    name: str, asked: Asked, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ResiduaError, match=words):
        conduct(name, asked, str(tmp_path / "out"), QUIET)


def test_a_damaged_or_older_study_file(file: Path, done: Path) -> None:
    text = (done / "study.json").read_text()
    kept = json.loads(text)
    for row in kept["rows"].values():
        del row["network"]["cardinality"]  # as if the setting were newer than the study
    (done / "study.json").write_text(json.dumps(kept))
    conduct(str(file), Asked("digits", 2), str(done), QUIET)
    (done / "study.json").write_text(json.dumps({"study": "tiny", "budget": ""}))
    with pytest.raises(ResiduaError, match=r"study\.json: is not what a study writes"):
        conduct(str(file), Asked("digits", 2), str(done), QUIET)
    (done / "study.json").write_text(text)


def test_more_seeds_go_on_from_the_ones_that_are_there(file: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "study")
    conduct(str(file), Asked("digits", 1), out, QUIET)
    (single,) = rows_of(tmp_path / "study" / "differences.csv")
    assert single["seen"] == "one seed"
    assert "nothing is claimed" in (tmp_path / "study" / "index.html").read_text()
    first = (tmp_path / "study/runs/a/seed-0/report.html").stat().st_mtime_ns
    conduct(str(file), Asked("digits", 2), out, QUIET)
    (both,) = rows_of(tmp_path / "study" / "differences.csv")
    assert both["seen"] in ("yes", "no")
    assert (tmp_path / "study/runs/a/seed-0/report.html").stat().st_mtime_ns == first


def test_a_budget_becomes_epochs_that_are_kept(file: Path, tmp_path: Path) -> None:
    asked = Asked("digits", 1, budget="30s")
    conduct(str(file), asked, str(tmp_path / "study"), QUIET)
    epochs = json.loads((tmp_path / "study" / "study.json").read_text())["epochs"]
    assert epochs > 1
    for row in "ae":
        run = RunFolder.existing(tmp_path / "study" / "runs" / row / "seed-0")
        assert run.config.training.epochs == epochs
        assert len(run.read_history()) == epochs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: [", "cannot be read"),
        ("just words", "expected title, claim, source and rows"),
        (TINY.replace("claim:", "clam:"), "'clam' is unknown"),
        (TINY.replace("both: [a, e]", "both: [a, f]"), "compares 'f', which is none of its rows"),
        (TINY.replace("ordering: e", "ordering: z"), r"network\.ordering = 'z'"),
        (TINY.replace("  e: {", "  ../e: {"), "row '../e'"),
        (TINY.replace("rows:\n", "rows: 3\nlines:\n"), "'lines' is unknown"),
        (TINY.replace("what: original, ", ""), "not what a study looks like"),
        (TINY.replace("both: [a, e]", "both: [a]"), "compare two rows or more"),
        (TINY.replace("network.name: cifar_resnet20, ", ""), "row a names no network"),
        (TINY + "sections: foo\n", "sections = 'foo': expected one of cardinality"),
        (TINY + "paper: 3\n", "paper = 3: expected keys of the study"),
        (TINY + "paper: {paper: {}}\n", "expected keys of the study"),
        (TINY + "paper: {families: {both: [a, f]}}\n", "compares 'f'"),
        (TINY.replace("both: [a, e]", "both: ae"), "not what a study looks like"),
        (TINY.replace("both: [a, e]", "both: [a, a]"), "'a' stands twice"),
        (TINY.replace("  e: {", "  A: {what: x}\n  e: {"), "'a' stands twice"),
        (TINY.replace("[e, 6.37]", "[e]"), r"published 'Error of others': \['e'\]"),
        (TINY.replace("source: nobody", "source: 2015-02-30"), "cannot be read"),
        (TINY.replace("source: nobody", "source:"), "source = None: expected a text"),
        (TINY.replace("source: nobody", "source: 2016"), "source = 2016: expected a text"),
        (TINY.replace("source: nobody", "source: 2015-02-28"), "expected a text"),
        (TINY.replace("source: a paper", "source: 2016"), r"'Error of others': source = 2016"),
        (TINY.replace("columns: [row, error]", "columns: [row, 3]"), r"columns = \['row', 3\]"),
        (GRID.replace("[14, 32]", "[32, 14]"), "each greater than the last"),
        (GRID.replace("[14, 32]", "[14, 14]"), "each greater than the last"),
        (GRID.replace("Adam", "sgd"), "'plain14-sgd' stands twice"),
        (TINY + "paper: {clam: 3}\n", "'clam' is unknown"),
        (TINY + "degradation: {network: cifar_resnet, depths: [20]}\n", "not what a study looks"),
    ],
)
def test_a_file_that_is_no_study_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ResiduaError, match=words) as caught:
        conduct(str(tmp_path / "own.yaml"), Asked("digits", 1), str(tmp_path / "out"), QUIET)
    assert "own.yaml" in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


def test_a_place_that_cannot_hold_a_study_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    for place in ("letter", "letter/below", "a" * 300):
        with pytest.raises(ResiduaError, match=r"cannot hold|holds something else|is not empty"):
            conduct(str(file), Asked("digits", 1), str(tmp_path / place), QUIET)
    assert (tmp_path / "letter").read_text() == "dear"


def test_every_study_that_is_listed_can_be_read() -> None:
    names = [name for name, _ in listing()]
    assert len(names) == len(set(names))
    for name in definition.shipped():
        for paper in (False, True):
            found = definition.read(name, paper=paper)
            assert found.families or found.degradation
        assert name in names
    with pytest.raises(ResiduaError, match=r"expected a \.yaml file or one of .*orderings"):
        conduct("ordering", Asked("digits", 1), None, QUIET)


def test_cells_and_characters_survive_all_forms(tmp_path: Path) -> None:
    cells = ("a|b <i>\n", 1_234_567, 0.123456789, None, 3.2e-7)
    table = Table("odd", "Odd cells", ("text", "int", "float", "none", "small"), [cells])
    figure = Figure("plain", "A & B", lambda canvas: canvas.subplots().plot([1, 2]))
    write(Page("T", "C", "S", ["F"], [Section("H", ["<b>"], [table], [figure])]), tmp_path)
    (row,) = rows_of(tmp_path / "odd.csv")
    assert row == {
        "text": "a|b <i>\n",
        "int": "1234567",
        "float": "0.123456789",
        "none": "",
        "small": "3.2e-07",
    }
    page, text = (tmp_path / "index.html").read_text(), (tmp_path / "tables.md").read_text()
    assert "1,234,567" in page
    assert "1,234,567" in text
    assert "a\\|b <i> " in text
    assert "&lt;i&gt;" in page
    assert "0.1235" in text
    first = (tmp_path / "figures" / "plain.svg").read_bytes()
    write(Page("T", "C", "S", ["F"], [Section("H", (), [table], [figure])]), tmp_path)
    assert (tmp_path / "figures" / "plain.svg").read_bytes() == first
