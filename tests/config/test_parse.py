"""Settings survive YAML; unknown names and values out of range are refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.config import parse
from residua.config.schema import ORDERING_LETTERS, Config, Ordering
from residua.errors import ResiduaError


@settings(max_examples=25, deadline=None)
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
def test_settings_survive_yaml(values: dict[str, object]) -> None:
    before = parse.with_settings(Config(), values)
    after = parse.from_mapping(yaml.safe_load(parse.to_yaml(before)), "test")
    assert before == after


@pytest.mark.parametrize(
    ("name", "value", "expected"),
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
        ("trainin.epochs", 3, "Expected SECTION.FIELD"),
        ("epochs", 3, "Expected SECTION.FIELD"),
        ("data.path", "auto", None),
        ("data.split_seed", "auto", "a whole number"),
        ("network.ordering", "f", "'original', 'bn_after_addition', .*, or null"),
    ],
)
def test_a_refusal_names_the_setting_and_the_expected_value(
    name: str, value: object, expected: str | None
) -> None:
    if expected is None:
        assert parse.with_settings(Config(), {name: value}).data.path == value
        return
    with pytest.raises(ResiduaError, match=expected) as error:
        parse.with_settings(Config(), {name: value})
    assert name in str(error.value)


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


def test_numbers_of_numpy_are_read_as_those_of_python() -> None:
    given = {
        "training.seed": np.int64(3),
        "optimization.learning_rate": np.float32(0.5),
        "augmentation.flip": np.False_,
        "preprocessing.mean": np.array([1, 2, 3]),
    }
    read = parse.with_settings(Config(), given)
    assert repr(read.training.seed) == "3"
    assert repr((read.optimization.learning_rate, read.augmentation.flip)) == "(0.5, False)"
    assert read.preprocessing.mean == (1.0, 2.0, 3.0)
    with pytest.raises(ResiduaError, match="from 0 to"):
        parse.with_settings(Config(), {"training.seed": np.int64(-3)})


@pytest.mark.parametrize(
    "text",
    ["- a", "training: 3", "training: {epoch: 3}", "a: {b: 1}", "{", "\x00", "training:\n\t- x"],
)
def test_bad_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ResiduaError, match=r"recipe\.yaml"):
        parse.read_yaml(file)


def test_numbers_on_the_command_line_are_decimal() -> None:
    texts = {"training.epochs": "050", "training.seed": "-0"}
    training = parse.with_settings(Config(), texts).training
    assert (training.epochs, training.seed) == (50, 0)
    with pytest.raises(ResiduaError, match="'1:30': expected a whole number"):
        parse.with_settings(Config(), {"training.epochs": "1:30"})


def test_the_letter_of_an_ordering_becomes_its_name() -> None:
    for letter, name in ORDERING_LETTERS.items():
        for value in (letter, name):
            config = parse.with_settings(Config(), {"network.ordering": value})
            assert config.network.ordering == name
    stored = parse.from_mapping({"network": {"ordering": "d"}}, "config.yaml")
    assert stored.network.ordering == "relu_only_preactivation"


def test_settings_of_version_0_1_0_are_still_read() -> None:
    """Every renamed setting, in a file and on the command line, with its value of that version."""
    text = """
    optimization: {rate: 0.05, ema: 0.9, clip: 2.0}
    training: {batch: 8, pictures: 100, statistics_pictures: 64, keep_every: 2}
    network: {side: 2, head: own}
    """
    config = parse.from_mapping(yaml.safe_load(text), "config.yaml")
    optimization, training, network = config.optimization, config.training, config.network
    assert optimization.learning_rate == 0.05
    assert (optimization.ema_decay, optimization.clip_grad_norm) == (0.9, 2.0)
    assert (training.batch_size, training.max_images) == (8, 100)
    assert (training.precise_bn_images, training.save_every) == (64, 2)
    assert (network.pool_size, network.head) == (2, "default")
    assert parse.with_settings(Config(), {"training.batch": "8"}).training.batch_size == 8


def test_metavars_list_the_choices() -> None:
    assert parse.kind_of("preprocessing.resize") == "crop|squash|pad"
    assert parse.kind_of("training.epochs") == "N"
    assert parse.kind_of("optimization.rate") == "NUMBER"
    assert parse.kind_of("network.name") == "TEXT"


def test_heads_name_their_hidden_layers() -> None:
    assert parse.hidden_of("linear") == ()
    assert parse.hidden_of("mlp:4096,10") == (4096, 10)
    for head in ("mlp", "mlp:0", "mlp:8,", "mlp:1000000", "own", ""):
        with pytest.raises(ResiduaError, match="such as mlp:256"):
            parse.hidden_of(head)


def test_preprocessing_stored_with_weights_is_complete_and_fits_its_channels() -> None:
    stored = {
        "size": 32,
        "channels": 3,
        "resize": "crop",
        "crop": 1.0,
        "interpolation": "antialias",
        "channel_order": "rgb",
        "mean": [1, 2, 3],
        "std": [4, 5, 6],
    }
    assert parse.preprocessing_from(stored, "file").std == (4.0, 5.0, 6.0)
    for change, reason in (
        ({"size": "auto"}, "incomplete"),
        ({"mean": [1]}, "one number per channel"),
        ({"std": [4, 0, 6]}, "must be above 0"),
    ):
        with pytest.raises(ResiduaError, match=reason):
            parse.preprocessing_from({**stored, **change}, "file")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optimisation.lr", "optimization.learning_rate"),
        ("optimization.lr", "optimization.learning_rate"),
        ("lr", "optimization.learning_rate"),
        ("optimisation.lerning_rate", "optimization.learning_rate"),
        ("training.batchsize", "training.batch_size"),
        ("network.size", "preprocessing.size"),
    ],
)
def test_the_error_of_an_unknown_setting_suggests_a_similar_one(name: str, meant: str) -> None:
    with pytest.raises(ResiduaError, match=rf"is not a setting\. Did you mean {meant}\?"):
        parse.field_of(name)
    with pytest.raises(ResiduaError, match=r"is not a setting\. Expected SECTION"):
        parse.field_of("qqqq")
