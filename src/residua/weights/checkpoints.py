"""PyTorch's files, pickled or safetensors -> the layers of a state dict; no code in them runs."""

from __future__ import annotations

import argparse
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residua.errors import ResiduaError
from residua.weights.stored import Stored, translated

if TYPE_CHECKING:
    from torch import Tensor

NESTS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "net", "weights")
WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning


def read_pickle(path: Path) -> Stored:
    """A file of torch.save, read with weights_only. Raises ResiduaError."""
    import torch

    what = "a PyTorch checkpoint"
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm keeps its arguments so
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ResiduaError(
                f"{path}: unpickling it would run {found[1]}, and code in a file is never run. "
                "Save the tensors alone: torch.save(network.state_dict(), FILE)."
            ) from error
        with translated(path, what):
            raise
    tensors = _state_dict(path, content)
    return Stored(path, "pytorch", what, _layers(tensors))


def read_safetensors(path: Path) -> Stored:
    """A .safetensors file of any writer. Raises ResiduaError."""
    from safetensors.torch import load_file

    with translated(path, "safetensors"), path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        json.loads(stream.read(length), object_pairs_hook=_unique)
        tensors = load_file(path)
    return Stored(path, "pytorch", "safetensors", _layers(_unwrapped(tensors)))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names {twice!r} twice")
    return found


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    """The state dict, wherever a checkpoint keeps it. Raises ResiduaError."""
    import torch

    while isinstance(content, Mapping):
        if content and all(isinstance(each, torch.Tensor) for each in content.values()):
            return _unwrapped({str(name): each for name, each in content.items()})
        inner = next(
            (content[name] for name in NESTS if isinstance(content.get(name), Mapping)), None
        )
        if inner is None:
            break
        content = inner
    held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else repr(content)
    raise ResiduaError(
        f"{path}: holds no state dict: expected names with tensors, or such a dictionary under "
        f"{NESTS[0]!r}; found {held[:200]}."
    )


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that a wrapper put before all of them."""
    found = dict(tensors)
    while prefix := next(
        (each for each in WRAPPERS if found and all(name.startswith(each) for name in found)), None
    ):
        found = {name.removeprefix(prefix): each for name, each in found.items()}
    return found


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = tensor
    return layers
