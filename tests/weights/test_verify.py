"""`residua weights verify`: Keras and our network agree layer by layer, or it shows where not."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from references import keras_files, keras_networks
from references.command_line import residua
from references.keras_networks import keras

from residua.errors import ResiduaError
from residua.weights import formats
from residua.weights.convert import convert
from residua.weights.load import Weights, read_file
from residua.weights.verify import Agreement, images_for, table, verify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
E32, MY34 = "tutorial_cifar_resnet32_e", "tutorial_cifar_resnet34"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """keras_mobilenet, MY34 and E32 in files named by their forms."""
    folder = tmp_path_factory.mktemp("verify")
    for name, forms in (
        ("keras_mobilenet", ("keras3_weights", "keras2_weights")),
        (MY34, ("keras3_whole", "keras3_legacy_h5")),
        (E32, ("keras3_whole", "keras3_weights")),
    ):
        model = keras_networks.build(name, start=3)
        keras_networks.randomise(model, seed=1)
        for form in forms:
            keras_files.write(model, folder / f"{name}-{form}", form)
    return folder


def file_of(folder: Path, name: str, form: str) -> Path:
    return folder / f"{name}-{form}{keras_files.FORMS[form]}"


def agreements(weights: Weights) -> list[Agreement]:
    return verify(weights, images_for(weights.metadata.preprocessing, []))


@pytest.mark.parametrize(
    ("name", "form", "layers"),
    [
        (MY34, "keras3_whole", 69),
        (MY34, "keras3_legacy_h5", 69),
        ("keras_mobilenet", "keras3_weights", 55),
        ("keras_mobilenet", "keras2_weights", 55),
    ],
)
def test_verify_compares_every_layer(name: str, form: str, layers: int, folder: Path) -> None:
    found = agreements(read_file(file_of(folder, name, form), name))
    assert len(found) == layers
    assert all(layer.good for layer in found)
    assert f"{layers} layers agree: at most" in table(found)


def test_verify_finds_a_changed_tensor(folder: Path) -> None:
    """As if it had been read wrongly: the layers before it agree, it does not."""
    weights = read_file(file_of(folder, "keras_mobilenet", "keras3_weights"))
    changed = "stages.3.units.2.branch.conv2.weight"
    tensors = {**weights.tensors, changed: weights.tensors[changed].flip(0)}
    found = agreements(dataclasses.replace(weights, tensors=tensors))
    first = next(layer for layer in found if not layer.good)
    assert first.keras == "conv_pw_8"
    assert found[found.index(first) - 1].keras == "conv_dw_8_bn"
    assert "layers DIFFER: at most" in table(found)


def test_verify_exits_with_a_status(folder: Path) -> None:
    """The same tensors with the projection on another tap are another network."""
    file = str(file_of(folder, E32, "keras3_whole"))
    right = residua("weights", "verify", file, "--model", E32)
    assert right.status == 0
    assert "65 layers agree: at most" in right.stdout
    wrong = residua("weights", "verify", file, "--against", "keras", "--model", f"{E32}_v2")
    assert wrong.status == 1
    assert "65 layers DIFFER: at most" in wrong.stdout
    first = next(line for line in wrong.stdout.splitlines() if line.endswith("<- differs"))
    assert first.split()[0] == "conv2d_16"


def test_a_missing_package_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(file_of(folder, "keras_mobilenet", "keras3_weights"))
    with monkeypatch.context() as hidden:
        hidden.setitem(sys.modules, "keras", None)
        without = residua("weights", "verify", file)
    assert without.status == 1
    assert "runs Keras, which is not installed: pip install keras h5py" in one_line(without.stderr)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for module in ("hdf5", "keras_files"):  # imported anew, without h5py
        monkeypatch.delitem(sys.modules, f"residua.weights.formats.{module}")
        monkeypatch.delattr(formats, module)
    for words in (["inspect", file], ["convert", file, str(tmp_path / "ours.safetensors")]):
        without = residua("weights", *words)
        assert without.status == 1
        message = one_line(without.stderr)
        assert f"{file}: is a Keras file, and reading it needs h5py" in message
        assert "pip install h5py" in message


def one_line(text: str) -> str:
    assert "Traceback" not in text
    return " ".join(text.split())


def test_verify_names_what_keras_cannot_check(folder: Path, tmp_path: Path) -> None:
    weights = read_file(file_of(folder, E32, "keras3_weights"), E32)
    with pytest.raises(ResiduaError, match=rf"keras\.applications has no {E32}"):
        agreements(weights)
    convert(weights, tmp_path / "ours.safetensors")
    with pytest.raises(ResiduaError, match="is no Keras file"):
        agreements(read_file(tmp_path / "ours.safetensors"))


def test_verify_compares_nested_models(tmp_path: Path) -> None:
    """As the tutorials build them: a base without a head, and a head behind it."""
    base = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    layers = [base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7)]
    keras.Sequential(layers).save(tmp_path / "nested.keras")
    weights = read_file(tmp_path / "nested.keras")
    found = agreements(weights)
    assert all(layer.good for layer in found)
    assert {"conv_pw_13", "conv1_bn"} <= {layer.keras for layer in found}
    changed = next(name for name, tensor in weights.tensors.items() if tensor.ndim == 4)
    tensors = {**weights.tensors, changed: weights.tensors[changed].flip(0)}
    found = agreements(dataclasses.replace(weights, tensors=tensors))
    assert not all(layer.good for layer in found)
