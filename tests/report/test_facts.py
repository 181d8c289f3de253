"""The facts of a report are those of the run, its data and its evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import residua
from residua.report import html
from residua.report.facts import CrossValidation, Probe, ReportFacts, Trial, transfer_facts
from residua.runs.folder import RunFolder

# transfer.json as version 0.1.0 wrote it
MEASURED: dict[str, Any] = {
    "taps": [
        {"stage": 3, "side": 2, "numbers": 256, "linear": 0.9, "neighbours": 0.8}
        | {"strength": 1.0, "loss": 0.3, "followed": False}
    ],
    "images": 60,
    "cross_validated": {"accuracy": 0.9, "interval": [0.8, 0.95], "images": 58}
    | {"taught": 60, "alone": 2},
    "table": [
        {"way": "full", "length": "trial", "epochs": 2, "seconds": 1.5, "predicted_seconds": None}
        | {"accuracy": 0.92, "gain": 0.02, "noise": 0.01}
    ],
    "hopes": {"full": 0.95},
    "chosen": "full",
    "reason": "it gained 2.0 points",
    "scenario": {"name": "few images", "reason": "60 images"},
    "data": {"images": 60, "classes": 3, "largest_to_smallest_class": 1.5, "width": 8, "height": 9},
}


def test_measurements_of_a_transfer_written_by_version_0_1_0_are_read() -> None:
    transfer = transfer_facts(json.loads(json.dumps(MEASURED)))
    assert transfer is not None
    assert transfer.probes == [Probe(3, 2, 256, 0.9, 0.8, 0.3, converged=False)]
    assert transfer.cross_validation == CrossValidation(0.9, (0.8, 0.95), 58, 2, 60)
    assert transfer.trials == [Trial("full", "trial", 2, 1.5, None, 0.92, 0.02, 0.01)]
    assert (transfer.chosen, transfer.reason) == ("full", "it gained 2.0 points")
    assert transfer.scenario == "60 images"
    assert transfer.expected == {"full": 0.95}
    assert transfer.data == (
        "60 training images, the largest class 1.5 times the smallest, median size 8 x 9 px"
    )


def test_plain_training_has_no_transfer_facts() -> None:
    assert transfer_facts({}) is None
    probes_alone = transfer_facts({"taps": MEASURED["taps"]})
    assert probes_alone is not None
    assert (probes_alone.cross_validation, probes_alone.chosen) == (None, None)


@pytest.mark.slow
def test_facts_are_those_of_the_run_folder(
    tmp_path: Path, write_digits: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[ReportFacts] = []
    monkeypatch.setattr(html, "write", lambda facts, folder: reports.append(facts) or ())
    data = write_digits(tmp_path / "digits", 12)
    settings = {"network.name": "cifar_resnet20", "training.epochs": 1}
    residua.train(data, out=tmp_path / "run", settings=settings, quiet=True)
    (facts,) = reports
    run = RunFolder.existing(tmp_path / "run")
    members = run.read_split()
    assert facts.classes == tuple(run.read_json("classes.json"))
    assert facts.data.images == len(members) == 120
    for split in ("train", "validation", "test"):
        assert facts.data.total(split) == sum(member.split == split for member in members)
    validation = facts.evaluation
    assert validation is not None
    assert (validation.split, validation.selected) == ("validation", True)
    assert (
        validation.metrics.accuracy
        == run.read_json("evaluations/validation/scores.json")["accuracy"]
    )
    assert facts.predictions is not None
    assert len(facts.predictions.paths) == validation.metrics.images
    assert facts.samples is not None
    assert len(facts.samples.labels) == len(facts.samples.pixels) == 24
    assert [row["epoch"] for row in facts.history] == [1]
    assert facts.best_epoch == 1
    assert tuple(facts.choices) == run.choices
    assert facts.network.total == facts.network.trainable + facts.network.non_trainable
    assert facts.transfer is None
    assert facts.environment["seed"] == 0
    assert facts.train_command == f"residua train {data} --recipe {tmp_path / 'run'}/config.yaml"
