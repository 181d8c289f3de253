"""`residua models` describes a row, or lists all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residua.errors import ResiduaError
from residua.networks.analysis.describe import describe, list_models
from residua.networks.zoo import catalogue

pytestmark = pytest.mark.usefixtures("one_thread")


def test_options_change_the_described_network() -> None:
    description = describe("cifar_resnet20", classes=5, channels=1, size=28, ordering="e")
    assert description.input == (1, 28, 28)
    text = description.text(as_json=False)
    assert "stages.0.units.0.before.norm" in text
    assert "Parameters: " in text
    described = json.loads(description.text(as_json=True))
    assert (described["name"], described["input"]) == ("cifar_resnet20", [1, 28, 28])
    assert described["total"] == described["trainable"] + described["non_trainable"]


def test_defaults_are_the_rows() -> None:
    description = describe("tutorial_resnet18")
    assert description.input == (1, 224, 224)
    assert json.loads(description.text(as_json=True))["trainable"] == 11_178_378


def test_a_drawing_is_written_as_svg_only(tmp_path: Path) -> None:
    description = describe("cifar_resnet14")
    description.draw(tmp_path / "units.svg")
    assert (tmp_path / "units.svg").read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(ResiduaError, match=r"units\.png: expected a file name that ends in \.svg"):
        description.draw(tmp_path / "units.png")


def test_a_size_is_at_least_one_pixel() -> None:
    with pytest.raises(ResiduaError, match="--size 0: must be at least 1"):
        describe("cifar_resnet14", size=0)


def test_a_network_of_timm_is_sent_to_train() -> None:
    with pytest.raises(ResiduaError, match=r"residua train DATA --model timm:resnet18$"):
        describe("timm:resnet18")


def test_the_list_names_parameters_input_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("resnet18", "tutorial_resnet18")
    monkeypatch.setattr(catalogue, "ROWS", {name: catalogue.row(name) for name in names})
    head, *lines = list_models(as_json=False)
    assert head.split() == ["model", "parameters", "multiply-adds", "input", "source"]
    assert [line.split()[0] for line in lines] == list(names)
    assert "11,689,512" in lines[0]
    assert lines[1].endswith("1 x 224 x 224  tutorial 2")
    assert [entry["name"] for entry in json.loads(next(list_models(as_json=True)))] == list(names)
