"""Keras files of all ages are read as what Keras itself computes with them; or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from references import keras_files, keras_networks, parity
from references.keras_networks import keras, layers

from residua.errors import ResiduaError
from residua.runs.sources import start_from
from residua.weights.load import Weights, read_file
from residua.weights.network import build_network

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:You are saving your model"
)
E32, MY32, MY34 = "tutorial_cifar_resnet32_e", "my_resnet_32", "tutorial_cifar_resnet34"
ONE_FORM = (  # their other forms are as a sibling's
    *(f"tutorial_cifar_resnet32_{o}" for o in ("b", "c", "d", "d_v2", "e_v2")),
    "tutorial_resnext50_lambdas",
)
SMALLEST = (  # of each family; benchmarks/keras_parity.py has them all
    *("tutorial_cifar_resnet32_a", E32, MY32, MY34, "tutorial_cifar_resnet50"),
    *("tutorial_resnet18", "tutorial_resnet50"),
    *("tutorial_resnext50", "tutorial_resnext50_slices"),
    *("tutorial_vgg16_mnist", "tutorial_vgg19_cifar", "keras_resnet50", "keras_resnet50v2"),
    *("keras_xception", "keras_inception_v3", "keras_densenet121"),
    "keras_mobilenet",
)
PLANTED = {  # what such a network can get wrong at all
    "tutorial_cifar_resnet32": {"epsilon", "padding", "stride"},
    "tutorial_cifar_resnet": {"epsilon", "stride"},  # its striding convolutions are 1x1
    "my_resnet_32": {"epsilon", "padding", "stride"},
    "tutorial_vgg19": {"epsilon", "pool"},
    "tutorial_vgg16": {"pool"},
    "keras_inception": {"epsilon", "pool"},
    "keras_xception": {"epsilon", "pool"},
    "keras_densenet": {"epsilon", "padding", "pool"},
    "keras_mobilenet": {"epsilon", "padding"},
    "": {"epsilon", "padding", "pool", "stride"},
}


@pytest.mark.parametrize("name", [*SMALLEST, *ONE_FORM])
def test_it_computes_what_keras_computes(name: str, tmp_path: Path) -> None:
    """In each form of file, logits and stages; and the bound would notice planted errors."""
    true, path = parity.reference(name, start=3), tmp_path / name
    for form in parity.forms(name)[: None if name in SMALLEST else 1]:
        file = keras_files.write(true.model, path, form)
        weights = parity.read(file, name)
        assert weights.metadata.network.name == parity.ours(name)
        assert weights.metadata.network.classes == 7
        assert max(parity.distances(parity.network(weights), true)) < parity.BOUND, form
        file.unlink()
    found = dict(parity.errors(weights, true))
    assert set(found) == next(each for key, each in PLANTED.items() if name.startswith(key))
    assert min(found.values()) > 20 * parity.BOUND, found


@pytest.mark.parametrize("start", [0, 95])
@pytest.mark.parametrize("name", ["tutorial_cifar_resnet32_a", MY32, "tutorial_resnext50"])
def test_automatic_names_may_start_anywhere(name: str, start: int, tmp_path: Path) -> None:
    """From 95 on the order of the numbers is not that of the alphabet."""
    true = parity.reference(name, start=start, size=32)
    for form in ("keras3_weights", "keras1_weights"):
        weights = parity.read(keras_files.write(true.model, tmp_path / name, form), name)
        assert parity.distances(parity.network(weights), true)[0] < parity.BOUND


def copied(model: keras.Model, name: str) -> keras.Model:
    """Another network with the same layers' names, with the same weights."""
    other = keras_networks.build(name, 7, model.input_shape[1], start=3)
    for layer in model.layers:
        other.get_layer(layer.name).set_weights(layer.get_weights())
    return other


