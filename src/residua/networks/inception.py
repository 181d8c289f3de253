"""Images [B, C, H, W] -> logits [B, K]: GoogLeNet, Inception v3 and v4, in a short notation.

    block  = branch | branch | ...    all read the block's input; their outputs are concatenated
                                      along the channels, in this order
    branch = item item ...            in sequence
    item   = 3x3:64                   convolution, height x width : channels; norm; ReLU
           | max3 | avg3              pool over 3x3 windows
           | (block)                  a branch that splits once more

A number behind a / is the stride. The map keeps its size (zero padding, ignored by max pooling)
except for a stride or a mark: v is valid, no padding, as in 3x3/2v:96; c is ceil, no padding
either, and an incomplete last window counts, as in max3/2c.

State dict keys: stages.S.blocks.U.branches.B.N.conv and .norm. N counts all items of a branch,
pools too; below a block in parentheses the names continue with .branches.B.N of its own.
"""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks.layers import (
    KERAS_NORM,
    Convolution,
    Dropout,
    Initialisation,
    MaxPool,
    Norm,
    chain,
    initialise,
)
from residua.networks.staged import Staged

Branches: TypeAlias = tuple[tuple["str | Branches", ...], ...]  # words, and blocks in parentheses

_NUMBER = "([1-9][0-9]*)"
_CONV = re.compile(f"{_NUMBER}x{_NUMBER}(?:/{_NUMBER})?(v?):{_NUMBER}")
_MAXIMUM = re.compile(f"max{_NUMBER}(?:/{_NUMBER})?([vc]?)")
_AVERAGE = re.compile(f"avg{_NUMBER}")
_MARKS: dict[str, Literal["symmetric", "valid", "ceil"]] = {
    "": "symmetric",
    "v": "valid",
    "c": "ceil",
}


def parse(sentence: str) -> Branches:
    """A block's sentence -> its branches. Raises ResiduaError naming sentence and word."""
    blocks: list[list[list[str | Branches]]] = [[[]]]  # the innermost open one is the last
    for word in [*re.findall(r"[()|]|[^\s()|]+", sentence), ""]:
        if word == "(":
            blocks.append([[]])
        elif word not in ("|", ")", ""):
            if not any(item.fullmatch(word) for item in (_CONV, _MAXIMUM, _AVERAGE)):
                raise ResiduaError(
                    f"Block {sentence!r}: {word!r} is no item. Expected a convolution such as "
                    "3x3:64 or 1x7/2v:64, a pool such as max3, max3/2v, max3/2c or avg3, or a "
                    "block in parentheses."
                )
            blocks[-1][-1].append(word)
        elif not blocks[-1][-1]:
            where = f"before a {word!r}" if word else "at the end"
            raise ResiduaError(f"Block {sentence!r}: an empty branch {where}.")
        elif word == "|":
            blocks[-1].append([])
        elif (word == "") != (len(blocks) == 1):
            wrong = "')' closes nothing" if word else "'(' is not closed"
            raise ResiduaError(f"Block {sentence!r}: a {wrong}.")
        elif word == ")":
            inner = blocks.pop()
            blocks[-1][-1].append(tuple(map(tuple, inner)))
    return tuple(map(tuple, blocks[0]))


NORM = Norm(epsilon=1e-3)


