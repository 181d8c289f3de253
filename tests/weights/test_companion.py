"""Class names and preprocessing survive a format that has no place for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from residua.errors import ResiduaError
from residua.weights.companion import companion_of
from residua.weights.convert import convert
from residua.weights.load import Weights, read_file

CLASSES = tuple("jihgfedcba")


@pytest.fixture
def weights(write_weights: Callable[..., Path], tmp_path: Path) -> Weights:
    return read_file(write_weights(tmp_path / "ours.safetensors", 5)).with_classes(CLASSES)


def test_a_converted_file_keeps_class_names_and_preprocessing(
    weights: Weights, tmp_path: Path
) -> None:
    file = tmp_path / "theirs.pth"
    assert convert(weights, file) == companion_of(file) == tmp_path / "theirs.pth.json"
    again = read_file(file)
    assert again.metadata == weights.metadata
    assert again.assumed_preprocessing == again.assumed_classes == ""
    assert convert(again, tmp_path / "back.safetensors") is None
    assert read_file(tmp_path / "back.safetensors").metadata == weights.metadata


def test_the_description_of_other_weights_is_not_used(weights: Weights, tmp_path: Path) -> None:
    file = tmp_path / "theirs.pth"
    convert(weights, file)
    state = torch.load(file, weights_only=True)
    torch.save({name: tensor * 2 for name, tensor in state.items()}, file)
    again = read_file(file)
    assert again.metadata.classes != CLASSES
    assert "theirs.pth.json describes other weights" in again.assumed_preprocessing


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": 1}', "{" * 10_000, "\xff"])
def test_another_json_file_is_neither_read_nor_replaced(
    content: str, weights: Weights, tmp_path: Path
) -> None:
    file = tmp_path / "theirs.pth"
    companion_of(file).write_text(content, "latin-1")
    with pytest.raises(ResiduaError, match="exists already"):
        convert(weights, file)
    assert not file.exists()
    convert(weights, tmp_path / "other.pth")
    (tmp_path / "other.pth").replace(file)
    assert read_file(file).metadata.classes != CLASSES
