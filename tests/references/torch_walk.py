"""A key and a tensor -> the next tensor: layers that read a state dict, or invent one.

A network is a function that walks over its layers and requests every tensor by its published key.
A walk over a state dict reads it; a walk without one invents the tensors, which gives the keys and
shapes of a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = int | tuple[int, int]
COUNTER = ".num_batches_tracked"


class Walk:
    """One pass over a network's layers. Without a state dict it invents every tensor."""

    def __init__(
        self,
        state: dict[str, Tensor] | None = None,
        classes: int = 0,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.inventing = state is None
        self.state = {} if state is None else state
        self.taps: list[Tensor] = []
        self._classes, self._device = classes, device
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values, or a meta tensor."""
        if self._device == "meta":
            return torch.empty(shape, device="meta")
        return torch.randn(shape, generator=self._generator)

    def tensor(self, key: str, make: Callable[..., Tensor], *shape: int) -> Tensor:
        """The tensor under a key, which must have this shape; `make` invents it."""
        if self.inventing:
            self.state[key] = make(*shape)
        tensor = self.state[key]
        if tensor.shape != shape:
            raise ValueError(f"{key} is {list(tensor.shape)}, the network has {list(shape)}")
        return tensor

    def conv(
        self,
        x: Tensor,
        key: str,
        width: int,
        kernel: Pair = 1,
        stride: int = 1,
        padding: Pair = 0,
        *,
        groups: int = 1,
        bias: bool = False,
    ) -> Tensor:
        """A convolution."""
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight = self.tensor(f"{key}.weight", self._he, width, x.shape[1] // groups, *sides)
        offset = self.tensor(f"{key}.bias", self._small, width) if bias else None
        return F.conv2d(x, weight, offset, stride, padding, groups=groups)

    def linear(self, x: Tensor, key: str, width: int) -> Tensor:
        """[B, C] -> [B, width], with a bias."""
        weight = self.tensor(f"{key}.weight", self._he, width, x.shape[1])
        return F.linear(x, weight, self.tensor(f"{key}.bias", self._small, width))

    def norm(self, x: Tensor, key: str, epsilon: float = 1e-5) -> Tensor:
        """BatchNorm by its running statistics."""
        size = x.square().mean().sqrt() if self.inventing else torch.ones(())
        made = {
            "weight": self._uneven,
            "bias": lambda width: 2 * self._small(width),
            "running_mean": lambda width: 2 * size * self._small(width),
            "running_var": lambda width: size**2 * self._uneven(width),
        }
        read = [self.tensor(f"{key}.{part}", make, x.shape[1]) for part, make in made.items()]
        weight, bias, mean, variance = read
        if self.inventing:
            self.state[key + COUNTER] = torch.tensor(1000, device=self._device)
        return F.batch_norm(x, mean, variance, weight, bias, eps=epsilon)

    def classes(self, key: str) -> int:
        """Number of logits of the head under a key."""
        return self._classes if self.inventing else self.state[f"{key}.bias"].shape[0]

    def head(self, x: Tensor, key: str) -> Tensor:
        """The global average of [B, C, H, W], or [B, C] itself -> [B, classes]."""
        return self.linear(x.mean((2, 3)) if x.ndim == 4 else x, key, self.classes(key))

    def tap(self, x: Tensor) -> Tensor:
        """Note the end of a stage."""
        self.taps.append(x)
        return x

    def _he(self, *shape: int) -> Tensor:
        return self.normal(*shape) * math.sqrt(2 / math.prod(shape[1:]))

    def _small(self, width: int) -> Tensor:
        return 0.1 * self.normal(width)

    def _uneven(self, width: int) -> Tensor:
        uniform: Tensor = torch.special.ndtr(self.normal(width))
        return 0.5 + uniform
