"""A network -> shapes: it runs on the "meta" device, where tensors have no memory or values."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# raised for an input of a wrong shape
REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)
_MULTIPLIES = {"conv1d", "conv2d", "conv3d", "linear"}
_KEEPS_SHAPE = {"batch_norm", "fill_", "zero_", "normal_", "uniform_", "kaiming_uniform_"}
_ADDS = {"add", "__add__", "__iadd__", "add_"}


class Shapes(TorchFunctionMode):
    """Counts multiply-adds, and replaces functions whose output shape is known beforehand.

    PyTorch's own versions on "meta" are decompositions in Python, which dominate the time there and
    import its compiler first.
    """

    multiply_adds = 0

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values, word = [*args, *(kwargs or {}).values()], call.__name__
        if word in _KEEPS_SHAPE or (word in _ADDS and _are_alike(values)):
            return values[0].view_as(values[0])  # another tensor, as from the function
        if word in ("relu", "hardtanh"):  # nn.ReLU6 is a hardtanh
            return values[0] if (kwargs or {}).get("inplace") else values[0].view_as(values[0])
        if word == "adaptive_avg_pool2d" and isinstance(values[1], int):
            return torch.empty(*values[0].shape[:-2], values[1], values[1], device="meta")
        if word == "linear":  # a bias changes no shape
            args, kwargs = values[:2], {}
        output = call(*args, **(kwargs or {}))
        if word in _MULTIPLIES:  # every output pixel reads all weights once
            self.multiply_adds += output.numel() // len(values[1]) * values[1].numel()
        return output


def _are_alike(values: list[Any]) -> bool:
    """Whether two tensors have one shape."""
    shapes = [value.shape for value in values if isinstance(value, torch.Tensor)]
    return len(shapes) == 2 and shapes[0] == shapes[1]


@contextmanager
def on_meta() -> Iterator[Shapes]:
    """Build and run networks on "meta" inside this context."""
    with torch.device("meta"), torch.no_grad(), Shapes() as shapes:
        yield shapes


def weightless(network: nn.Module) -> Any:
    """A copy in evaluation mode without memory: float32 tensors on the "meta" device."""
    memo: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        empty = torch.empty_like(tensor, dtype=dtype, device="meta", requires_grad=False)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(network, memo).eval()
