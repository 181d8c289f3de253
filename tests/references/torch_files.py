"""A state dict -> a file in each form in which PyTorch users publish it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from references import torch_networks
from residua.weights.formats.raw import RawWeights

State = dict[str, Tensor]
Form = Callable[[State, Path], Path]
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def plain(state: State, path: Path) -> Path:
    torch.save(state, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def nested(state: State, path: Path) -> Path:
    """As the training scripts of torchvision and akamaster save a DataParallel network."""
    wrapped = {f"module.{name}": tensor for name, tensor in unwrapped(state).items()}
    content = {"epoch": 90, "arch": "a name", "state_dict": wrapped, "best_prec1": 76.1}
    torch.save(content, path.with_suffix(".pth.tar"))
    return path.with_suffix(".pth.tar")


def before_zip(state: State, path: Path) -> Path:
    """As PyTorch saved until 1.5."""
    torch.save(state, path.with_suffix(".th"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".th")


def uncounted(state: State, path: Path) -> Path:
    """As PyTorch saved before 0.4.1: without the norms' batch counters."""
    counter = ".num_batches_tracked"
    return plain({name: each for name, each in state.items() if not name.endswith(counter)}, path)


def safetensors(state: State, path: Path) -> Path:
    """As timm's repositories publish it."""
    save_file(state, path.with_suffix(".safetensors"), {"format": "pt"})
    return path.with_suffix(".safetensors")


FORMS: tuple[Form, ...] = (plain, nested, before_zip, uncounted, safetensors)


def unwrapped(state: Mapping[str, Tensor]) -> State:
    """Without the prefix of DataParallel."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def assert_same(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """The same names, dtypes and bits."""
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype, name
        assert torch.equal(tensors[name], tensor), name


def weightless(name: str, classes: int | None = None) -> RawWeights:
    """A published file's layers in full size, each tensor a single number in memory."""
    layers: dict[str, State] = {}
    for key, tensor in unwrapped(torch_networks.shapes(name, classes)).items():
        layer, _, part = key.rpartition(".")
        number = torch.zeros((), dtype=tensor.dtype)
        layers.setdefault(layer, {})[part] = number.expand(tensor.shape)
    return RawWeights(Path(name), "pytorch", "a PyTorch checkpoint", layers)
