"""Networks on "meta", where tensors have shapes and no memory; nothing is computed there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)  # of an input that does not fit
_MULTIPLIES = {"conv1d", "conv2d", "conv3d", "linear"}
_KEEPS_SHAPE = {"batch_norm", "fill_", "zero_", "normal_", "uniform_", "kaiming_uniform_"}
_ADDS = {"add", "__add__", "__iadd__", "add_"}


class Shapes(TorchFunctionMode):
    """Counts multiply-adds, and does by itself what needs no more than a look at a shape.

    PyTorch decomposes that on meta in Python: it takes most of the time there, and has its compiler
    imported first.
    """

    multiply_adds = 0

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values, word = [*args, *(kwargs or {}).values()], call.__name__
        if word in _KEEPS_SHAPE or (word in _ADDS and _are_alike(values)):
            return values[0].view_as(values[0])  # a tensor of its own, as the function would give
        if word == "relu":
            return values[0] if (kwargs or {}).get("inplace") else values[0].view_as(values[0])
        if word == "adaptive_avg_pool2d" and isinstance(values[1], int):
            return torch.empty(*values[0].shape[:-2], values[1], values[1], device="meta")
        if word == "linear":  # a bias changes no shape
            args, kwargs = values[:2], {}
        output = call(*args, **(kwargs or {}))
        if word in _MULTIPLIES:  # each place of the output reads all weights once
            self.multiply_adds += output.numel() // len(values[1]) * values[1].numel()
        return output


def _are_alike(values: list[Any]) -> bool:
    """Whether two tensors have one shape."""
    shapes = [each.shape for each in values if isinstance(each, torch.Tensor)]
    return len(shapes) == 2 and shapes[0] == shapes[1]


@contextmanager
def on_meta() -> Iterator[Shapes]:
    """Whatever is built or runs in this context has shapes alone."""
    with torch.device("meta"), torch.no_grad(), Shapes() as shapes:
        yield shapes


def weightless(network: nn.Module) -> Any:
    """A copy for evaluation that holds no memory: float32 tensors on the meta device."""
    memo: dict[int, Any] = {}
    for each in chain(network.parameters(), network.buffers()):
        dtype = torch.float32 if each.is_floating_point() else each.dtype
        empty = torch.empty_like(each, dtype=dtype, device="meta", requires_grad=False)
        parameter = isinstance(each, nn.Parameter)
        memo[id(each)] = nn.Parameter(empty, each.requires_grad) if parameter else empty
    return copy.deepcopy(network, memo).eval()
