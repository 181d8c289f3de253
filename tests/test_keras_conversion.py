"""What residua writes, Keras loads; what Keras computes with a file, residua verifies."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references import keras_files, keras_networks, parity
from references.keras_networks import keras
from sklearn.datasets import load_sample_images

import residua
from residua.errors import ResiduaError
from residua.weights.convert import convert
from residua.weights.load import Weights, read_file
from residua.weights.published.classes import imagenet_classes
from residua.weights.verify import Agreement, images_for, table, verify

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:You are saving your model"
)
E32 = "tutorial_cifar_resnet32_e"
TO_KERAS = (
    *("tutorial_cifar_resnet32_a", "my_resnet_32", "tutorial_cifar_resnet34"),
    *("tutorial_cifar_resnet50", "tutorial_resnet50", "tutorial_resnext50_slices"),
    *("tutorial_vgg16_mnist", "tutorial_vgg19_cifar", "keras_resnet50", "keras_resnet50v2"),
    *("keras_xception", "keras_inception_v3", "keras_densenet121", "keras_mobilenet"),
)


def round_trip(name: str, model: keras.Model, folder: Path) -> Path:
    """Keras' file -> ours -> a .weights.h5, whose path it returns; no number changes on the way."""
    read = read_file(keras_files.write(model, folder / name, "keras3_weights"), name)
    ours, theirs = folder / "ours.safetensors", folder / "theirs.weights.h5"
    convert(read, ours)
    convert(read_file(ours), theirs)
    again = read_file(theirs, name)
    assert list(again.tensors) == list(read.tensors)
    assert again.metadata.network == read.metadata.network
    for key, tensor in read.tensors.items():
        assert torch.equal(again.tensors[key], tensor), key
    return theirs


@pytest.mark.parametrize("name", TO_KERAS)
def test_keras_loads_what_is_written(name: str, tmp_path: Path) -> None:
    true, ours = parity.reference(name, start=3), parity.ours(name)
    written = round_trip(ours, true.model, tmp_path)
    model = keras_networks.build(ours, 7, parity.side(name))
    model.load_weights(written)
    logits, _ = keras_networks.outputs(ours, model, true.images)
    np.testing.assert_array_equal(logits, true.logits)


def test_a_dense_layer_that_reads_a_map_is_turned_there_and_back(tmp_path: Path) -> None:
    """keras_vgg16 flattens 7 x 7 x 512 as (h, w, channels): read, computed, written, loaded."""
    name = "keras_vgg16"
    true = parity.reference(name)
    path = keras_files.write(true.model, tmp_path / name, "keras3_weights")
    weights, written = read_file(path, name), tmp_path / "written.weights.h5"
    assert max(parity.distances(parity.network(weights), true)) < parity.BOUND
    assert dict(parity.errors(weights, true))["pool"] > 20 * parity.BOUND
    convert(weights, written)
    keras_networks.randomise(true.model, seed=2)
    true.model.load_weights(written)
    logits, _ = keras_networks.outputs(name, true.model, true.images)
    np.testing.assert_array_equal(logits, true.logits)


def test_a_subclass_is_written_and_read_but_keras_refuses_it(tmp_path: Path) -> None:
    """Keras lays such a file out by the attributes of its Python objects."""
    model = keras_networks.build("tutorial_resnet18", size=32)
    keras_networks.randomise(model, seed=1)
    written = round_trip("tutorial_resnet18", model, tmp_path)
    with pytest.raises(ValueError, match="objects could not be loaded"):
        model.load_weights(written)


def test_weights_before_a_head_are_written_without_one(tmp_path: Path) -> None:
    base = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    keras_networks.randomise(base, seed=1)
    before = [each.copy() for each in base.get_weights()]
    written = round_trip("keras_mobilenet", base, tmp_path)
    keras_networks.randomise(base, seed=2)
    base.load_weights(written)
    assert all(map(np.array_equal, before, base.get_weights()))


def random_file(name: str, folder: Path, form: str, classes: int | None = None) -> Path:
    model = keras_networks.build(name, classes, start=3)
    keras_networks.randomise(model, seed=1)
    return keras_files.write(model, folder / name, form)


def agreements(weights: Weights) -> list[Agreement]:
    return verify(weights, images_for(weights.metadata.preprocessing, []))


@pytest.mark.parametrize(
    ("name", "form", "layers"),
    [
        ("tutorial_cifar_resnet34", "keras3_whole", 69),
        ("tutorial_vgg19_cifar", "keras3_legacy_h5", 38),
        ("keras_mobilenet", "keras3_weights", 55),
        ("keras_resnet50", "keras2_weights", 107),
    ],
)
def test_verify_compares_every_layer(name: str, form: str, layers: int, tmp_path: Path) -> None:
    found = agreements(read_file(random_file(name, tmp_path, form), name))
    assert len(found) == layers
    assert all(each.good for each in found)
    assert f"{layers} layers agree: at most" in table(found)


def test_verify_finds_a_changed_tensor(tmp_path: Path) -> None:
    """As if it had been read wrongly: the layers in front of it agree, it does not."""
    weights = read_file(random_file("keras_mobilenet", tmp_path, "keras3_weights"))
    changed = "stages.3.units.2.branch.conv2.weight"
    tensors = {**weights.tensors, changed: weights.tensors[changed].flip(0)}
    found = agreements(dataclasses.replace(weights, tensors=tensors))
    first = next(each for each in found if not each.good)
    assert first.keras == "conv_pw_8"
    assert found[found.index(first) - 1].keras == "conv_dw_8_bn"
    assert "layers DIFFER: at most" in table(found)


