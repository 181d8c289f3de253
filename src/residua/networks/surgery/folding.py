"""A network in evaluation mode -> an equal one, its norms part of the convolutions before them.

On a CPU, ReLUs and the sums of residual units become part of them too.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from residua.networks.staged import Staged
from residua.networks.surgery.fusing import fuse


def folded(network: Staged, precision: str) -> Staged:
    """A copy that cannot learn, for [B, C, H, W] in channels_last; its head stays as it is.

    A norm right behind a convolution becomes its kernel and bias, exact but for rounding (Jacob et
    al. 2017, section 3.2). precision "bf16": kernels are rounded to it; norms that stay are not.
    """
    found = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(found.modules()):
        if isinstance(parent, nn.Sequential):
            _fold(parent)
    if precision == "bf16":
        body = {each for part in _body(found) for each in part.modules()}
        for module in body:
            if isinstance(module, nn.Conv2d):
                module.to(torch.bfloat16)
    found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if next(found.parameters()).device.type == "cpu":
        for part in _body(found):
            fuse(part)
    return found


def _body(network: Staged) -> list[nn.Module]:
    return [part for name, part in network.named_children() if name != "head"]


def _fold(chain: nn.Sequential) -> None:
    """Fold in place; the norm's place is taken by an identity, so that names stay."""
    named = list(chain.named_children())
    for (name, layer), (norm_name, norm) in itertools.pairwise(named):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(chain, name, fuse_conv_bn_eval(layer, norm))
            setattr(chain, norm_name, nn.Identity())
