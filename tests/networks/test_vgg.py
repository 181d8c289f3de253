"""VGG against its paper's maps and head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from references.architecture_checks import sides
from torch import nn

from residua.networks.layers import KERAS_NORM
from residua.networks.vgg import VGG16, VGG19, VGGConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("size", [224, 225])
def test_maps_are_at_strides_2_to_32(size: int) -> None:
    """Simonyan and Zisserman 2014, section 2.1: five 2x2 pools, which round down."""
    assert sides(VGGConfig(VGG16), size) == [112, 56, 28, 14, 7]


def kinds(config: VGGConfig) -> list[str]:
    with torch.device("meta"):
        head: Any = config.build(4, 3).head
    return [type(layer).__name__ for layer in head]


def test_dropout_follows_every_hidden_layer_or_the_last_only() -> None:
    """The paper drops twice, tutorial 3 once."""
    hidden, drop = ["Linear", "ReLU"], ["Dropout"]
    assert kinds(VGGConfig(VGG16)) == [*hidden, *drop, *hidden, *drop, "Linear"]
    once = VGGConfig(VGG16, dropout_everywhere=False)
    assert kinds(once) == [*hidden, *hidden, *drop, "Linear"]


def test_head_norms_follow_every_linear_layer() -> None:
    """Tutorial 1's VGG-19 normalises the logits too, with Keras' constants."""
    hidden = ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
    config = VGGConfig(VGG19, norm=KERAS_NORM, pool=1, head_norm=True)
    assert kinds(config) == [*hidden, *hidden, "Linear", "BatchNorm1d"]
    with torch.device("meta"):
        head: Any = config.build(4, 3).head
    norms = [layer for layer in head if isinstance(layer, nn.BatchNorm1d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert head.linear1.in_features == 512  # of a pooled map of one pixel
