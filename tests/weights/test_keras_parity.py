"""Real Keras files of every age -> what Keras computes with them; and files that Keras loads.

The smallest network of each kind; benchmarks/keras_parity.py has every network in every form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from references import keras_files, keras_networks, parity
from references.keras_networks import keras, layers
from references.torch_files import assert_same
from references.weights_files import refused
from sklearn.datasets import load_sample_images

import residua
from residua.errors import ResiduaError
from residua.networks.zoo.catalogue import build_from
from residua.runs.sources import start_from
from residua.weights.convert import convert
from residua.weights.key_maps.layers import keras_order, weight_layers
from residua.weights.load import Weights, read_file
from residua.weights.network import build_network
from residua.weights.published.classes import imagenet_classes
from residua.weights.published.defaults import defaults_for
from residua.weights.verify import images_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer"),
]
E32, MY34 = "tutorial_cifar_resnet32_e", "tutorial_cifar_resnet34"
FORMS = {  # network -> the forms in which it is written here; each form occurs
    "tutorial_cifar_resnet32_a": ["keras2_whole"],
    E32: ["keras1_weights", "keras3_whole"],
    MY34: ["keras3_weights"],
    "tutorial_resnet18": ["keras3_weights"],
    "tutorial_resnext50": ["keras3_legacy_h5"],
    "tutorial_vgg16_mnist": ["keras1_weights"],
    "keras_resnet50v2": ["keras2_weights"],
    "keras_xception": ["keras3_weights"],
    "keras_inception_v3": ["keras3_weights"],
    "keras_mobilenet": list(keras_files.FORMS),
}
PLANTED = {  # errors that such a network can have, to show that the bound would notice them
    "tutorial_cifar_resnet32_a": {"epsilon", "padding", "stride"},
    "tutorial_vgg16_mnist": {"pool"},
    "keras_mobilenet": {"epsilon", "padding"},
}
TO_KERAS = (MY34, "keras_xception", "keras_mobilenet")  # all kinds of layers, and shortcuts


@pytest.fixture(scope="module", params=FORMS)
def true(request: pytest.FixtureRequest) -> Iterator[parity.Reference]:
    """Keras' network, and what it computes; automatic names start at 95, past the alphabet."""
    yield parity.reference(request.param, start=95)
    keras.utils.clear_session()


def test_it_computes_what_keras_computes(true: parity.Reference, tmp_path: Path) -> None:
    """Logits and stages."""
    for form in FORMS[true.name]:
        file = keras_files.write(true.model, tmp_path / true.name, form)
        weights = parity.read(file, true.name)
        assert weights.metadata.network.name == parity.ours(true.name)
        assert weights.metadata.network.classes == 7
        assert max(parity.distances(parity.network(weights), true)) < parity.BOUND, form
        file.unlink()
        if form.startswith("keras3") and true.name != "tutorial_resnet18":
            assert in_keras_order(weights) == [
                layer.name for layer in true.model.layers if layer.weights
            ]
    if true.name in PLANTED:
        errors = dict(parity.errors(weights, true))
        assert set(errors) == PLANTED[true.name]
        assert min(errors.values()) > 20 * parity.BOUND, errors


def in_keras_order(weights: Weights) -> list[str]:
    """The stored names of all layers in the order that we take for that of model.layers."""
    match = weights.match
    assert match is not None
    network = build_from(weights.metadata.network)
    layers = match.key_map.as_stored(weight_layers(network, separable=True))
    ordered = keras_order(network, layers, match.key_map.shortcut_first)
    return [match.names[layer.name][0] for layer in ordered]


@pytest.mark.parametrize("true", [E32, "keras_mobilenet"], indirect=True)
def test_without_names_the_order_of_layers_decides(true: parity.Reference, tmp_path: Path) -> None:
    """For the other networks test_it_computes_what_keras_computes compares the order alone."""
    name = parity.ours(true.name)
    path = keras_files.write(true.model, tmp_path / name, "keras3_weights")
    named = read_file(path, name)
    unnamed = without_names(path)
    assert_same(read_file(unnamed, name).tensors, named.tensors)
    if name == "keras_mobilenet":
        assert read_file(unnamed).metadata.network.name == name


def without_names(path: Path) -> Path:
    """A .weights.h5 of early Keras 3: its groups have classes and positions, no names."""
    with h5py.File(path, "a") as file:
        file.visititems(lambda _, group: group.attrs.pop("name", None) and None)
    return path


@pytest.mark.parametrize("true", TO_KERAS, indirect=True)
def test_keras_loads_what_is_written(true: parity.Reference, tmp_path: Path) -> None:
    """After a round trip through our own file; the last test of a model, which it changes."""
    written = round_trip(parity.ours(true.name), true.model, tmp_path)
    keras_networks.randomise(true.model, seed=2)
    true.model.load_weights(written)
    logits, _ = keras_networks.outputs(true.name, true.model, true.images)
    np.testing.assert_array_equal(logits, true.logits)


