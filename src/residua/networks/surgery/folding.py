"""A network in evaluation mode -> an equal one, its norms folded into the preceding convolutions.

On a CPU, ReLUs and the sums of residual units are fused into the convolutions too.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from residua.networks.own import Whole
from residua.networks.staged import Staged
from residua.networks.surgery.fusing import fuse


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
