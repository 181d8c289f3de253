"""A network -> shapes: it runs on the "meta" device, where tensors have no memory or values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
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
    import its compiler and SymPy first, for half a second.
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
        shape = _SHAPES[word](*values) if word in _SHAPES else None
        output = torch.empty(shape, device="meta") if shape else call(*args, **(kwargs or {}))
        if word in _MULTIPLIES:  # every output pixel reads all weights once
            self.multiply_adds += output.numel() // len(values[1]) * values[1].numel()
        return output


def _convolved(
    x: torch.Tensor,
    kernels: torch.Tensor,
    bias: object = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> tuple[int, ...] | None:
    """The shape of a convolution's result; None for arguments that PyTorch is to check."""
    pairs = (stride, padding, dilation)
    if x.ndim != 4 or not all(isinstance(pair, tuple) for pair in pairs):
        return None
    if x.shape[1] != kernels.shape[1] * groups:
        return None
    lengths = [
        (size + 2 * margin - gap * (side - 1) - 1) // step + 1
        for size, side, step, margin, gap in zip(
            x.shape[2:], kernels.shape[2:], *pairs, strict=True
        )
    ]
    return (len(x), len(kernels), *lengths) if min(lengths) > 0 else None


def _multiplied(
    x: torch.Tensor, weight: torch.Tensor, bias: object = None
) -> tuple[int, ...] | None:
    """The shape of a linear layer's result; None for arguments that PyTorch is to check."""
    return (*x.shape[:-1], len(weight)) if x.ndim and x.shape[-1] == weight.shape[1] else None


_SHAPES: dict[str, Callable[..., tuple[int, ...] | None]] = {
    "conv2d": _convolved,
    "linear": _multiplied,
}


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
        # not empty_like, which imports SymPy for a tensor on "meta"
        empty = torch.empty(tensor.shape, dtype=dtype, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(network, memo).eval()
