"""What is printed and logged about a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from references.tasks import config_for, network_for, task_for

from residua.runs.folder import RunFolder
from residua.system.console import Console, short_count
from residua.training.loop import fit


def test_history_log_and_lines_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = config_for(training__epochs=2), RunFolder(tmp_path)
    progress = fit(network_for(config), task_for(config), config, folder, Console())
    assert folder.read_history() == progress.history
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["precise_bn", "epoch", "epoch", "end"]
    assert [event["step"] for event in events] == [0, 3, 6, 6]
    assert events[1]["val_loss"] == progress.history[0]["val_loss"]
    printed = capsys.readouterr().err
    assert "parameters (" in printed
    assert "trainable, 0 frozen)" in printed
    assert f"epoch   2/2  loss {progress.history[1]['loss']:.4f}" in printed
    assert printed.count("  *") == sum(event.get("best", False) for event in events)


def test_numbers_of_parameters_are_short() -> None:
    assert [short_count(number) for number in (999, 269_722, 11_179_590)] == [
        "999",
        "269.7 k",
        "11.2 M",
    ]
