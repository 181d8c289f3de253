"""Weights -> a network in eval mode; a network and batches -> logits, or pooled features."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from residua.data.augmentation import normalise
from residua.errors import ResiduaError
from residua.networks.analysis.shapes import on_meta
from residua.networks.staged import Staged, pooled
from residua.networks.zoo.catalogue import build_from
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
    tensors = {
        name: tensor.float().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in weights.tensors.items()
    }
    try:
        with on_meta():  # initialising what is replaced would cost time and random numbers
            network = build_from(weights.metadata.network)
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


def on_device(network: N, device: torch.device) -> N:
    """The network on the device, in channels_last memory format, the fastest for convolutions."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def default_device() -> torch.device:
    """The GPU if there is one; evaluation and prediction run on it in float32."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def predict_logits(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[Logits]:
    """float32 [B, C, S, S] batches -> float32 [B, K] each, in eval mode.

    Always float32, so that figures agree on every machine.
    """
    network.eval()
    for images in batches:
        # on a GPU, cuDNN rounds float32 inputs to TF32 by default
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            logits: Tensor = network(images)
        yield logits.float().cpu().numpy()


def classifier_of(weights: Weights, device: torch.device) -> Callable[[Tensor], Logits]:
    """A function from images, uint8 [B, S, S, C] on the device, to logits, float32 [B, K].

    Raises ResiduaError as `build_network` does.
    """
    if (exported := weights.exported) is not None:
        return lambda pixels: exported.run(pixels.cpu().numpy())[0]
    network, preprocessing = build_network(weights, device), weights.metadata.preprocessing
    return lambda pixels: next(predict_logits(network, [normalise(pixels, preprocessing)]))


class PooledFeatures(nn.Module):
    """[B, C, H, W] -> the feature map after a stage, average-pooled to pool_size x pool_size and
    flattened, [B, C' x pool_size x pool_size]."""

    def __init__(self, network: Staged, stage: int, pool_size: int) -> None:
        super().__init__()
        self.network, self.stage, self.pool_size = network, stage, pool_size

    def forward(self, x: Tensor) -> Tensor:
        return pooled(self.network.enter(x, self.stage), self.pool_size)
