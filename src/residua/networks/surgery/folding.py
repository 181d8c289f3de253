"""A network in evaluation mode -> an equal one with fewer layers, for inference.

Norms become part of the convolutions before them. On a CPU, so do ReLUs and the sums of residual
units: as layers of their own they read and write whole maps once more. oneDNN applies both while
the result is in the cache; the operators are those that PyTorch's compiler emits, called without
a compiler.
"""

from __future__ import annotations

import copy
import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from residua.networks.layers import Convolution, same_margins
from residua.networks.own import Whole
from residua.networks.residual import ResidualUnit
from residua.networks.staged import Staged

Activation = Literal["none", "relu", "hardtanh"]
_ACTIVATIONS: dict[type[nn.Module] | None, Activation] = {nn.ReLU: "relu", nn.ReLU6: "hardtanh"}


def folded(network: Staged) -> Staged:
    """A copy in eval mode without the norms that are right behind a convolution.

    Such a norm becomes part of the kernel and bias, exact except for rounding (Jacob et al. 2017,
    section 3.2).
    """
    return _folded_in_place(copy.deepcopy(network))


def fold_norms_(network: Staged, precision: str) -> Staged:
    """The same network, changed in place for inference only: `folded`, fused where it is on a CPU,
    for [B, C, H, W] in channels_last; its head is unchanged.

    precision: "bf16" rounds the kernels, not the other norms.
    """
    if isinstance(_folded_in_place(network), Whole):
        return network
    body = [child for name, child in network.named_children() if name != "head"]
    if precision == "bf16":
        for module in {module for child in body for module in child.modules()}:
            if isinstance(module, nn.Conv2d):
                module.to(torch.bfloat16)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if next(network.parameters()).device.type == "cpu":
        for child in body:
            fuse(child)
    return network


def _folded_in_place(network: Staged) -> Staged:
    network.eval().requires_grad_(False)
    if isinstance(network, Whole):  # whose code may use a norm's input elsewhere too
        return network
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    return network


def _fold(chain: nn.Sequential) -> None:
    """Fold in place; an identity replaces each folded norm, so that names stay."""
    for (name, layer), (norm_name, norm) in itertools.pairwise(list(chain.named_children())):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(chain, name, fuse_conv_bn_eval(layer, norm))
            setattr(chain, norm_name, nn.Identity())


class FusedConvolution(nn.Module):
    """A convolution, an optional addition, and an optional ReLU. Kernels are packed for oneDNN.

    activation: "hardtanh" is ReLU6; not after an addition.
    """

    def __init__(self, convolution: nn.Conv2d, activation: Activation) -> None:
        super().__init__()
        self.convolution, self.activation = convolution, activation
        self.geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            convolution.weight.detach(), *self.geometry
        )

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """other: added before the ReLU; has the output's shape."""
        layer, convolve = self.convolution, torch.ops.mkldnn._convolution_pointwise
        if isinstance(layer, Convolution) and layer.rule == "same":
            x = _padded(x, *same_margins(x, layer.kernel_size, layer.stride[0]))  # type: ignore[arg-type]
        arguments = (self.packed, layer.bias, *self.geometry)
        if other is None:
            bounds = [0.0, 6.0] if self.activation == "hardtanh" else []
            return convolve(x, *arguments, self.activation, bounds, "")  # type: ignore[no-any-return]
        activation = None if self.activation == "none" else self.activation
        return convolve.binary(x, other, *arguments, "add", 1.0, activation, [], "")  # type: ignore[no-any-return]


class FusedUnit(nn.Module):
    """A residual unit whose last convolution adds the shortcut and applies the unit's last ReLU."""

    def __init__(self, unit: ResidualUnit, end: nn.Conv2d) -> None:
        super().__init__()
        assert unit.shortcut is not None
        self.before, self.shortcut, self.taps_before = unit.before, unit.shortcut, unit.taps_before
        self.branch = nn.Sequential(*(layer for layer in unit.branch if layer is not end))
        self.end = FusedConvolution(end, "relu" if _layers(unit.after) else "none")

    def forward(self, x: Tensor) -> Tensor:
        ready = self.before(x)
        shortcut = self.shortcut(ready if self.taps_before else x)
        return self.end(self.branch(ready), shortcut)  # type: ignore[no-any-return]


def _padded(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """[B, C, H, W] with zeros around it; F.pad, which fills all of the result first, is slower."""
    height, width = x.shape[2:]
    (top, bottom), (left, right) = rows, columns
    shape = (*x.shape[:2], top + height + bottom, left + width + right)
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    result[:, :, top : top + height, left : left + width] = x
    for rim in (
        result[:, :, :top],
        result[:, :, top + height :],
        result[:, :, :, :left],
        result[:, :, :, left + width :],
    ):
        rim.zero_()
    return result


def fuse(network: nn.Module) -> None:
    """Fuse in place, where oneDNN is available and the order of the layers allows it."""
    if not _can_fuse(network):
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResidualUnit) and (end := _end(child)) is not None:
                setattr(parent, name, FusedUnit(child, end))
    for parent in list(network.modules()):
        if isinstance(parent, nn.Sequential):
            _fuse_chain(parent)


def _can_fuse(network: nn.Module) -> bool:
    """Whether oneDNN is available, enabled, and supports the kernels' dtype on this processor."""
    mkldnn = torch.backends.mkldnn
    if not mkldnn.is_available() or not mkldnn.enabled:  # type: ignore[no-untyped-call]
        return False
    dtypes = {layer.weight.dtype for layer in network.modules() if isinstance(layer, nn.Conv2d)}
    return torch.bfloat16 not in dtypes or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _end(unit: ResidualUnit) -> nn.Conv2d | None:
    """The convolution that can add the shortcut; None if another layer precedes the addition."""
    branch, after = _layers(unit.branch), _layers(unit.after)
    if unit.shortcut is None or not isinstance(branch[-1], nn.Conv2d):
        return None
    return branch[-1] if not after or [type(layer) for layer in after] == [nn.ReLU] else None


def _layers(chain: nn.Sequential) -> list[nn.Module]:
    return [layer for layer in chain if not isinstance(layer, nn.Identity)]


def _fuse_chain(chain: nn.Sequential) -> None:
    """Fuse each convolution with the ReLU or ReLU6 behind it; an identity replaces that."""
    layers = [item for item in chain.named_children() if not isinstance(item[1], nn.Identity)]
    for index, (name, layer) in enumerate(layers):
        if not isinstance(layer, nn.Conv2d):
            continue
        following = type(layers[index + 1][1]) if index + 1 < len(layers) else None
        activation = _ACTIVATIONS.get(following, "none")
        setattr(chain, name, FusedConvolution(layer, activation))
        if activation != "none":
            setattr(chain, layers[index + 1][0], nn.Identity())
