"""The head of a transfer model is read where its layers show what it computes; a single output is
the probability of the second of two classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import residua
from residua.errors import ResiduaError
from residua.networks.zoo.catalogue import build
from residua.weights.load import read_file
from residua.weights.own_heads import unusable_outputs

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
COLOURS = {"mean": [0.0] * 3, "std": [255.0] * 3}
PREPARED = {"mean": [127.5] * 3, "std": [127.5] * 3, "size": 32}


def dense(*head: tuple[int, str | None]) -> Callable[[Any, Any], Any]:
    """Average pooling, dropout and dense layers of (width, activation)."""

    def add(layers: Any, x: Any) -> Any:
        x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
        for width, activation in head:
            x = layers.Dense(width, activation=activation)(x)
        return x

    return add


@pytest.fixture(scope="module")
def transferred(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A MobileNet with a head, as a file; and the model."""
    folder = tmp_path_factory.mktemp("keras")
    base = keras.keras.applications.MobileNet(
        input_shape=(32, 32, 3), include_top=False, weights=None
    )

    def write(add: Callable[[Any, Any], Any]) -> tuple[Path, Any]:
        inputs = keras.keras.Input((32, 32, 3))
        model = keras.keras.Model(inputs, add(keras.layers, base(inputs)))
        keras.randomise(model, 0)
        model.save(folder / "model.keras")
        return folder / "model.keras", model

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "spec"),
    [
        (((3, "softmax"),), None),
        (((16, "relu"), (3, "softmax")), "mlp:16"),
        (((1, "sigmoid"),), None),
    ],
)
def test_predictions_are_those_of_keras(
    head: tuple[tuple[int, str | None], ...], spec: str | None, transferred: Any
) -> None:
    file, model = transferred(dense(*head))
    expected = model.predict(PIXELS[None].astype(np.float32) / 127.5 - 1, verbose=0)[0]
    if len(expected) == 1:
        expected = np.array([1 - expected[0], expected[0]])
    (row,) = residua.predict(file, PIXELS, preprocessing=PREPARED)
    found = [dict(row.top)[f"output {output}"] for output in range(len(expected))]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert read_file(file).metadata.network.head == spec


@pytest.mark.slow
@pytest.mark.parametrize(
    "add",
    [
        dense((16, "tanh"), (3, "softmax")),
        dense((2, "sigmoid")),
        lambda layers, x: layers.Dense(3)(layers.GlobalMaxPooling2D()(x)),
        lambda layers, x: layers.Dense(3)(layers.Flatten()(x)),
    ],
)
def test_other_heads_are_left_out_and_features_are_read(
    add: Callable[[Any, Any], Any], transferred: Any
) -> None:
    file, _ = transferred(add)
    with pytest.raises(ResiduaError, match=r"so it cannot classify\. Train a head on it"):
        residua.predict(file, PIXELS)
    assert residua.features(file, PIXELS).values.shape == (1, 1024)
    assert residua.build(weights=file, classes=4, new_head=True)


def test_a_replaced_last_layer_of_a_state_dict_is_read(tmp_path: Path) -> None:
    state = build("cifar_resnet20", classes=4, seed=1).state_dict()
    names = {"head.weight": "head.1.weight", "head.bias": "head.1.bias"}
    torch.save({names.get(name, name): tensor for name, tensor in state.items()}, tmp_path / "a.pt")
    weights = read_file(tmp_path / "a.pt")
    assert (weights.metadata.network.classes, weights.metadata.network.head) == (4, None)
    assert torch.equal(weights.tensors["head.weight"], state["head.weight"])


@pytest.mark.parametrize(
    ("activation", "classes", "reason"),
    [
        ("softmax", 3, ""),
        ("linear", 1, ""),
        (None, 2, ""),
        ("sigmoid", 1, ""),
        ("sigmoid", 2, "its 2 outputs are independent"),
        ("softmax", 1, "always 1"),
        ("tanh", 2, "ends in tanh"),
    ],
)
def test_outputs_that_are_no_classes(activation: str | None, classes: int, reason: str) -> None:
    assert reason in unusable_outputs(activation, classes)
    assert bool(unusable_outputs(activation, classes)) == bool(reason)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as BCEWithLogitsLoss trains it."""
    file = tmp_path_factory.mktemp("binary") / "binary.pth"
    torch.save(build("cifar_resnet20", classes=1, seed=3).state_dict(), file)
    return file


def test_one_output_is_read_as_a_sigmoid(binary: Path) -> None:
    network = build("cifar_resnet20", classes=1, seed=3)
    network.load_state_dict(torch.load(binary, weights_only=True))
    transform = residua.transform(binary, preprocessing=COLOURS)
    with torch.inference_mode():
        chance = float(network.eval()(transform(PIXELS)[None]).sigmoid())
    options = {"classes": ["cat", "dog"], "preprocessing": COLOURS}
    (row,) = residua.predict(binary, PIXELS, **options)
    assert dict(row.top) == {"dog": pytest.approx(chance), "cat": pytest.approx(1 - chance)}
    assert abs(chance - 0.5) > 0.01
    with pytest.warns(UserWarning, match="a single output, which is read as the probability"):
        residua.predict(binary, PIXELS, preprocessing=COLOURS)


def test_one_name_is_not_enough(binary: Path) -> None:
    with pytest.raises(ResiduaError, match="has a sigmoid output for two classes, but 1"):
        residua.predict(binary, PIXELS, classes=["dog"])
    assert residua.features(binary, PIXELS).values.shape == (1, 64)
    assert read_file(binary).metadata.network.classes == 2
