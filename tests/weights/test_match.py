"""A file fits its network tensor by tensor, or the message names the first that do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from references import torch_networks
from references.torch_files import AUXILIARY, State, weightless
from references.weights_files import KERAS_NAME, NAME, Files, checked, native, put, refused, saved
from safetensors.torch import save
from torch import Tensor

from residua.errors import ResiduaError
from residua.networks.zoo import catalogue
from residua.networks.zoo.catalogue import build
from residua.weights.formats.raw import RawWeights
from residua.weights.key_maps.layers import tensors_of, to_keras, weight_layers
from residua.weights.load import recognise

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_another_network_is_refused_by_its_first_tensors(
    state: State, keras_file: Path, tmp_path: Path
) -> None:
    deeper = put(tmp_path, "pickle", saved(torch_networks.state_dict("cifar_resnet32")))
    message = refused(deeper, NAME)
    assert f"does not fit {NAME}" in message
    assert "layer1.3.conv1 of the file has no counterpart in the network" in message
    message = refused(put(tmp_path, "pickle", saved(state)), "cifar_resnet32")
    assert "(layer1.3.conv1) is missing in the file" in message
    wider = {
        name: each.repeat_interleave(2, 0) if name.startswith("layer2.0.conv1") else each
        for name, each in state.items()
    }
    message = refused(put(tmp_path, "safetensors", save(wider)))
    assert f"the nearest is {NAME}" in message
    assert "weight is 64 x 16 x 3 x 3, expected 32 x 16 x 3 x 3" in message
    path = put(tmp_path, "pickle", saved(state))
    for file, model in ((keras_file, NAME), (path, KERAS_NAME), (path, "resnet18")):
        assert f"whose names are not those of {model}" in refused(file, model)
    path = put(tmp_path, "ours", native(build(NAME, seed=0).state_dict()))
    assert f"has weights of {NAME}, not of resnet18" in refused(path, "resnet18")


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "safetensors", save({"transformer.0.weight": torch.ones(3, 3)}))
    assert "the first are transformer.0" in refused(path)
    assert "without a tensor in it" in refused(put(tmp_path, "safetensors", save({})))
    path = put(tmp_path, "safetensors", save({"weight": torch.ones(3), "a": torch.ones(3)}))
    assert "whose names are not those of any network" in refused(path)


def test_a_missing_statistic_is_named(state: State, keras_file: Path, tmp_path: Path) -> None:
    gone = {name: each for name, each in state.items() if name != "layer2.1.bn2.running_var"}
    message = refused(put(tmp_path, "pickle", saved(gone)))
    assert f"the nearest is {NAME}" in message
    assert "(layer2.1.bn2): running_var is missing in the file" in message
    assert "more" not in message
    with h5py.File(keras_file, "a") as file:
        del file["layers/batch_normalization_2/vars/3"]
    assert "(batch_normalization_2) has tensors of" in refused(keras_file, KERAS_NAME)


@pytest.mark.slow
def test_a_missing_statistic_of_keras_2_is_named(whole: Files, tmp_path: Path) -> None:
    with h5py.File(put(tmp_path, "Keras 2", whole["Keras 2"]), "a") as file:
        group = file["model_weights/batch_normalization_2"]
        group.attrs["weight_names"] = group.attrs["weight_names"][:3]
    assert "(batch_normalization_2) has tensors of" in refused(tmp_path / "file.h5", KERAS_NAME)


@pytest.mark.parametrize(
    "value",
    [float("nan"), *(pytest.param(sign * torch.inf, marks=pytest.mark.slow) for sign in (1, -1))],
)
def test_nan_and_infinity_are_refused(
    state: State, keras_file: Path, value: float, tmp_path: Path
) -> None:
    wrong = dict(state)
    wrong["layer3.0.conv1.weight"] = state["layer3.0.conv1.weight"].clone()
    wrong["layer3.0.conv1.weight"][3, 1, 2, 0] = value
    message = refused(put(tmp_path, "pickle", saved(wrong)))
    assert "(layer3.0.conv1): weight contains numbers that are not finite" in message
    ours = build(NAME, seed=0).state_dict()
    ours["head.bias"][2] = value
    assert "head.bias contains numbers that are not finite" in refused(
        put(tmp_path, "ours", native(ours))
    )
    with h5py.File(keras_file, "a") as file:
        file["layers/conv2d_3/vars/0"][0, 0, 0, 0] = value
    assert "(conv2d_3): weight contains numbers that are not finite" in refused(
        keras_file, KERAS_NAME
    )


def test_numbers_that_overflow_float32_are_refused(state: State, tmp_path: Path) -> None:
    wide = {name: each.double() for name, each in state.items()}
    wide["conv1.weight"][0, 0, 0, 0] = 1e300
    assert "not finite" in refused(put(tmp_path, "pickle", saved(wide)))


def test_a_negative_variance_is_refused(state: State, tmp_path: Path) -> None:
    """A flipped sign, of which the square root is NaN."""
    wrong = {**state, "bn1.running_var": -state["bn1.running_var"]}
    assert "negative variances" in refused(put(tmp_path, "safetensors", save(wrong)))
    ours = build(NAME, seed=0).state_dict()
    ours["stem.norm.running_var"] *= -1
    assert "stem.norm.running_var contains negative variances" in refused(
        put(tmp_path, "ours", native(ours))
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (0,), (0, 64), (10, 0), (10,), (10, 64, 1), (1,) * 40])
def test_heads_of_odd_shapes_are_refused(
    shape: tuple[int, ...], state: State, tmp_path: Path
) -> None:
    odd = torch.ones(shape)
    for names in (("linear.weight",), ("linear.weight", "linear.bias")):
        wrong = {**state, **{name: odd.clone() for name in names}}
        refused(put(tmp_path, "safetensors", save(wrong)), NAME)
    only = {name: each for name, each in state.items() if "linear" not in name}
    for part in ("weight", "bias", "num_batches_tracked", "other"):
        path = put(tmp_path, "safetensors", save({**only, f"linear.{part}": odd}))
        refused(path, NAME)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0, 0), (10, 64, 1), (3, 3, 3, 3)])
@pytest.mark.parametrize("layer", ["conv2d", "batch_normalization", "dense"])
def test_keras_layers_of_odd_shapes_are_refused(
    layer: str, shape: tuple[int, ...], keras_file: Path
) -> None:
    with h5py.File(keras_file, "a") as file:
        for place in list(file[f"layers/{layer}/vars"]):
            del file[f"layers/{layer}/vars/{place}"]
            file[f"layers/{layer}/vars/{place}"] = np.ones(shape, np.float32)
    refused(keras_file, KERAS_NAME)


@pytest.mark.parametrize(
    ("name", "count", "shapes"),
    [
        ("tutorial_resnext50", 600, [(), (3, 3, 4, 4), (1, 1, 2, 4), (1, 1, 64, 4)]),
        ("tutorial_vgg16_mnist", 20, [(), (25088, 4096), (4,)]),
        ("keras_mobilenet", 20, [(), (3, 3, 32, 1), (1, 1)]),
        ("keras_xception", 20, [(), (3, 3, 32, 1)]),
    ],
)
def test_odd_shapes_under_the_names_of_larger_networks_are_refused(
    name: str, count: int, shapes: list[tuple[int, ...]]
) -> None:
    signs = ["conv2d", "dense", "batch_normalization", "block5_conv1", "conv_dw_1", "conv1"]
    signs += ["fc1", "prediction", "predictions", "conv_preds", "block2_sepconv1"]
    signs += [f"conv2d_{number}" for number in range(1, count)]
    for first in shapes:
        raw_layers = {}
        for number, sign in enumerate(signs):
            shape = first if number % 7 else shapes[number % len(shapes)]
            tensor = torch.zeros([min(side, 8) for side in shape])
            raw_layers[sign] = {"0": tensor, "1": tensor}
        path = Path("file.h5")
        with pytest.raises(ResiduaError) as caught:
            recognise(RawWeights(path, "keras", "a Keras 2 weights file", raw_layers), name)
        checked(path, str(caught.value))


@pytest.mark.parametrize("counter", [torch.ones(7), torch.tensor(2.5)])
def test_batch_counters_of_odd_shapes_are_refused(
    counter: Tensor, state: State, tmp_path: Path
) -> None:
    """Nothing needs them, but a network that is loaded strictly would stumble over them."""
    wrong = {**state, "layer1.0.bn1.num_batches_tracked": counter}
    assert "num_batches_tracked" in refused(put(tmp_path, "safetensors", save(wrong)))
    wrong = {**state, "conv1.num_batches_tracked": torch.tensor(1)}
    assert "num_batches_tracked" in refused(put(tmp_path, "safetensors", save(wrong)))


def test_another_network_than_requested_is_refused_by_its_first_tensors() -> None:
    raw = weightless("resnet50", classes=5)
    with pytest.raises(ResiduaError) as caught:
        recognise(raw, "resnet34")
    message = str(caught.value)
    assert "does not fit resnet34 (torchvision): " in message
    assert "(layer1.0.conv1): weight is 64 x 64 x 1 x 1, expected 64 x 64 x 3 x 3" in message
    assert "more." in message
    with pytest.raises(ResiduaError, match="are not those of vgg16: the first are conv1"):
        recognise(raw, "vgg16")
    assert recognise(raw, "resnet50").classes == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",  # one more of each family than test_load computes with
    [
        *("resnet34", "resnet101", "wide_resnet50_2", "cifar_resnet32", "vgg11_bn", "timm_vgg13"),
        *("preact_resnet101", "densenet169"),
    ],
)
def test_published_files_are_recognised_by_names_and_shapes(name: str) -> None:
    raw = weightless(name)
    match = recognise(raw, None)
    assert match.network == name.removeprefix("timm_")
    assert match.classes == catalogue.row(match.network).classes
    read = [layer for layers in match.names.values() for layer in layers]
    assert len(read) == len(set(read))
    assert set(read) == {layer for layer in raw.layers if not layer.startswith(AUXILIARY)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_ignored_whether_there_or_not(name: str) -> None:
    raw = weightless(name, classes=5)
    bare = {key: parts for key, parts in raw.layers.items() if not key.startswith(AUXILIARY)}
    assert len(bare) < len(raw.layers)
    matches = [recognise(file, None) for file in (raw, replace(raw, layers=bare))]
    assert [match.network for match in matches] == [name, name]
    assert matches[0].tensors.keys() == matches[1].tensors.keys()
    assert not [key for key in matches[0].tensors if "aux" in key.lower()]


@pytest.mark.slow
def test_densenets_of_2017_are_recognised_by_their_names() -> None:
    name = "densenet161"
    now = weightless(name, classes=5)
    before: dict[str, dict[str, Tensor]] = {}
    for key in torch_networks.old_densenet_keys(torch_networks.shapes(name, classes=5)):
        layer, _, part = key.rpartition(".")
        new = layer.replace("norm.", "norm").replace("conv.", "conv")
        before.setdefault(layer, {})[part] = now.layers[new][part]
    assert before.keys() != now.layers.keys()
    match = recognise(RawWeights(Path(name), "pytorch", "a PyTorch checkpoint", before), None)
    assert (match.network, match.classes) == (name, 5)


def test_a_grouped_convolution_may_be_stored_in_slices() -> None:
    """As tutorials build it from a convolution for each group, all with automatic names."""
    name = "tutorial_resnext50"
    network = build(name, seed=0)
    raw_layers: dict[str, dict[str, Tensor]] = {}
    counts: Counter[str] = Counter()
    for layer in weight_layers(network, separable=True):
        parts = to_keras(layer, tensors_of(layer))
        groups = getattr(layer.module, "groups", 1)
        for kernel in parts[0].chunk(groups, dim=-1) if groups > 1 else [parts[0]]:
            stored = {str(number): part for number, part in enumerate([kernel, *parts[1:]])}
            raw_layers[f"{layer.kind}_{counts[layer.kind]}"] = stored
            counts[layer.kind] += 1
    assert counts["conv2d"] > 500
    match = recognise(RawWeights(Path("file"), "keras", "a Keras file", raw_layers), name)
    state = network.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in match.tensors.items())
