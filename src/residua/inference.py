"""A network and batches -> logits; used in evaluation and in prediction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks.catalogue import build
from residua.weights.native import Card, read_weights

Logits = npt.NDArray[np.float32]  # [N, K]


def logits_of(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[Logits]:
    """float32 [B, C, S, S] batches -> float32 [B, K], one by one, in float32 and eval mode.

    Always float32, so that a figure is the same on every machine.
    """
    network.eval()
    for images in batches:
        # on a GPU, cuDNN would round float32 inputs to TF32 unless told not to
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            logits: Tensor = network(images)
        yield logits.float().cpu().numpy()


def load_network(path: Path, device: torch.device) -> tuple[nn.Module, Card]:
    """The network of a weights file of ours, in eval mode. Raises ResiduaError."""
    tensors, card = read_weights(path)
    try:
        with torch.device("meta"):  # no time and no random numbers for weights that are replaced
            network = build(**card.network)
        network.load_state_dict(tensors, assign=True)
    except (RuntimeError, TypeError) as error:
        first = " ".join(str(error).split())[:300]
        raise ResiduaError(f"{path}: its tensors do not fit its network: {first}") from error
    return on_device(network, device).eval(), card


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network moved there, its kernels in channels_last order, which convolutions like best."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def default_device() -> torch.device:
    """A GPU where there is one; evaluation and prediction run on it in float32."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
