"""A network and batches -> logits; used in evaluation and in prediction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks.analysis.shapes import on_meta
from residua.networks.staged import Staged, pooled
from residua.networks.zoo.catalogue import build_from
from residua.weights.key_maps.layers import with_counters
from residua.weights.load import Weights

N = TypeVar("N", bound=nn.Module)
Logits = npt.NDArray[np.float32]  # [N, K]


def predict_logits(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[Logits]:
    """float32 [B, C, S, S] batches -> float32 [B, K], one by one, in float32 and eval mode.

    Always float32, so that a figure is the same on every machine.
    """
    network.eval()
    for images in batches:
        # on a GPU, cuDNN would round float32 inputs to TF32 unless told not to
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            logits: Tensor = network(images)
        yield logits.float().cpu().numpy()


class PooledFeatures(nn.Module):
    """A network without its head: [B, C, H, W] -> the map after a stage, averaged over a grid of
    pool_size x pool_size fields, [B, C' x pool_size x pool_size]."""

    def __init__(self, network: Staged, stage: int, pool_size: int) -> None:
        super().__init__()
        self.network, self.stage, self.pool_size = network, stage, pool_size

    def forward(self, x: Tensor) -> Tensor:
        return pooled(self.network.enter(x, self.stage), self.pool_size)


def build_network(weights: Weights, device: torch.device, *, require_head: bool = True) -> Staged:
    """The network of some weights, on a device, in eval mode, float32. Raises ResiduaError.

    require_head: False takes weights that end before the head too; that head holds zeros.
    """
    if not weights.has_head and require_head:
        raise ResiduaError(
            f"{weights.path}: {weights.no_head_reason}, so it predicts nothing. Train a head on it: "
            f"residua train DATA --weights {weights.path} --new-head"
        )
    if (channels := weights.metadata.network.channels) not in (1, 3):
        raise ResiduaError(f"{weights.path}: reads {channels} channels, but images have 1 or 3.")
    tensors = {
        name: each.float().contiguous() if each.is_floating_point() else each
        for name, each in weights.tensors.items()
    }
    try:
        with on_meta():  # no time and no random numbers for weights that are replaced
            network = build_from(weights.metadata.network)
        if not weights.has_head:
            lost = {k: v for k, v in network.state_dict().items() if k.startswith("head.")}
            tensors |= {name: torch.zeros(each.shape) for name, each in lost.items()}
        network.load_state_dict(with_counters(network, tensors), assign=True)
    except (RuntimeError, TypeError) as error:
        first = " ".join(str(error).split())[:300]
        raise ResiduaError(
            f"{weights.path}: its tensors do not fit its network: {first}"
        ) from error
    return on_device(network, device).eval()


def on_device(network: N, device: torch.device) -> N:
    """The network moved there, its kernels in channels_last order, which convolutions like best."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def default_device() -> torch.device:
    """A GPU where there is one; evaluation and prediction run on it in float32."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