def round_trip(name: str, model: keras.Model, folder: Path) -> Path:
    """Keras' file -> ours -> a .weights.h5, whose path it returns; no number changes on the way."""
    read = read_file(keras_files.write(model, folder / name, "keras3_weights"), name)
    ours, theirs = folder / "ours.safetensors", folder / "theirs.weights.h5"
    convert(read, ours)
    convert(read_file(ours), theirs)
    again = read_file(theirs, name)
    assert again.metadata.network == read.metadata.network
    assert_same(again.tensors, read.tensors)
    return theirs


def test_a_subclass_is_written_and_read_but_keras_refuses_it(tmp_path: Path) -> None:
    """Keras lays such a file out by the attributes of its Python objects."""
    model = keras_networks.build("tutorial_resnet18", size=32)
    keras_networks.randomise(model, seed=1)
    written = round_trip("tutorial_resnet18", model, tmp_path)
    with pytest.raises(ValueError, match="objects could not be loaded"):
        model.load_weights(written)
    # without names, layers inside a subclass have neither class nor position
    path = keras_files.write(model, tmp_path / "unnamed", "keras3_weights")
    with pytest.raises(ResiduaError, match=r"two layers are called '?bn1'?, which is ambiguous"):
        read_file(without_names(path), "tutorial_resnet18")


def test_weights_without_a_head_are_written_without_one(tmp_path: Path) -> None:
    base = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    keras_networks.randomise(base, seed=1)
    before = [array.copy() for array in base.get_weights()]
    written = round_trip("keras_mobilenet", base, tmp_path)
    keras_networks.randomise(base, seed=2)
    base.load_weights(written)
    assert all(map(np.array_equal, before, base.get_weights()))


# Files that fit more than once --------------------------------------------------------------------


@pytest.fixture(scope="module")
def e32() -> keras.Model:
    model = keras_networks.build(E32, start=3)
    keras_networks.randomise(model, seed=1)
    return model


@pytest.mark.parametrize("form", ["keras2_weights", "keras3_weights"])
def test_swapped_additions_change_the_file_but_not_the_network(
    form: str, e32: keras.Model, tmp_path: Path
) -> None:
    """They swap model.layers, hence the order in the file; the names decide."""
    swapped = keras_networks.build("my_resnet_32", start=3)
    for layer in e32.layers:
        swapped.get_layer(layer.name).set_weights(layer.get_weights())
    assert [layer.name for layer in e32.layers] != [layer.name for layer in swapped.layers]
    weights = [
        read_file(keras_files.write(model, tmp_path / str(number), form), E32)
        for number, model in enumerate((e32, swapped))
    ]
    assert_same(weights[0].tensors, weights[1].tensors)


def test_a_file_that_fits_two_networks_is_refused_until_one_is_named(
    e32: keras.Model, tmp_path: Path
) -> None:
    """Tutorial 1's e and e_v2 differ in the input of a projection, which no tensor shows."""
    path = keras_files.write(e32, tmp_path / "e", "keras2_weights")
    message = refused(path)
    assert f"{E32}, {E32}_v2 alike" in message
    assert message.endswith("--model.")
    for name in (E32, f"{E32}_v2"):
        assert read_file(path, name).metadata.network.name == name
    path = without_names(keras_files.write(e32, tmp_path / "unnamed", "keras3_weights"))
    assert f"fit {E32}, {E32}_v2 alike" in refused(path)


def test_a_file_that_fits_in_two_ways_is_refused(tmp_path: Path) -> None:
    """The units of my_resnet_34 that halve the map end in a 1x1 as large as their shortcut's."""
    model = keras_networks.build(MY34)
    keras_networks.randomise(model, seed=1)
    names = {layer.name: layer.name for layer in model.layers}
    for swapped in (False, True):
        for branch, shortcut in [("conv2d_13", "conv2d_14"), ("conv2d_25", "conv2d_26")]:
            if swapped:  # another program's order of creation
                names[branch], names[shortcut] = shortcut, branch
            assert model.get_layer(branch).kernel.shape == model.get_layer(shortcut).kernel.shape
        path = keras_files.write(model, tmp_path / f"file{swapped}", "keras2_weights", names)
        with pytest.raises(ResiduaError, match=f"in 2 ways as {MY34}.* --model {MY34}"):
            read_file(path)
        first = read_file(path, MY34).tensors["stages.1.units.0.shortcut.conv.weight"]
        stored = model.get_layer("conv2d_13" if swapped else "conv2d_14").get_weights()[0]
        np.testing.assert_array_equal(first.permute(2, 3, 1, 0), stored)


