"""Settings: what goes in comes out, what is unknown or out of range is refused with a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from residua.config import parse, recipes
from residua.config.schema import Config, Ordering
from residua.errors import ResiduaError


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "training.epochs": st.integers(1, 10_000),
            "optimization.learning_rate": st.floats(0, 1e6, allow_nan=False),
            "augmentation.zoom": st.lists(st.floats(0.01, 100), min_size=2, max_size=2),
            "network.ordering": st.sampled_from([*get_args(Ordering), *"abcde", None]),
            "optimization.steps": st.lists(
                st.tuples(st.floats(0, 1e3), st.floats(0, 10)).map(list), max_size=4
            ),
            "data.path": st.text(max_size=20),
            "augmentation.flip": st.booleans(),
            "training.tensorboard": st.booleans(),
        },
    )
)
def test_yaml_round_trip(chosen: dict[str, object]) -> None:
    before = parse.with_settings(Config(), chosen)
    after = parse.from_mapping(yaml.safe_load(parse.to_yaml(before)), "test")
    assert before == after


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("training.epochs", "many", "a whole number"),
        ("training.epochs", 0, "at least 1"),
        ("training.epochs", 1.5, "a whole number"),
        ("training.epochs", True, "a whole number"),
        ("optimization.learning_rate", "nan", "a number"),
        ("optimization.learning_rate", -1, "at least 0"),
        ("data.val_fraction", "0.95", "from 0 to 0.9"),
        ("data.split", "random", "'stratified', 'keras'"),
        ("augmentation.zoom", [1, 2, 3], "a list"),
        ("augmentation.flip", "perhaps", "true or false"),
        ("training.epoch", 3, "training has epochs"),
        ("trainin.epochs", 3, "expected SECTION.FIELD"),
        ("epochs", 3, "expected SECTION.FIELD"),
        ("data.path", "auto", None),
        ("data.split_seed", "auto", "a whole number"),
    ],
)
def test_refused_with_what_was_expected(name: str, value: object, said: str | None) -> None:
    if said is None:
        assert parse.with_settings(Config(), {name: value}).data.path == value
        return
    with pytest.raises(ResiduaError, match=said) as caught:
        parse.with_settings(Config(), {name: value})
    assert name in str(caught.value)


def test_text_from_the_command_line_is_read_as_its_type() -> None:
    read = parse.with_settings(
        Config(),
        {
            "optimization.learning_rate": "1e-3",
            "augmentation.zoom": "[0.8, 1.2]",
            "augmentation.flip": "false",
            "network.shortcut": "none",
            "network.ordering": "e",
            "training.epochs": "auto",
            "preprocessing.mean": "[1, 2, 3]",
        },
    )
    assert read.optimization.learning_rate == 1e-3
    assert read.augmentation.zoom == (0.8, 1.2)
    assert read.augmentation.flip is False
    assert (read.network.shortcut, read.network.ordering) == ("none", "full_preactivation")
    assert read.training.epochs == "auto"
    assert read.preprocessing.mean == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    "text",
    ["- a", "training: 3", "training: {epoch: 3}", "a: {b: 1}", "{", "\x00", "training:\n\t- x"],
)
def test_bad_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ResiduaError, match=r"recipe\.yaml"):
        parse.read_yaml(file)


def test_every_setting_says_what_it_does() -> None:
    for section in dataclasses.fields(Config):
        for item in dataclasses.fields(getattr(Config(), section.name)):
            assert item.metadata["help"].endswith("."), f"{section.name}.{item.name}"


@pytest.mark.parametrize("name", recipes.recipes())
def test_recipes_are_valid_and_say_their_command(name: str) -> None:
    from importlib import resources

    from residua.networks.zoo import catalogue

    text = (resources.files("residua") / "recipes" / f"{name}.yaml").read_text("utf-8")
    assert "residua train" in text
    assert f"--recipe {name}" in text
    assert "# Expected:" in text
    catalogue.row(recipes.read_recipe(name).network.name)


def test_an_explicit_value_wins_over_the_recipe() -> None:
    composed = recipes.compose("digits", "tutorial_birds", {"training.epochs": 3})
    assert composed.training.epochs == 3
    assert composed.training.batch_size == 8
    with pytest.raises(ResiduaError, match="tutorial_birds"):
        recipes.read_recipe("tutorial_bird")


def test_numbers_on_the_command_line_are_decimal() -> None:
    given = {"training.epochs": "050", "training.seed": "-0"}
    found = parse.with_settings(Config(), given).training
    assert (found.epochs, found.seed) == (50, 0)
    with pytest.raises(ResiduaError, match="'1:30': expected a whole number"):
        parse.with_settings(Config(), {"training.epochs": "1:30"})
