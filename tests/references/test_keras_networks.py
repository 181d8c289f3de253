"""The Keras networks and files of the tests are Keras' and the tutorials' own."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from references import keras_files, keras_networks
from references.keras_networks import build, images, keras, outputs, randomise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
SMALL = "tutorial_cifar_resnet34"
# What the tutorials and Keras print: all parameters, trainable ones.
COUNTS = {
    "tutorial_cifar_resnet32_d": (470_410, 468_042),
    **dict.fromkeys(["tutorial_cifar_resnet32_e", "my_resnet_32"], (470_218, 467_946)),
    "tutorial_cifar_resnet34": (416_458, 414_186),
    "tutorial_resnet18": (11_186_186, 11_178_378),
    "tutorial_vgg16_mnist": (33_638_218, 18_923_530),
    "keras_mobilenet": (4_253_864, 4_231_976),
}


def random_network(name: str, size: int | None = None, **options: int) -> keras.Model:
    model = build(name, size=size, **options)
    randomise(model, seed=1)
    return model


def logits(name: str, model: keras.Model, size: int) -> np.ndarray:
    return outputs(name, model, images(name, 2, size))[0]


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_a_network_has_the_printed_parameters(name: str, counts: tuple[int, int]) -> None:
    model = build(name)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert (model.count_params(), trainable) == counts


def test_random_networks_separate_images() -> None:
    for name, size in ((SMALL, 32), ("keras_mobilenet", 32)):
        values, maps = outputs(name, random_network(name, size), images(name, 3, size))
        assert np.isfinite(values).all()
        assert np.abs(values).max() < 100
        assert values.std(axis=0).mean() > 0.01
        assert all(tensor.std(axis=0).mean() > 0.01 for tensor in maps)


def test_swapped_additions_change_the_layers_order_but_not_the_function() -> None:
    ours, swapped = random_network("tutorial_cifar_resnet32_e"), build("my_resnet_32")
    for layer in ours.layers:
        swapped.get_layer(layer.name).set_weights(layer.get_weights())
    assert [layer.name for layer in ours.layers] != [layer.name for layer in swapped.layers]
    same = logits("tutorial_cifar_resnet32_e", ours, 32), logits("my_resnet_32", swapped, 32)
    np.testing.assert_allclose(*same, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def small() -> tuple[keras.Model, np.ndarray]:
    """A random network, its automatic names from 12 on, and its logits."""
    model = random_network(SMALL, start=12)
    return model, logits(SMALL, model, 32)


@pytest.mark.parametrize("form", keras_files.FORMS)
def test_keras_reads_what_is_written(
    form: str, small: tuple[keras.Model, np.ndarray], tmp_path: Path
) -> None:
    path = keras_files.write(small[0], tmp_path / "file", form)
    if form in ("keras3_whole", "keras3_legacy_h5", "keras2_whole"):
        again = keras.models.load_model(path, compile=form != "keras2_whole")
    else:
        again = build(SMALL)
        again.load_weights(path)
    np.testing.assert_array_equal(logits(SMALL, again, 32), small[1])


def test_keras_reads_a_nested_subclass_in_the_old_layout(tmp_path: Path) -> None:
    name, size = "tutorial_resnet18", 32
    model, again = random_network(name, size), build(name, size=size)
    again.load_weights(keras_files.write(model, tmp_path / "file", "keras2_weights"))
    np.testing.assert_array_equal(logits(name, again, size), logits(name, model, size))
    with pytest.raises(ValueError, match="subclassed"):
        keras_files.write(model, tmp_path / "file", "keras1_weights")


def test_keras_reads_names_that_fill_more_than_one_attribute(
    small: tuple[keras.Model, np.ndarray], tmp_path: Path
) -> None:
    model, again = small[0], build(SMALL)
    names = {layer.name: layer.name + "_" * 600 for layer in model.layers}
    path = keras_files.write(model, tmp_path / "file", "keras2_weights", names)
    with h5py.File(path) as file:
        assert {"layer_names0", "layer_names1"} < set(file.attrs)
    again.load_weights(path)
    np.testing.assert_array_equal(logits(SMALL, again, 32), small[1])


@pytest.mark.parametrize("source", ["keras_resnet50"])
def test_names_of_2015_are_the_same_layers_in_the_same_order(source: str, tmp_path: Path) -> None:
    name, size = "tutorial_resnet50", 32
    model, tutorial = random_network(source, size, classes=3), build(name, 3, size)
    names = keras_files.old_resnet50_names(model)
    tutorial.load_weights(keras_files.write(model, tmp_path / "file", "keras1_weights", names))
    new_names = {old: new for new, old in keras_files.old_resnet50_names(tutorial).items()}
    weighted = [layer for layer in model.layers if layer.weights]
    assert len(weighted) == 107
    for layer in weighted:
        weights = tutorial.get_layer(new_names[names[layer.name]]).get_weights()
        assert all(map(np.array_equal, layer.get_weights(), weights)), layer.name


def test_automatic_names_start_at_a_given_number(small: tuple[keras.Model, np.ndarray]) -> None:
    model = small[0]
    assert model.layers[1].name == "conv2d_12"
    assert keras_networks.stages(SMALL, model)[0] == "add_16"