def test_without_top_two_networks_fit_alike(tmp_path: Path) -> None:
    """Keras' VGG16 and tutorial 3's have the same convolutions, but preprocess differently."""
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    base.save_weights(tmp_path / "vgg16.weights.h5")
    with pytest.raises(ResiduaError, match=r"tutorial_vgg16_mnist, keras_vgg16 alike: .* --model"):
        read_file(tmp_path / "vgg16.weights.h5")
    assert not read_file(tmp_path / "vgg16.weights.h5", "keras_vgg16").has_head


# Three ages of ResNet-50 --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet50s() -> dict[str, parity.Reference]:
    """tutorial_resnet50 and keras_resnet50."""
    return {name: parity.reference(name) for name in ("tutorial_resnet50", "keras_resnet50")}


AGES = {  # form, whether under the names of 2015-2017, the network that the file tells by itself
    "2015": ("keras1_weights", True, "tutorial_resnet50"),
    "2017": ("keras2_weights", True, "tutorial_resnet50"),
    "2018": ("keras2_weights", False, "keras_resnet50"),
}


def resnet50_file(model: keras.Model, folder: Path, age: str, *, top: bool = True) -> Path:
    """All three ages have the same file name. top: whether the head is in it."""
    form, old, _ = AGES[age]
    names = {layer.name: layer.name for layer in model.layers}
    names = keras_files.old_resnet50_names(model) if old else names
    if not top:
        features = list(names)[: -1 if "keras" in model.name else -2]
        names = {name: names[name] for name in features}
    folder = folder / age
    folder.mkdir()
    return keras_files.write(
        model, folder / "resnet50_weights_tf_dim_ordering_tf_kernels", form, names
    )


@pytest.mark.parametrize("age", AGES)
def test_resnet50_files_of_three_ages_are_recognised(
    age: str, resnet50s: dict[str, parity.Reference], tmp_path: Path
) -> None:
    true = resnet50s[AGES[age][2]]
    weights = read_file(resnet50_file(true.model, tmp_path, age))
    assert weights.metadata.network.name == AGES[age][2]
    assert max(parity.distances(parity.network(weights), true)) < parity.BOUND


def test_resnet50_files_fit_the_other_network_if_the_user_names_it(
    resnet50s: dict[str, parity.Reference], tmp_path: Path
) -> None:
    age = "2015"
    source = resnet50s[AGES[age][2]].model
    (name,) = resnet50s.keys() - {AGES[age][2]}
    weights = read_file(resnet50_file(source, tmp_path, age), name)
    assert weights.metadata.network.name == name
    other = resnet50s[name].model
    before = other.get_weights()
    to_old = keras_files.old_resnet50_names
    theirs = {old: new for new, old in to_old(source).items()}
    for layer, old in to_old(other).items():
        if other.get_layer(layer).weights:
            other.get_layer(layer).set_weights(source.get_layer(theirs[old]).get_weights())
    images = resnet50s[name].images
    logits, _ = keras_networks.outputs(name, other, images)
    other.set_weights(before)
    computed, _ = parity.computed(parity.network(weights), images)
    assert parity.distance(computed, logits) < parity.BOUND


def test_without_top_it_has_features_and_no_head(
    resnet50s: dict[str, parity.Reference], tmp_path: Path
) -> None:
    age = "2018"
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


# Whole models -------------------------------------------------------------------------------------


def sequential(base: keras.Model) -> keras.Model:
    """Tutorial 2: a frozen network without top, and a head of two dense layers."""
    head = [layers.Dense(256, activation="relu"), layers.Dropout(0.5), layers.Dense(10)]
    return keras.Sequential([base, layers.GlobalAveragePooling2D(), *head])


def functional(base: keras.Model) -> keras.Model:
    inputs = keras.Input(base.input_shape[1:])
    x = layers.GlobalAveragePooling2D()(base(inputs, training=False))
    return keras.Model(inputs, layers.Dense(10)(layers.Dense(256, activation="relu")(x)))


@pytest.mark.parametrize(
    ("transfer", "endings"),
    [(sequential, (".h5", ".keras")), (functional, (".keras", ".weights.h5"))],
)
def test_a_transfer_model_gives_its_network_to_a_new_head(
    transfer: Callable[[keras.Model], keras.Model], endings: tuple[str, ...], tmp_path: Path
) -> None:
    keras.utils.clear_session()
    inner = keras.applications.MobileNet(
        weights=None, include_top=False, input_shape=(32, 32, 3), alpha=1.0
    )
    model = transfer(inner)
    keras_networks.randomise(model, seed=5)
    inner.save_weights(tmp_path / "inner.weights.h5")
    expected = read_file(tmp_path / "inner.weights.h5").tensors
    for ending in endings:
        path = tmp_path / f"transfer{ending}"
        (model.save_weights if ending == ".weights.h5" else model.save)(path)
        weights = read_file(path)
        assert weights.metadata.network.name == "keras_mobilenet"
        body = {name: t for name, t in weights.tensors.items() if not name.startswith("head.")}
        assert_same(body, expected)
        three = replace(weights.metadata.network, classes=3, head=None)
        started = start_from(weights, three, new_head=True, seed=0)
        assert torch.equal(started.state_dict()["stem.conv.weight"], expected["stem.conv.weight"])


