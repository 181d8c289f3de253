"""Weights under our names -> the files of others: Keras 3's .weights.h5, a published state dict."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks.analysis.shapes import on_meta
from residua.networks.zoo.catalogue import build_from
from residua.system.files import write_atomically
from residua.weights.key_maps.dialect import ALL, Dialect
from residua.weights.key_maps.keras import KERAS_DIALECTS
from residua.weights.key_maps.layers import Place, places, to_keras
from residua.weights.key_maps.order import keras_order
from residua.weights.key_maps.torch import TORCH_DIALECTS
from residua.weights.load import Weights
from residua.weights.match import AUTOMATIC
from residua.weights.native import to_bytes

if TYPE_CHECKING:
    import h5py

FORMS = ".safetensors (residua), .weights.h5 (Keras 3) or .pth (names of torchvision or timm)"


def convert(weights: Weights, out: Path) -> None:
    """Write the weights in the form that the name `out` ends in; every number stays as it is.

    Raises ResiduaError if the form is unknown, or has no such network.
    """
    if out.exists() and out.samefile(weights.path):
        raise ResiduaError(f"{out}: is the file to be converted: give another name.")
    if out.name.endswith(".safetensors"):
        write_atomically(out, to_bytes(weights.tensors, weights.metadata))
    elif out.name.endswith(".weights.h5"):
        write_atomically(out, _keras_file(weights, out))
    elif out.suffix in (".pth", ".pt", ".th"):
        stream = io.BytesIO()
        torch.save(_published_names(weights, out), stream)
        write_atomically(out, stream.getvalue())
    else:
        raise ResiduaError(f"{out}: expected a name that ends in {FORMS}.")


def _skeleton(weights: Weights) -> nn.Module:
    with on_meta():
        return build_from(weights.metadata.network)


def _dialect(weights: Weights, known: tuple[Dialect, ...], out: Path, whose: str) -> Dialect:
    """How others name this network: as the weights came, if that is one of their ways."""
    name = weights.metadata.network.name
    network = weights.metadata.network
    changed = any(getattr(network, key) for key in ("ordering", "shortcut", "cardinality", "head"))
    found = [each for each in known if each.rows != ALL and each.knows(name)]
    if not found or changed:
        what = f"{name} with another ordering, shortcut, cardinality or head" if changed else name
        raise ResiduaError(f"{out}: {whose} no network like {what}: write .safetensors.")
    own = weights.match.dialect if weights.match else None
    return own if own in found else found[0]


def _published_names(weights: Weights, out: Path) -> dict[str, Tensor]:
    network = _skeleton(weights)
    dialect = _dialect(
        weights, TORCH_DIALECTS, out, "torchvision, timm and pytorch_resnet_cifar10 have"
    )
    found = places(network, separable=False)
    names = dialect.names(network, found)
    result: dict[str, Tensor] = {}
    for place in found:
        for part in place.module.state_dict():
            tensor = weights.tensors.get(f"{place.name}.{part}")
            if tensor is None:  # the weights end before the head, or an old norm counts no batches
                continue
            if place.name in dialect.convolutions and part == "weight":
                tensor = tensor.reshape(len(tensor), -1, place.side, place.side)
            result[f"{names[place.name]}.{part}"] = tensor.contiguous()
    return result


def _keras_file(weights: Weights, out: Path) -> bytes:
    """The bytes of a .weights.h5 that Keras 3 loads into the same network of its own.

    But not where that is a subclass (tutorial_resnet18): then the attributes of its Python objects
    name the groups of a file, which Keras says, and loads nothing.
    """
    try:
        import h5py
    except ImportError as error:
        raise ResiduaError(f"{out}: writing it needs h5py: pip install h5py.") from error
    network = _skeleton(weights)
    dialect = _dialect(weights, KERAS_DIALECTS, out, "Keras has")
    found = dialect.as_there(places(network, separable=True))
    names = _true_names(network, dialect, found)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        counts: Counter[str] = Counter()
        for place in keras_order(network, found, dialect.shortcut_first):
            tensors = {
                name.removeprefix(f"{place.name}."): each
                for name, each in weights.tensors.items()
                if name.startswith(f"{place.name}.")
            }
            if tensors:
                group = _numbered(place.kind, counts)
                _store(file, f"layers/{group}", names[place.name], place, tensors)
    return stream.getvalue()


def _true_names(network: nn.Module, dialect: Dialect, found: list[Place]) -> dict[str, str]:
    """Names that carry meaning, else those that Keras would give in order of creation."""
    named = dialect.names(network, found)
    counts: Counter[str] = Counter()
    return {
        each.name: named.get(each.name) or _numbered(AUTOMATIC[each.kind][0], counts)
        for each in found
    }


def _numbered(name: str, counts: Counter[str]) -> str:
    counts[name] += 1
    return f"{name}_{counts[name] - 1}" if counts[name] > 1 else name


def _store(file: h5py.File, path: str, name: str, place: Place, tensors: dict[str, Tensor]) -> None:
    group = file.create_group(f"{path}/vars")
    group.attrs["name"] = name
    if place.kind == "conv2d" and tensors["weight"].ndim == 2:
        tensors["weight"] = tensors["weight"][:, :, None, None]
    for number, tensor in enumerate(to_keras(place, tensors)):
        exact = tensor.float() if tensor.dtype == torch.bfloat16 else tensor  # NumPy has none
        group[str(number)] = exact.contiguous().numpy()
