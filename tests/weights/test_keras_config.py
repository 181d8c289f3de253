"""Whatever a whole Keras model records about its layers: read, or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from references.weights_files import KERAS_NAME, Files, checked, hdf5, legacy, put, refused

from residua.errors import ResiduaError
from residua.weights.formats.keras_config import parse_config
from residua.weights.load import read_file

LONG = "a" * 10_000


@pytest.mark.parametrize("config", ["{", "[" * 100_000, "3", "null", '{"class_name": ["Lambda"]}'])
def test_broken_configurations_are_refused(config: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["model_config"] = config
        legacy(file.create_group("model_weights"), {"my_layer": {"k": np.ones(2)}})

    refused(hdf5(tmp_path, fill))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epsilon", value) for value in ("abc", [1], {"a": 1}, 10**400, True, -1, float("inf"))),
        *(("strides", value) for value in ("abc", [[1]], {"a": 1}, 10**400, None, [2, 1, 1])),
        *(
            ("activation", value)
            for value in ("\x1b[2J", [1], {"class_name": "x"}, 3, "a" * 10_000)
        ),
        *(("name", value) for value in ("\x1b[2J", [1], {"a": 1}, 3, "a" * 10_000)),
        *(("batch_input_shape", value) for value in ("abc", [None, True, True, 3], [0] * 4, 3)),
        *(("negative_slope", value) for value in ("abc", [1])),
    ],
    ids=lambda value: repr(value)[:12],
)
@pytest.mark.parametrize("kind", ["BatchNormalization", "Conv2D", "\x1b[2J"])
def test_any_settings_of_a_layer_make_a_printable_message(kind: str, key: str, value: Any) -> None:
    settings = {"name": "layer", "epsilon": 0.5, "strides": [9, 9], key: value}
    layers = [{"class_name": kind, "config": settings}]
    config = parse_config(Path("file"), json.dumps({"config": {"layers": layers}}))
    (name,) = config.layers
    problems = [*config.unsupported(), *config.mismatches(name, 1e-3, 1)]
    assert key == "batch_input_shape" or problems or value in ([1], None)
    assert all(problem.isprintable() and len(problem) < 400 for problem in problems)
    assert config.input_size in (None, 1)
    assert config.preprocessing_layers == []


SETTINGS = {"epsilon": "abc", "strides": [[1]], "activation": {"class_name": "x"}, "name": [1]}


@pytest.mark.slow
@pytest.mark.parametrize("key", SETTINGS)
def test_a_file_with_such_settings_is_read_or_refused(
    key: str, whole: Files, tmp_path: Path
) -> None:
    path = put(tmp_path, "Keras 2", whole["Keras 2"])
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            layer["config"][key] = SETTINGS[key]
        file.attrs["model_config"] = json.dumps(config)
    try:
        read_file(path, KERAS_NAME)
    except ResiduaError as error:
        checked(path, str(error))


def test_settings_are_compared_with_the_network() -> None:
    layers = [
        {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 96, 96, 3]}},
        {"class_name": "Rescaling", "config": {"name": "scale"}},
        {"class_name": "BatchNormalization", "config": {"name": "norm", "epsilon": 1e-3}},
        {"class_name": "Conv2D", "config": {"name": "conv", "strides": [2, 2]}},
        {"class_name": "LSTM", "config": {"name": "lstm"}},
    ]
    config = parse_config(Path("file"), json.dumps({"config": layers}))
    assert config.input_size == 96
    assert config.preprocessing_layers == ["Rescaling"]
    assert list(config.mismatches("norm", 1e-3, None)) == []
    assert list(config.mismatches("norm", 1e-5, None)) == ["epsilon is 0.001, expected 1e-05"]
    assert list(config.mismatches("conv", None, 2)) == []
    assert list(config.mismatches("conv", None, 1)) == ["strides are [2, 2], expected 1"]
    assert list(config.mismatches("other", 1e-3, 1)) == []
    (problem,) = config.unsupported()
    assert problem == "lstm of the file is a layer LSTM, which it does not have"