@dataclass(frozen=True)
class InceptionConfig:
    """A network of Inception blocks in full: stages, global average, dropout, linear head.

    Modules are registered in the order of the sentences, in which Keras and torchvision create them
    too: weights with automatic names (conv2d_57) are read in that order.

    stages: sentences of blocks; the first block of a stage halves the map.
    pool_counts_padding: whether an average at the rim divides by the whole window, or by the pixels
        inside the map.
    dropout: before the head.
    """

    stages: tuple[tuple[str, ...], ...]
    norm: Norm = NORM
    pool_counts_padding: bool = True
    dropout: float = 0.0
    initialisation: Initialisation = "he"

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes].

        Its five feature maps are the last at about 1/2, 1/4, 1/8, 1/16, 1/32 of the input's side.
        Valid windows (v3, v4) lose some pixels: 147, 71, 35, 17, 8 of 299. Raises ResiduaError for
        a malformed sentence.
        """
        stages = []
        for sentences in self.stages:
            blocks = nn.Sequential()
            for sentence in sentences:
                block = Block(parse(sentence), channels, self)
                blocks.append(block)
                channels = block.out_channels
            stages.append(nn.Sequential(OrderedDict(blocks=blocks)))
        dropout, head = Dropout(self.dropout), nn.Linear(channels, classes)
        return initialise(Staged(stages=stages, dropout=dropout, head=head), self.initialisation)


class Block(nn.Module):
    """Branches that read the same map: [B, C, H, W] -> [B, sum of their widths, H', W']."""

    def __init__(self, branches: Branches, inputs: int, config: InceptionConfig) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self.out_channels = 0
        for items in branches:
            branch, width = nn.Sequential(), inputs
            for item in items:
                layer, width = _layer(item, width, config)
                branch.append(layer)
            self.branches.append(branch)
            self.out_channels += width

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        return maps[0] if len(maps) == 1 else torch.cat(maps, 1)


def _layer(item: str | Branches, inputs: int, config: InceptionConfig) -> tuple[nn.Module, int]:
    """An item as a module, and its output channels."""
    if not isinstance(item, str):
        block = Block(item, inputs, config)
        return block, block.out_channels
    if match := _CONV.fullmatch(item):
        height, across, stride, mark, width = match.groups()
        convolution = Convolution(
            inputs,
            int(width),
            (int(height), int(across)),
            stride=int(stride or 1),
            padding="valid" if mark else "symmetric",
        )
        return chain("cna", [convolution], norm=config.norm), int(width)
    if match := _MAXIMUM.fullmatch(item):
        side, stride, mark = match.groups()
        return MaxPool(int(side), int(stride or 1), _MARKS[mark]), inputs
    size, counts = int(item.removeprefix("avg")), config.pool_counts_padding
    return nn.AvgPool2d(size, 1, size // 2, count_include_pad=counts), inputs


# Szegedy et al. 2014, "Going deeper with convolutions", table 1, as torchvision trained it: with
# norms, and 3x3 where the paper has 5x5 (its third branch).


def _v1(one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> str:
    return (
        f"1x1:{one} | 1x1:{three[0]} 3x3:{three[1]} | 1x1:{five[0]} 3x3:{five[1]} "
        f"| max3 1x1:{pooled}"
    )


GOOGLENET = InceptionConfig(
    (
        ("7x7/2:64",),
        ("max3/2c 1x1:64 3x3:192",),
        ("max3/2c", _v1(64, (96, 128), (16, 32), 32), _v1(128, (128, 192), (32, 96), 64)),
        (
            "max3/2c",
            _v1(192, (96, 208), (16, 48), 64),
            _v1(160, (112, 224), (24, 64), 64),
            _v1(128, (128, 256), (24, 64), 64),
            _v1(112, (144, 288), (32, 64), 64),
            _v1(256, (160, 320), (32, 128), 128),
        ),
        ("max2/2c", _v1(256, (160, 320), (32, 128), 128), _v1(384, (192, 384), (48, 128), 128)),
    ),
    dropout=0.2,
)

# Szegedy et al. 2015, "Rethinking the Inception architecture", figures 5 to 7 and 10.


def _v3_small(pooled: int) -> str:
    return f"1x1:64 | 1x1:48 5x5:64 | 1x1:64 3x3:96 3x3:96 | avg3 1x1:{pooled}"


def _v3_long(c: int) -> str:
    """c: width inside the branches of 1x7 and 7x1."""
    return (
        f"1x1:192 | 1x1:{c} 1x7:{c} 7x1:192 | 1x1:{c} 7x1:{c} 1x7:{c} 7x1:{c} 1x7:192 "
        "| avg3 1x1:192"
    )


_V3_WIDE = (
    "1x1:320 | 1x1:384 (1x3:384 | 3x1:384) | 1x1:448 3x3:384 (1x3:384 | 3x1:384) | avg3 1x1:192"
)

INCEPTION_V3 = InceptionConfig(
    (
        ("3x3/2v:32 3x3v:32 3x3:64",),
        ("max3/2v 1x1:80 3x3v:192",),
        ("max3/2v", _v3_small(32), _v3_small(64), _v3_small(64)),
        ("3x3/2v:384 | 1x1:64 3x3:96 3x3/2v:96 | max3/2v", *map(_v3_long, (128, 160, 160, 192))),
        ("1x1:192 3x3/2v:320 | 1x1:192 1x7:192 7x1:192 3x3/2v:192 | max3/2v", *[_V3_WIDE] * 2),
    ),
    dropout=0.5,
)

KERAS_INCEPTION_V3 = dataclasses.replace(
    INCEPTION_V3,
    norm=dataclasses.replace(KERAS_NORM, scale=False),
    pool_counts_padding=False,
    dropout=0.0,
    initialisation="glorot",
)

# Szegedy et al. 2016, "Inception-v4", figures 3 to 9.
_V4_A = "1x1:96 | 1x1:64 3x3:96 | 1x1:64 3x3:96 3x3:96 | avg3 1x1:96"
_V4_B = "1x1:384 | 1x1:192 1x7:224 7x1:256 | 1x1:192 7x1:192 1x7:224 7x1:224 1x7:256 | avg3 1x1:128"
_V4_C = (
    "1x1:256 | 1x1:384 (1x3:256 | 3x1:256) "
    "| 1x1:384 3x1:448 1x3:512 (1x3:256 | 3x1:256) | avg3 1x1:256"
)

INCEPTION_V4 = InceptionConfig(
    (
        ("3x3/2v:32 3x3v:32 3x3:64",),
        ("max3/2v | 3x3/2v:96", "1x1:64 3x3v:96 | 1x1:64 1x7:64 7x1:64 3x3v:96"),
        ("3x3/2v:192 | max3/2v", *[_V4_A] * 4),
        ("3x3/2v:384 | 1x1:192 3x3:224 3x3/2v:256 | max3/2v", *[_V4_B] * 7),
        ("1x1:192 3x3/2v:192 | 1x1:256 1x7:256 7x1:320 3x3/2v:320 | max3/2v", *[_V4_C] * 3),
    ),
    pool_counts_padding=False,
)
