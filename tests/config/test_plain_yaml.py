"""YAML that stands for more than it is, or for endless nesting, is refused at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from residua.config import parse, plain_yaml
from residua.config.recipes import compose
from residua.errors import ResiduaError
from residua.studies import definition

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "references": (BOMB, "more than 20,000 values"),
    "cycle": ("a: &a [*a]", "refers to itself"),
    "depth": ("a: " + "[" * 5_000, "levels deep"),
    "flow": ("a: " + "{a: " * 5_000, "levels deep"),
    "length": ("a: " + "x" * 300_000, "characters"),
    "digits": (f"a: {'1' * 5_000}", "digits"),
    "date": ("a: 2026-13-45", "month"),
    "key": ("[1]: 2", "unhashable"),
    "syntax": ("a: [", "expected"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_at_once(name: str, tmp_path: Path) -> None:
    text, reason = HOSTILE[name]
    began, file = time.process_time(), tmp_path / "x.yaml"
    with pytest.raises(ValueError, match=reason):
        plain_yaml.load(text)
    file.write_text(text)
    for read in (parse.read_yaml, lambda path: definition.read(str(path))):
        with pytest.raises(ResiduaError, match=str(file)):
            read(file)
    assert time.process_time() - began < 2


def test_a_value_of_the_command_line_may_be_hostile_too() -> None:
    for value in (BOMB, "[" * 2_000, "1" * 5_000, "2026-13-45"):
        with pytest.raises(ResiduaError, match=r"expected a whole number"):
            compose("photos", None, {"training.epochs": value})


@pytest.mark.parametrize("number", ["1" * 400, "0x" + "f" * 400, "1" * 20, ".inf", "1e400"])
def test_numbers_that_no_setting_can_have_are_refused(number: str, tmp_path: Path) -> None:
    for name in ("training.epochs", "optimization.learning_rate", "preprocessing.mean"):
        section, _, key = name.partition(".")
        value = f"[{number}]" if key == "mean" else number
        (tmp_path / "x.yaml").write_text(f"{section}:\n  {key}: {value}\n")
        if number == "1" * 20 and key != "epochs":
            continue  # a large number, but one
        with pytest.raises(ResiduaError, match=name):
            parse.read_yaml(tmp_path / "x.yaml")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(ResiduaError, match="no regular file"):
        parse.read_yaml(tmp_path / "x.yaml")


def test_a_few_references_are_read() -> None:
    assert plain_yaml.load("a: &x {b: [1]}\nc: *x\nd: {<<: *x, e: 2}") == {
        "a": {"b": [1]},
        "c": {"b": [1]},
        "d": {"b": [1], "e": 2},
    }
    assert plain_yaml.load("") is None


def test_a_head_has_at_most_16_hidden_layers() -> None:
    assert len(parse.hidden_of("mlp:" + ",".join(["8"] * 16))) == 16
    with pytest.raises(ResiduaError, match="1 to 16 hidden layers"):
        parse.hidden_of("mlp:" + ",".join(["8"] * 200_000))