def command(*words: str, hidden: str = "none") -> subprocess.CompletedProcess[str]:
    """The command line in a process in which the package `hidden` is not installed."""
    code = f"import sys; sys.modules[{hidden!r}] = None; from residua.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)


def test_verify_on_the_command_line_ends_with_a_status(tmp_path: Path) -> None:
    """The same tensors with the projection on another tap are another network."""
    file = str(random_file(E32, tmp_path, "keras3_whole"))
    right = command("weights", "verify", file, "--model", E32)
    assert (right.returncode, right.stderr) == (0, "")
    assert "65 layers agree: at most" in right.stdout
    wrong = command("weights", "verify", file, "--against", "keras", "--model", f"{E32}_v2")
    assert wrong.returncode == 1
    assert "65 layers DIFFER: at most" in wrong.stdout
    first = next(line for line in wrong.stdout.splitlines() if line.endswith("<- differs"))
    assert first.split()[0] == "conv2d_16"


def test_what_is_not_installed_is_said_kindly(tmp_path: Path) -> None:
    file = str(random_file("keras_mobilenet", tmp_path, "keras3_weights"))
    without = command("weights", "verify", file, hidden="keras")
    assert without.returncode == 1
    assert "runs Keras, which is not installed: pip install keras h5py" in one_line(without.stderr)
    for words in (["inspect", file], ["convert", file, str(tmp_path / "ours.safetensors")]):
        without = command("weights", *words, hidden="h5py")
        assert without.returncode == 1
        said = one_line(without.stderr)
        assert f"{file}: is a Keras file, and reading it needs h5py" in said
        assert "pip install h5py" in said


def one_line(said: str) -> str:
    assert "Traceback" not in said
    return " ".join(said.split())


def test_verify_says_what_keras_cannot_check(tmp_path: Path) -> None:
    weights = read_file(random_file(E32, tmp_path, "keras3_weights"), E32)
    with pytest.raises(ResiduaError, match=rf"keras\.applications has no {E32}"):
        agreements(weights)
    convert(weights, tmp_path / "ours.safetensors")
    with pytest.raises(ResiduaError, match="is no Keras file"):
        agreements(read_file(tmp_path / "ours.safetensors"))


CHAINS = {  # whose preprocess_input, and which layer is the head
    "keras_resnet50": (keras.applications.resnet, "predictions"),  # BGR minus means
    "keras_mobilenet": (keras.applications.mobilenet, "conv_preds"),  # -1..1
    "keras_densenet121": (keras.applications.densenet, "predictions"),  # 0..1, mean, deviation
}


@pytest.mark.parametrize("name", CHAINS)
def test_predictions_are_those_of_keras_own_chain(name: str, tmp_path: Path) -> None:
    """load_img, preprocess_input, predict, as Keras documents them; and predict of residua."""
    files = [tmp_path / "china.png", tmp_path / "flower.jpg"]
    for file, photo in zip(files, load_sample_images().images, strict=True):
        Image.fromarray(photo).save(file)
    family, head = CHAINS[name]
    loaded = [keras.utils.load_img(each, target_size=(224, 224)) for each in files]
    inputs = family.preprocess_input(np.stack([keras.utils.img_to_array(each) for each in loaded]))
    model = keras_networks.build(name)
    keras_networks.randomise(model, seed=1)
    kernel = model.get_layer(head).kernel
    kernel.assign(kernel * (3 / model.predict_on_batch(inputs).std()))  # so that no class is sure
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict_on_batch(inputs)))
    path = keras_files.write(model, tmp_path / name, "keras2_weights")
    for found, chances in zip(residua.predict(path, files), expected, strict=True):
        names, values = zip(*found.top, strict=True)
        best = np.argsort(-chances)[:3]
        assert names == tuple(imagenet_classes()[place] for place in best)
        np.testing.assert_allclose(values, chances[best], rtol=0, atol=1e-4)


def test_bfloat16_becomes_float32_in_keras_files(tmp_path: Path) -> None:
    network = residua.build("keras_mobilenet", classes=5, seed=1).bfloat16()
    torch.save(network.state_dict(), tmp_path / "half.pth")
    held = read_file(tmp_path / "half.pth", "keras_mobilenet")
    convert(held, tmp_path / "theirs.weights.h5")
    again = read_file(tmp_path / "theirs.weights.h5", "keras_mobilenet")
    for name, tensor in again.tensors.items():
        assert torch.equal(tensor, held.tensors[name].float()), name


def test_verify_looks_into_nested_models(tmp_path: Path) -> None:
    """As the tutorials build them: a base without a head, and a head behind it."""
    base = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    layers = [base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7)]
    keras.Sequential(layers).save(tmp_path / "nested.keras")
    weights = read_file(tmp_path / "nested.keras")
    found = agreements(weights)
    assert all(each.good for each in found)
    assert {"conv_pw_13", "conv1_bn"} <= {each.keras for each in found}
    changed = next(name for name, each in weights.tensors.items() if each.ndim == 4)
    tensors = {**weights.tensors, changed: weights.tensors[changed].flip(0)}
    assert not all(each.good for each in agreements(dataclasses.replace(weights, tensors=tensors)))