def mobilenet(**options: object) -> keras.Model:
    keras.utils.clear_session()
    arguments = {"weights": None, "classes": 5, "input_shape": (64, 64, 3), **options}
    return keras.applications.MobileNet(**arguments)


def test_the_input_size_is_that_of_the_model(tmp_path: Path) -> None:
    model = mobilenet()
    for ending in (".keras", ".h5"):
        model.save(tmp_path / f"five{ending}")
        assert read_file(tmp_path / f"five{ending}").metadata.preprocessing.size == 64


def test_another_epsilon_or_activation_is_another_network(tmp_path: Path) -> None:
    """Names and shapes are equal, the outputs are not."""

    def epsilon(layer: keras.Layer) -> keras.Layer:
        if layer.name == "conv1_bn":
            return keras.layers.BatchNormalization(epsilon=0.01, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    def leaky(layer: keras.Layer) -> keras.Layer:
        if layer.name == "conv1_relu":
            return keras.layers.LeakyReLU(name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    model = mobilenet()
    keras.models.clone_model(model, clone_function=epsilon).save(tmp_path / "epsilon.h5")
    mismatch = "stem.norm (conv1_bn): its epsilon is 0.01, expected 0.001"
    assert mismatch in refused(tmp_path / "epsilon.h5")
    keras.models.clone_model(model, clone_function=leaky).save(tmp_path / "leaky.keras")
    assert "is a layer LeakyReLU, which it does not have" in refused(tmp_path / "leaky.keras")
    mobilenet(classifier_activation="sigmoid").save(tmp_path / "sigmoid.keras")
    weights = read_file(tmp_path / "sigmoid.keras")  # its features can be used
    with pytest.raises(ResiduaError, match="sigmoid"):
        build_network(weights, torch.device("cpu"))


def test_a_lambda_layer_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    """Whatever else the model contains."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Lambda(lambda x: 2 * x, name="\x1b[31mtwice")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    for name in ("file.keras", "file.h5"):
        model.save(tmp_path / name)
        message = refused(tmp_path / name)
        assert r"contains the Lambda layer \x1b[31mtwice" in message
        assert "code in a file is never run" in message


# Keras' own preprocessing -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    files = [folder / "china.png", folder / "flower.jpg"]
    for file, photo in zip(files, load_sample_images().images, strict=True):
        Image.fromarray(photo).save(file)
    return files


def keras_inputs(family: str, photos: list[Path]) -> np.ndarray:
    """load_img and preprocess_input, as Keras documents them."""
    loaded = [keras.utils.load_img(photo, target_size=(224, 224)) for photo in photos]
    pixels = np.stack([keras.utils.img_to_array(image) for image in loaded])
    return getattr(keras.applications, family).preprocess_input(pixels)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("keras_resnet50", "resnet"),  # BGR minus means
        ("keras_mobilenet", "mobilenet"),  # -1..1
        ("keras_densenet121", "densenet"),  # 0..1, mean, standard deviation
    ],
)
def test_images_are_preprocessed_as_in_keras(name: str, family: str, photos: list[Path]) -> None:
    images = images_for(defaults_for(name, 1000, 3).preprocessing, photos)
    expected = np.moveaxis(keras_inputs(family, photos), -1, 1)
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-4)


def test_predictions_are_those_of_keras(photos: list[Path], tmp_path: Path) -> None:
    """load_img, preprocess_input, predict of Keras; and predict of residua."""
    inputs = keras_inputs("mobilenet", photos)
    model = keras_networks.build("keras_mobilenet")
    keras_networks.randomise(model, seed=1)
    kernel = model.get_layer("conv_preds").kernel
    kernel.assign(kernel * (3 / model.predict_on_batch(inputs).std()))  # so that no class is sure
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict_on_batch(inputs)))
    path = keras_files.write(model, tmp_path / "mobilenet", "keras2_weights")
    with pytest.warns(UserWarning, match="not recorded"):
        predictions = residua.predict(path, photos)
    for prediction, probabilities in zip(predictions, expected, strict=True):
        names, values = zip(*prediction.top, strict=True)
        best = np.argsort(-probabilities)[:3]
        assert names == tuple(imagenet_classes()[index] for index in best)
        np.testing.assert_allclose(values, probabilities[best], rtol=0, atol=1e-4)
