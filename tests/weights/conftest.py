"""Valid weights files that the tests of this folder read, change or damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from references.weights_files import KERAS_NAME, NAME, Files, State, cifar_state, put

from residua.config.schema import NetworkSpec
from residua.networks.zoo.catalogue import build
from residua.weights.convert import convert
from residua.weights.load import Weights
from residua.weights.native import Metadata
from residua.weights.published.defaults import defaults_for


@pytest.fixture(scope="session")
def state() -> State:
    return cifar_state()


@pytest.fixture(scope="session")
def whole(state: State, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A file of each format with the weights of a small network."""

    def model() -> Any:
        from references import keras_networks

        network = keras_networks.build(KERAS_NAME)
        keras_networks.randomise(network, 0)
        return network

    folder = tmp_path_factory.mktemp("whole")
    return Files(state, build(NAME, seed=0).state_dict(), model, folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A file of each format, mostly structure: four layers of no known network."""
    generator = torch.Generator().manual_seed(0)
    state = {
        "conv1.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn1.weight": torch.ones(4),
        "bn1.running_var": torch.ones(4),
        "fc.weight": torch.randn(2, 4, generator=generator),
    }

    def model() -> Any:
        from references.keras_networks import keras, layers

        keras.utils.clear_session()
        inputs = keras.Input((8, 8, 3))
        x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
        outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, outputs)

    return Files(state, state, model, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def keras3_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A .weights.h5 as Keras 3 writes it, written by `convert`."""
    usual = defaults_for(KERAS_NAME, 10, 3)
    metadata = Metadata(NetworkSpec(KERAS_NAME, 10, 3), (), usual.preprocessing, {})
    network = build(KERAS_NAME, seed=1)
    path = tmp_path_factory.mktemp("keras3") / "file.weights.h5"
    convert(Weights(Path("ours"), network.state_dict(), metadata, ""), path)
    return path.read_bytes()


@pytest.fixture
def keras_file(keras3_weights: bytes, tmp_path: Path) -> Path:
    """That file, to be changed."""
    return put(tmp_path, "Keras 3 weights", keras3_weights)
