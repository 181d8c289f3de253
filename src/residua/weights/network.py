"""Weights -> a network in eval mode."""

from __future__ import annotations

import os
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from residua.errors import ResiduaError
from residua.networks.own import Whole
from residua.networks.staged import Staged
from residua.networks.zoo.catalogue import outline_of
from residua.system.device import device_named
from residua.weights.key_maps.layers import with_counters
from residua.weights.load import Weights

N = TypeVar("N", bound=nn.Module)
Logits = npt.NDArray[np.float32]  # [N, K]

if hasattr(os, "register_at_fork"):  # OpenMP's threads do not survive a fork: waiting would hang
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def build_network(weights: Weights, device: torch.device, *, require_head: bool = True) -> Staged:
    """The network of `weights` on a device, in eval mode, float32.

    require_head: False accepts weights without a head; the head is then all zeros. Raises
    ResiduaError if the head is missing, the channels are no image's or the tensors do not fit.
    """
    check_usable(weights, require_head=require_head)
    tensors = {
        name: tensor.float().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in weights.tensors.items()
    }
    try:
        network = outline_of(weights.metadata.network)
        if not weights.has_head:
            head = {k: v for k, v in network.state_dict().items() if k.startswith("head.")}
            tensors |= {name: torch.zeros(tensor.shape) for name, tensor in head.items()}
        network.load_state_dict(with_counters(network, tensors), assign=True)
    except (RuntimeError, TypeError) as error:
        first = " ".join(str(error).split())[:300]
        raise ResiduaError(
            f"{weights.path}: its tensors do not fit its network: {first}"
        ) from error
    return on_device(network, device).eval()


def check_usable(weights: Weights, *, require_head: bool = True) -> None:
    """Raise ResiduaError where `build_network` would, but for tensors that do not fit."""
    if weights.exported is not None:
        raise ResiduaError(
            f"{weights.path}: is an exported file, which has no layers: use the weights that it "
            "was exported from."
        )
    if require_head and not weights.has_head:
        raise ResiduaError(
            f"{weights.path}: {weights.no_head_reason}, so it cannot classify. Train a head on "
            f"it: residua train DATA --weights {weights.path} --new-head"
        )
    if (channels := weights.metadata.network.channels) not in (1, 3):
        raise ResiduaError(f"{weights.path}: reads {channels} channels, but images have 1 or 3.")


def on_device(network: N, device: torch.device) -> N:
    """The network on the device, in channels_last memory format, the fastest for convolutions.

    A network of the user's own keeps its format.
    """
    if isinstance(network, Whole):
        return network.to(device)
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def default_device(name: str | None = None) -> torch.device:
    """The GPU if there is one; evaluation and prediction run on it in float32.

    name: another device, see `device_named`. Raises ResiduaError if it is not available.
    """
    if name is not None:
        return device_named(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