def assert_same(found: Weights, expected: Weights) -> None:
    assert list(found.tensors) == list(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


@pytest.mark.parametrize("form", ["keras2_weights", "keras3_weights"])
def test_swapped_additions_change_the_file_but_not_the_network(form: str, tmp_path: Path) -> None:
    """C16: model.layers, hence the order in the file, is swapped there; the names tell."""
    model = parity.reference(E32, start=3).model
    swapped = copied(model, MY32)
    assert [each.name for each in model.layers] != [each.name for each in swapped.layers]
    found = [
        read_file(keras_files.write(each, tmp_path / str(number), form), E32)
        for number, each in enumerate((model, swapped))
    ]
    assert_same(*found)


def without_names(path: Path) -> Path:
    """A .weights.h5 as Keras 3 wrote it at first: its groups say classes and places, no names."""
    with h5py.File(path, "a") as file:
        file.visititems(lambda _, group: group.attrs.pop("name", None) and None)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *(E32, MY32, MY34, "tutorial_resnet50", "tutorial_resnext50_slices", "keras_resnet50"),
        *("keras_resnet50v2", "keras_xception", "keras_inception_v3", "keras_mobilenet"),
    ],
)
def test_without_names_the_order_of_layers_tells(name: str, tmp_path: Path) -> None:
    model = keras_networks.build(name, 7, parity.side(name), start=3)
    keras_networks.randomise(model, seed=1)
    path = keras_files.write(model, tmp_path / name, "keras3_weights")
    named = read_file(path, parity.ours(name))
    assert_same(read_file(without_names(path), parity.ours(name)), named)


def test_without_names_a_file_is_recognised_or_the_user_is_asked(tmp_path: Path) -> None:
    def written(name: str) -> Path:
        model = keras_networks.build(name, size=32)
        return without_names(keras_files.write(model, tmp_path / name, "keras3_weights"))

    assert read_file(written("keras_mobilenet")).metadata.network.name == "keras_mobilenet"
    with pytest.raises(ResiduaError, match=rf"fit {E32}, {E32}_v2 alike: .* --model"):
        read_file(written(E32))
    # layers inside a subclass say neither their class nor their place
    with pytest.raises(ResiduaError, match=r"two layers are called '?bn1'?, which is ambiguous"):
        read_file(written("tutorial_resnet18"), "tutorial_resnet18")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_file_that_fits_in_two_ways_is_refused(swapped: bool, tmp_path: Path) -> None:
    """The units of my_resnet_34 that halve the map end in a 1x1 as large as their shortcut's."""
    model = parity.reference(MY34, start=0).model
    names = {each.name: each.name for each in model.layers}
    pairs = [("conv2d_13", "conv2d_14"), ("conv2d_25", "conv2d_26")]
    for branch, shortcut in pairs if swapped else []:  # another program's order of creation
        names[branch], names[shortcut] = shortcut, branch
        assert model.get_layer(branch).kernel.shape == model.get_layer(shortcut).kernel.shape
    path = keras_files.write(model, tmp_path / "file", "keras2_weights", names)
    with pytest.raises(ResiduaError, match=f"in 2 ways as {MY34}.* --model {MY34}"):
        read_file(path)
    first = read_file(path, MY34).tensors["stages.1.units.0.shortcut.conv.weight"]
    stored = model.get_layer("conv2d_13" if swapped else "conv2d_14").get_weights()[0]
    np.testing.assert_array_equal(first.permute(2, 3, 1, 0), stored)


@pytest.fixture(scope="module")
def resnet50s() -> dict[str, parity.Reference]:
    """tutorial_resnet50 and keras_resnet50."""
    return {each: parity.reference(each) for each in ("tutorial_resnet50", "keras_resnet50")}


AGES = {  # form, whether under the names of 2015-2017, the network that the file tells by itself
    "2015": ("keras1_weights", True, "tutorial_resnet50"),
    "2017": ("keras2_weights", True, "tutorial_resnet50"),
    "2018": ("keras2_weights", False, "keras_resnet50"),
}


def resnet50_file(
    model: keras.Model, folder: Path, age: str, *, top: bool = True, both: bool = True
) -> Path:
    """All three ages have the same file name. top: whether the head is in it."""
    form, old, _ = AGES[age]
    names = {each.name: each.name for each in model.layers}
    names = keras_files.old_resnet50_names(model) if old else names
    if not top:
        kept = list(names)[: -1 if "keras" in model.name else -2]
        names = {each: names[each] for each in kept}
    folder = folder / age
    folder.mkdir()
    return keras_files.write(
        model, folder / "resnet50_weights_tf_dim_ordering_tf_kernels", form, names
    )


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("asked", [None, "tutorial_resnet50", "keras_resnet50"])
def test_three_ages_of_one_file_name(
    age: str, asked: str | None, resnet50s: dict[str, parity.Reference], tmp_path: Path
) -> None:
    """Recognised by its names; read by them as either network if the user says so."""
    own = AGES[age][2]
    source = resnet50s[own].model
    name = asked or own
    target = resnet50s[name]
    weights = read_file(resnet50_file(source, tmp_path, age), asked)
    assert weights.metadata.network.name == name
    if name == own:
        assert max(parity.distances(parity.network(weights), target)) < parity.BOUND
        return
    other = keras_networks.build(name, 7, parity.side(name))
    to_old = keras_files.old_resnet50_names
    theirs = {old: new for new, old in to_old(source).items()}
    for layer, old in to_old(other).items():
        if other.get_layer(layer).weights:
            other.get_layer(layer).set_weights(source.get_layer(theirs[old]).get_weights())
    logits, _ = keras_networks.outputs(name, other, target.images)
    found, _ = parity.computed(parity.network(weights), target.images)
    assert parity.distance(found, logits) < parity.BOUND


