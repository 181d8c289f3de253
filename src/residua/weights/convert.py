"""Weights under residua's names -> another program's file: .weights.h5 (Keras 3) or state dict."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks.zoo.catalogue import outline_of
from residua.system.files import check_output, write_atomically
from residua.weights.companion import check_companion, write_companion
from residua.weights.key_maps.keras import KERAS_MAPS
from residua.weights.key_maps.key_map import OURS, KeyMap
from residua.weights.key_maps.layers import WeightLayer, keras_order, to_keras, weight_layers
from residua.weights.key_maps.torch import TORCH_MAPS
from residua.weights.load import Weights
from residua.weights.match import AUTOMATIC
from residua.weights.native import to_bytes

if TYPE_CHECKING:
    import h5py

# residua, Keras 3, and three endings of state dicts with the names of torchvision or timm
ENDINGS = (".safetensors", ".weights.h5", ".pth", ".pt", ".th")


def convert(weights: Weights, out: Path) -> Path | None:
    """Write the weights in the format of the extension of `out`; every number stays as it is.

    Class names, preprocessing and origin are in a .safetensors file; beside another one, they go to
    OUT.json, whose path is returned; `read_file` reads both. Raises ResiduaError if the extension
    is unknown, the file exists or the other program has no such network.
    """
    check_output(out, ENDINGS, (weights.path,))
    name = out.name.lower()
    if name.endswith(".safetensors"):
        write_atomically(out, to_bytes(weights.tensors, weights.metadata))
        return None
    check_companion(out)
    if name.endswith(".weights.h5"):
        content = _keras_file(weights, out)
    else:
        stream = io.BytesIO()
        torch.save(_state_dict(weights, out), stream)
        content = stream.getvalue()
    write_atomically(out, content)
    return write_companion(out, content, weights.metadata)


def _key_map(weights: Weights, maps: tuple[KeyMap, ...], out: Path, programs: str) -> KeyMap:
    """The key map of this network: that of the file it came from if it is among them."""
    network = weights.metadata.network
    changed = [
        option
        for option in ("ordering", "shortcut", "cardinality", "head")
        if getattr(network, option)
    ]
    fitting = [m for m in maps if m.source != OURS and m.covers(network.name)]
    if not fitting or changed:
        other = (
            f" with {' and '.join(f'another {option}' for option in changed)}" if changed else ""
        )
        raise ResiduaError(
            f"{out}: {programs} no network like {network.name}{other}: write .safetensors."
        )
    origin = weights.match.key_map if weights.match else None
    return origin if origin in fitting else fitting[0]


def _state_dict(weights: Weights, out: Path) -> dict[str, Tensor]:
    network = outline_of(weights.metadata.network)
    key_map = _key_map(
        weights, TORCH_MAPS, out, "torchvision, timm and pytorch_resnet_cifar10 have"
    )
    layers = weight_layers(network, separable=False)
    names = key_map.names(network, layers)
    state: dict[str, Tensor] = {}
    for layer in layers:
        for part in layer.module.state_dict():
            tensor = weights.tensors.get(f"{layer.name}.{part}")
            if tensor is None:  # the head, or the batch counter of an old norm
                continue
            if layer.name in key_map.convolutions and part == "weight":
                tensor = tensor.reshape(len(tensor), -1, layer.side, layer.side)
            state[f"{names[layer.name]}.{part}"] = tensor.contiguous()
    return state


def _keras_file(weights: Weights, out: Path) -> bytes:
    """A .weights.h5 that Keras 3 loads into its own network.

    Except into a subclassed one (tutorial_resnet18): its file follows the attributes of
    Python objects, so Keras refuses this one with a message.
    """
    try:
        import h5py
    except ImportError as error:
        raise ResiduaError(f"{out}: writing it needs h5py: pip install h5py.") from error
    network = outline_of(weights.metadata.network)
    key_map = _key_map(weights, KERAS_MAPS, out, "Keras has")
    layers = key_map.as_stored(weight_layers(network, separable=True))
    names = _keras_names(network, key_map, layers)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        counts: Counter[str] = Counter()
        for layer in keras_order(network, layers, key_map.shortcut_first):
            tensors = {
                name.removeprefix(f"{layer.name}."): tensor
                for name, tensor in weights.tensors.items()
                if name.startswith(f"{layer.name}.")
            }
            if tensors:
                group = _numbered(layer.kind, counts)
                _store(file, f"layers/{group}", names[layer.name], layer, tensors)
    return stream.getvalue()


def _keras_names(network: nn.Module, key_map: KeyMap, layers: list[WeightLayer]) -> dict[str, str]:
    """Known names, else those that Keras would give in the order of creation."""
    known = key_map.names(network, layers)
    counts: Counter[str] = Counter()
    return {
        layer.name: known.get(layer.name) or _numbered(AUTOMATIC[layer.kind][0], counts)
        for layer in layers
    }


def _numbered(name: str, counts: Counter[str]) -> str:
    counts[name] += 1
    return f"{name}_{counts[name] - 1}" if counts[name] > 1 else name


def _store(
    file: h5py.File, path: str, name: str, layer: WeightLayer, tensors: dict[str, Tensor]
) -> None:
    group = file.create_group(f"{path}/vars")
    group.attrs["name"] = name
    if layer.kind == "conv2d" and tensors["weight"].ndim == 2:
        tensors["weight"] = tensors["weight"][:, :, None, None]
    for number, tensor in enumerate(to_keras(layer, tensors)):
        exact = tensor.float() if tensor.dtype == torch.bfloat16 else tensor  # NumPy has none
        group[str(number)] = exact.contiguous().numpy()
