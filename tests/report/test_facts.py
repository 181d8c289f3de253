"""The facts of a report are those of the run, its data and its evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from references.runs import trained

from residua.data.prepare import prepare
from residua.report.facts import report_facts
from residua.system.console import Console
from residua.training.checkpoint import STATE
from residua.training.progress import Progress
from residua.weights.native import read_weights


@pytest.mark.slow
def test_facts_are_those_of_the_run_folder(
    tmp_path: Path, write_digits: Callable[..., Path]
) -> None:
    data = write_digits(tmp_path / "digits", 12)
    finished = trained(data, tmp_path / "run", model="cifar_resnet14", epochs=1)
    run = finished.folder
    prepared = prepare(run.config, Console(quiet=True))
    _, state = read_weights(run.path / STATE)
    progress = Progress.from_json(state.notes["progress"])
    facts = report_facts(run, prepared, finished.evaluate(), progress)
    members = run.read_split()
    assert facts.classes == tuple(run.read_json("classes.json"))
    assert facts.data.images == len(members) == 120
    for split in ("train", "validation", "test"):
        assert facts.data.total(split) == sum(member.split == split for member in members)
    validation = facts.evaluation
    assert validation is not None
    assert validation.split == "validation"
    assert "the validation set was also used for model selection" in validation.caveat
    assert (
        validation.metrics.accuracy
        == run.read_json("evaluations/validation/scores.json")["accuracy"]
    )
    assert len(validation.paths) == validation.metrics.images
    assert facts.samples is not None
    assert list(map(len, facts.samples)) == [24, 24]
    assert [row["epoch"] for row in facts.history] == [1]
    assert facts.best_epoch == 1
    assert tuple(facts.choices) == run.choices
    assert facts.cost.parameters >= facts.cost.trainable > facts.cost.buffers
    assert facts.transfer is None
    assert facts.environment["seed"] == 0
    for file in (run.weights, run.path / "split.csv"):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (name,) = [key for key, value in facts.environment.items() if value == digest]
        assert file.name in name
    assert str(facts.environment["date"])[:10] == datetime.now().astimezone().date().isoformat()
    assert facts.train_command == f"residua train {data} --recipe {tmp_path / 'run'}/config.yaml"
