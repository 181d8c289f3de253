"""The settings of all rows are fixed once, and anything that spoils a comparison is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.studies import definition
from residua.studies.plan import plan
from residua.studies.study import STUDY, StudyOptions
from residua.system.console import Console

QUIET = Console(quiet=True)


def test_settings_are_fixed_while_another_process_prepares_the_first_run(
    file: Path, tmp_path: Path
) -> None:
    """The other process has planned the study, but its run folder has no file yet."""
    import fcntl

    study = definition.read(str(file))
    (tmp_path / "runs" / "a").mkdir(parents=True)
    plan(study, StudyOptions(seeds=1), tmp_path, QUIET)
    longer = StudyOptions(seeds=1, settings={"training.epochs": 5})
    with (tmp_path / "runs" / "a" / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # another open file: the lock is refused to this process
        with pytest.raises(ResiduaError, match="contains runs of this study with other settings"):
            plan(study, longer, tmp_path, QUIET)
    assert plan(study, longer, tmp_path, QUIET)["a"].training.epochs == 5


def test_a_shorter_training_drops_the_learning_rate_at_the_same_fractions(
    tiny: str, tmp_path: Path
) -> None:
    steps = "{optimization.schedule: steps, optimization.steps: [[82, 0.1], [123, 0.01]]"
    text = f"{tiny}paper: {{settings: {steps}, training.epochs: 164}}}}\n"
    (tmp_path / "steps.yaml").write_text(text)
    study = definition.read(str(tmp_path / "steps.yaml"), paper=True)
    shorter = StudyOptions(seeds=1, paper=True, settings={"training.epochs": "41"})
    config = plan(study, shorter, tmp_path, QUIET)["a"]
    assert config.optimization.steps == ((20.5, 0.1), (30.75, 0.01))
    settings = {"training.epochs": 41, "optimization.steps": [[5, 0.1]]}
    explicit = StudyOptions(seeds=1, paper=True, settings=settings)
    assert plan(study, explicit, tmp_path, QUIET)["a"].optimization.steps == ((5, 0.1),)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("orderings", StudyOptions(settings={"training.seed": 3}), "is set by the study"),
        ("recipe", StudyOptions(budget="1m"), "has its own epochs"),
        (
            "recipe",
            StudyOptions(settings={"training.epochs": 3}),
            r"--epochs: the rows of study recipe differ in it \(steps: 40, cosine: 13\)",
        ),
        (  # by the recipe of one of them
            "recipe",
            StudyOptions(settings={"optimization.schedule": "cosine"}),
            "differ in it",
        ),
        (
            "depth",
            StudyOptions(settings={"optimization.optimizer": "sgd"}),
            r"--set optimization.optimizer: .* so the study compares it",
        ),
        ("deep", StudyOptions(settings={"network.name": "cifar_resnet20"}), "differ in it"),
        (
            "recipe",
            StudyOptions(settings={"training.batch": 32}),  # the name of version 0.1.0
            "--set training.batch_size: the rows of study recipe differ in it",
        ),
        (
            "orderings",
            StudyOptions(budget="1m", settings={"training.epochs": 3}),
            "leave one out",
        ),
    ],
)
def test_options_that_spoil_a_comparison_are_refused(
    name: str, options: StudyOptions, words: str, tmp_path: Path
) -> None:
    paper = "batch" in str(options.settings)
    with pytest.raises(ResiduaError, match=words):
        plan(definition.read(name, paper=paper), options, tmp_path, QUIET)
    assert not list(tmp_path.iterdir())


def test_a_mistake_before_the_first_run_records_nothing(file: Path, tmp_path: Path) -> None:
    study = definition.read(str(file))
    wrong = StudyOptions(settings={"network.name": "cifar_resnet21"})
    with pytest.raises(ResiduaError, match=r"study tiny, row a: unknown model 'cifar_resnet21'"):
        plan(study, wrong, tmp_path, QUIET)
    assert not (tmp_path / STUDY).exists()


def record_runs(folder: Path) -> None:
    """As if a run had begun: from now on the settings count."""
    (folder / "runs" / "a" / "seed-0").mkdir(parents=True)
    (folder / "runs" / "a" / "seed-0" / "config.yaml").touch()


def test_records_of_earlier_versions_are_resumed(file: Path, tmp_path: Path) -> None:
    study, options = definition.read(str(file)), StudyOptions(seeds=1)
    expected = plan(study, options, tmp_path, QUIET)
    record_runs(tmp_path)
    saved = json.loads((tmp_path / STUDY).read_text())
    for row in saved["rows"].values():
        del row["network"]["cardinality"]  # a setting newer than the study
        row["training"]["pictures"] = row["training"].pop("max_images")
        row["optimization"]["rate"] = row["optimization"].pop("learning_rate")
    (tmp_path / STUDY).write_text(json.dumps(saved))
    assert plan(study, options, tmp_path, QUIET) == expected
    longer = StudyOptions(seeds=1, settings={"training.epochs": 2})
    with pytest.raises(ResiduaError, match=r"training\.epochs = 1, not 2.*another --out"):
        plan(study, longer, tmp_path, QUIET)


def test_a_damaged_record_is_named(file: Path, tmp_path: Path) -> None:
    for content in ({"study": "tiny", "budget": ""}, {"rows": {"a": 3}, "epochs": None}, [1]):
        (tmp_path / STUDY).write_text(json.dumps(content))
        with pytest.raises(ResiduaError, match=r"study\.json: is not the record of a study"):
            plan(definition.read(str(file)), StudyOptions(), tmp_path, QUIET)


@pytest.mark.slow
def test_a_budget_is_measured_once_and_becomes_epochs(file: Path, tmp_path: Path) -> None:
    study, options = definition.read(str(file)), StudyOptions(seeds=1, budget="2m")
    plans = plan(study, options, tmp_path, QUIET)
    epochs = json.loads((tmp_path / STUDY).read_text())["epochs"]
    assert epochs > 1
    assert {config.training.epochs for config in plans.values()} == {epochs}
    record_runs(tmp_path)
    before = (tmp_path / STUDY).stat().st_mtime_ns
    assert plan(study, options, tmp_path, QUIET) == plans
    assert (tmp_path / STUDY).stat().st_mtime_ns == before
    assert RunFolder(tmp_path).read_json(STUDY)["budget"] == "2m"
