"""A network -> shapes: it runs on the "meta" device, where tensors have no memory or values."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# raised for an input of a wrong shape
REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)
_MULTIPLIES = {"conv1d", "conv2d", "conv3d", "linear"}
_KEEPS_SHAPE = {
    "batch_norm",
    "local_response_norm",
    "fill_",
    "zero_",
    "normal_",
    "uniform_",
    "kaiming_uniform_",
}
_ELEMENTWISE = {"add", "__add__", "__iadd__", "add_", "mul", "__mul__"}


class Shapes(TorchFunctionMode):
    """Counts multiply-adds, and replaces functions whose output shape is known beforehand.

    PyTorch's own versions on "meta" are decompositions in Python, which dominate the time there and
    import its compiler and sympy first, for more than a second.
    """

    multiply_adds = 0

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values, word = [*args, *(kwargs or {}).values()], call.__name__
        if word in _KEEPS_SHAPE or (word in _ELEMENTWISE and _fit_the_first(values)):
            return values[0].view_as(values[0])  # another tensor, as from the function
        if word in ("relu", "hardtanh"):  # nn.ReLU6 is a hardtanh
            return values[0] if (kwargs or {}).get("inplace") else values[0].view_as(values[0])
        if word == "adaptive_avg_pool2d":
            sides = (values[1],) * 2 if isinstance(values[1], int) else values[1]
            return torch.empty(*values[0].shape[:-2], *sides, device="meta")
        shape = _known_shape(word, args, kwargs or {})
        if shape is None:
            output = call(*args, **(kwargs or {}))
        else:
            output = torch.empty(shape, device="meta")
        if word in _MULTIPLIES:  # every output pixel reads all weights once
            self.multiply_adds += output.numel() // len(values[1]) * values[1].numel()
        return output


Shape = list[int] | None  # None: PyTorch decides, and refuses what is wrong


def _known_shape(word: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shape:
    """The output shape of a function, if it can be computed here."""
    if word not in _SHAPES:
        return None
    try:
        return _SHAPES[word](*args, **kwargs)
    except (TypeError, ValueError):  # other spellings, such as axis=1, or windows of one number
        return None


def _convolved(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Shape:
    """The output shape of `conv2d`."""
    if x.dim() != 4 or x.shape[1] != weight.shape[1] * groups:
        return None
    sides = _slid(x, tuple(weight.shape[2:]), stride, padding, dilation)
    return sides and [x.shape[0], weight.shape[0], *sides]


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Shape:
    """The output shape of `linear`."""
    return [*x.shape[:-1], len(weight)] if x.shape[-1] == weight.shape[1] else None


def _max_pooled(
    x: torch.Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Shape:
    """The output shape of `max_pool2d`."""
    if x.dim() != 4 or return_indices:
        return None
    sides = _slid(x, kernel_size, stride or kernel_size, padding, dilation, ceil_mode)
    return sides and [*x.shape[:2], *sides]


def _averaged(
    x: torch.Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *further: Any,
    **named: Any,
) -> Shape:
    """The output shape of `avg_pool2d`, on which its further arguments have no influence."""
    return _max_pooled(x, kernel_size, stride, padding, 1, ceil_mode)


def _concatenated(tensors: Sequence[torch.Tensor], dim: int = 0) -> Shape:
    """The output shape of `cat`."""
    others = {(*tensor.shape[:dim], *tensor.shape[dim:][1:]) for tensor in tensors}
    if dim < 0 or len(others) > 1 or not all(map(torch.is_floating_point, tensors)):
        return None  # integers may be indices
    shape = list(tensors[0].shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return shape


def _slid(
    x: torch.Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool = False
) -> Shape:
    """Height and width after a window slid over those of x."""
    if isinstance(padding, str):
        return None
    windows = (
        (value, value) if isinstance(value, int) else value
        for value in (kernel, stride, padding, dilation)
    )
    sides = []
    for side, length, step, pad, gap in zip(x.shape[2:], *windows, strict=True):
        room = side + 2 * pad - gap * (length - 1) - 1
        count = (-(-room // step) if ceil else room // step) + 1
        is_beyond = ceil and (count - 1) * step >= side + pad  # the window would see padding only
        sides.append(count - is_beyond)
    if min(sides) < 1:
        raise RuntimeError(f"A window of {kernel} does not fit into {list(x.shape[2:])} pixels.")
    return sides


_SHAPES: dict[str, Callable[..., Shape]] = {
    "avg_pool2d": _averaged,
    "cat": _concatenated,
    "conv2d": _convolved,
    "linear": _linear,
    "max_pool2d": _max_pooled,
}


def _fit_the_first(values: list[Any]) -> bool:
    """Whether there are two tensors, and the second is broadcast to the shape of the first."""
    shapes = [value.shape for value in values if isinstance(value, torch.Tensor)]
    if len(shapes) != 2 or len(shapes[1]) > len(shapes[0]):
        return False
    pairs = zip(reversed(shapes[0]), reversed(shapes[1]), strict=False)
    return all(length in (1, full) for full, length in pairs)


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
        empty = torch.empty(tensor.shape, dtype=dtype, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    for module in network.modules():
        # copying the empty dictionaries of hooks takes a third of the time
        hooks = (value for value in vars(module).values() if type(value) is OrderedDict)
        memo.update((id(value), OrderedDict()) for value in hooks if not value)
    return copy.deepcopy(network, memo).eval()
