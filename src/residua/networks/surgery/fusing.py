"""A folded network on a CPU -> an equal one whose convolutions add and rectify as they write.

A sum or a ReLU of its own reads and writes whole maps again. oneDNN does both to a result that is
still in the cache; the operators are those that PyTorch's compiler emits, here without a compiler.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from residua.networks.layers import Convolution
from residua.networks.residual import ResidualUnit

Then = Literal["none", "relu"]


class Fused(nn.Module):
    """A convolution, what is added to it, and a ReLU behind; its kernels are packed for oneDNN."""

    def __init__(self, convolution: nn.Conv2d, then: Then) -> None:
        super().__init__()
        self.convolution, self.then = convolution, then
        found = convolution
        self.how = (list(found.padding), list(found.stride), list(found.dilation), found.groups)
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(found.weight.detach(), *self.how)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """other: of the output's shape, added before the ReLU."""
        layer, convolve = self.convolution, torch.ops.mkldnn._convolution_pointwise
        if isinstance(layer, Convolution):
            x = layer.padded(x)
        if other is None:
            return convolve(x, self.packed, layer.bias, *self.how, self.then, [], "")  # type: ignore[no-any-return]
        then = None if self.then == "none" else self.then
        return convolve.binary(  # type: ignore[no-any-return]
            x, other, self.packed, layer.bias, *self.how, "add", 1.0, then, [], ""
        )


class FusedUnit(nn.Module):
    """A residual unit whose last convolution adds the shortcut, with a ReLU if one ends it."""

    def __init__(self, unit: ResidualUnit, end: nn.Conv2d) -> None:
        super().__init__()
        assert unit.shortcut is not None
        self.before, self.shortcut, self.taps_before = unit.before, unit.shortcut, unit.taps_before
        self.branch = nn.Sequential(*(each for each in unit.branch if each is not end))
        self.end = Fused(end, "relu" if _layers(unit.after) else "none")

    def forward(self, x: Tensor) -> Tensor:
        ready = self.before(x)
        shortcut = self.shortcut(ready if self.taps_before else x)
        return self.end(self.branch(ready), shortcut)  # type: ignore[no-any-return]


def fuse(network: nn.Module) -> None:
    """In place, where oneDNN is there and the layers follow each other so."""
    if not _can_fuse(network):
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResidualUnit) and (end := _end(child)) is not None:
                setattr(parent, name, FusedUnit(child, end))
    for parent in list(network.modules()):
        if isinstance(parent, nn.Sequential):
            _fuse(parent)


def _can_fuse(network: nn.Module) -> bool:
    """Whether oneDNN is there, wanted, and takes kernels of that precision on this processor."""
    mkldnn = torch.backends.mkldnn
    if not mkldnn.is_available() or not mkldnn.enabled:  # type: ignore[no-untyped-call]
        return False
    kinds = {each.weight.dtype for each in network.modules() if isinstance(each, nn.Conv2d)}
    return torch.bfloat16 not in kinds or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _end(unit: ResidualUnit) -> nn.Conv2d | None:
    """The convolution that the shortcut can be added to; None where something stands between."""
    branch, after = _layers(unit.branch), _layers(unit.after)
    if unit.shortcut is None or not isinstance(branch[-1], nn.Conv2d):
        return None
    return branch[-1] if not after or [type(each) for each in after] == [nn.ReLU] else None


def _layers(chain: nn.Sequential) -> list[nn.Module]:
    return [each for each in chain if not isinstance(each, nn.Identity)]


def _fuse(chain: nn.Sequential) -> None:
    """Each convolution with the ReLU behind it; an identity takes the place of the ReLU."""
    named = [each for each in chain.named_children() if not isinstance(each[1], nn.Identity)]
    for place, (name, layer) in enumerate(named):
        if not isinstance(layer, nn.Conv2d):
            continue
        follows = place + 1 < len(named) and type(named[place + 1][1]) is nn.ReLU
        setattr(chain, name, Fused(layer, "relu" if follows else "none"))
        if follows:
            setattr(chain, named[place + 1][0], nn.Identity())