@pytest.mark.parametrize("age", AGES)
def test_without_top_it_has_features_and_no_head(
    age: str, resnet50s: dict[str, parity.Reference], tmp_path: Path
) -> None:
    true = resnet50s[AGES[age][2]]
    weights = read_file(resnet50_file(true.model, tmp_path, age, top=False))
    assert not weights.has_head
    assert weights.metadata.network.name == AGES[age][2]
    with pytest.raises(ResiduaError, match="ends before its head"):
        parity.network(weights)
    network = build_network(weights, torch.device("cpu"), require_head=False)
    _, maps = parity.computed(network, true.images)
    assert parity.distance(maps[-1], true.maps[-1]) < parity.BOUND
    three = replace(weights.metadata.network, classes=3)
    started = start_from(weights, three, new_head=True, seed=0)
    assert started.head.weight.shape == (3, 2048)


def test_without_top_two_networks_may_be_one(tmp_path: Path) -> None:
    """Keras' VGG16 and tutorial 3's have the same convolutions, but prepare images otherwise."""
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    base.save_weights(tmp_path / "vgg16.weights.h5")
    with pytest.raises(ResiduaError, match=r"tutorial_vgg16_mnist, keras_vgg16 alike: .* --model"):
        read_file(tmp_path / "vgg16.weights.h5")
    assert not read_file(tmp_path / "vgg16.weights.h5", "keras_vgg16").has_head


def sequential(base: keras.Model) -> keras.Model:
    """Tutorial 2: a frozen network without top, and a head of two dense layers."""
    head = [layers.Dense(256, activation="relu"), layers.Dropout(0.5), layers.Dense(10)]
    return keras.Sequential([base, layers.GlobalAveragePooling2D(), *head])


def functional(base: keras.Model) -> keras.Model:
    inputs = keras.Input(base.input_shape[1:])
    x = layers.GlobalAveragePooling2D()(base(inputs, training=False))
    return keras.Model(inputs, layers.Dense(10)(layers.Dense(256, activation="relu")(x)))


@pytest.mark.parametrize(
    ("transfer", "base", "row"),
    [
        (sequential, keras.applications.ResNet50, "keras_resnet50"),
        (functional, keras.applications.MobileNet, "keras_mobilenet"),
    ],
)
def test_a_transfer_model_gives_its_network_without_its_own_head(
    transfer: Callable[[keras.Model], keras.Model],
    base: Callable[..., keras.Model],
    row: str,
    tmp_path: Path,
) -> None:
    keras.utils.clear_session()
    inner = base(weights=None, include_top=False, input_shape=(32, 32, 3))
    model = transfer(inner)
    keras_networks.randomise(model, seed=5)
    inner.save_weights(tmp_path / "inner.weights.h5")
    expected = read_file(tmp_path / "inner.weights.h5").tensors
    for ending in (".h5", ".keras", ".weights.h5"):
        path = tmp_path / f"transfer{ending}"
        (model.save_weights if ending == ".weights.h5" else model.save)(path)
        found = read_file(path)
        assert found.metadata.network.name == row
        assert found.tensors.keys() == expected.keys()
        assert all(torch.equal(found.tensors[name], each) for name, each in expected.items())
        with pytest.raises(ResiduaError, match=r"a head of its own \(dense(_1)?, dense(_1)?\), "):
            build_network(found, torch.device("cpu"))
        arguments = replace(found.metadata.network, classes=3)
        with pytest.raises(ResiduaError, match="--new-head"):
            start_from(found, arguments, new_head=False, seed=0)
        started = start_from(found, arguments, new_head=True, seed=0)
        assert torch.equal(started.state_dict()["stem.conv.weight"], expected["stem.conv.weight"])
