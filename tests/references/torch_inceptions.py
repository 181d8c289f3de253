"""A walk and a batch -> logits: GoogLeNet, Inception v3 and v4, Xception, MobileNet.

torchvision's GoogLeNet and Inception v3; timm's inception_v4, legacy_xception, mobilenetv1_100. The
auxiliary heads of the first two are in their files, but nothing in evaluation reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from references.torch_walk import Pair, Walk


class Cell(NamedTuple):
    """Convolution, norm and ReLU under a key; the padding is half of the kernel if None."""

    key: str
    width: int
    kernel: Pair = 1
    stride: int = 1
    padding: Pair | None = None


Fork = list[Cell]  # cells side by side on the same map, their outputs stacked
Step = Cell | Fork | Callable[[Tensor], Tensor]
Branches = tuple[tuple[Step, ...], ...]

WIDE, TALL = (1, 7), (7, 1)  # rows, columns
HALVING = (3, 2, 0)  # kernel, stride, padding
HALVING_POOL = partial(F.max_pool2d, kernel_size=3, stride=2)
CEIL_POOL = partial(F.max_pool2d, kernel_size=3, stride=2, ceil_mode=True)
SAME_POOL = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1, ceil_mode=True)
V3_POOL = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)  # zeros of the padding count
V4_POOL = partial(V3_POOL, count_include_pad=False)


def _numbered(key: str, first: int, *sizes: tuple[Any, ...]) -> tuple[Cell, ...]:
    return tuple(Cell(f"{key}{number}", *size) for number, size in enumerate(sizes, first))


def _run(walk: Walk, x: Tensor, prefix: str, steps: tuple[Step, ...]) -> Tensor:
    """One step behind the other."""
    for step in steps:
        if isinstance(step, Cell):
            kernel = (step.kernel, step.kernel) if isinstance(step.kernel, int) else step.kernel
            half = (kernel[0] // 2, kernel[1] // 2)
            padding = half if step.padding is None else step.padding
            key = prefix + step.key
            x = walk.conv(x, f"{key}.conv", step.width, kernel, step.stride, padding)
            x = F.relu(walk.norm(x, f"{key}.bn", 1e-3))
        elif isinstance(step, list):
            x = _stack(walk, x, prefix, tuple((cell,) for cell in step))
        else:
            x = step(x)
    return x


def _stack(walk: Walk, x: Tensor, prefix: str, branches: Branches) -> Tensor:
    """The outputs of branches over the same map, stacked in their order."""
    return torch.cat([_run(walk, x, prefix, branch) for branch in branches], 1)


GOOGLENET = {  # 1x1; 1x1, 3x3; 1x1, what the paper makes a 5x5; behind the pool
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(walk: Walk, x: Tensor) -> Tensor:
    """Stages: conv1, conv3, 3b, 4e, 5b, at strides 2, 4, 8, 16, 32."""
    x = walk.tap(_run(walk, x, "", (Cell("conv1", 64, 7, 2),)))
    x = walk.tap(_run(walk, x, "", (CEIL_POOL, Cell("conv2", 64), Cell("conv3", 192, 3))))
    x = CEIL_POOL(x)
    for name, (one, three_in, three, five_in, five, pooled) in GOOGLENET.items():
        branches: Branches = (
            (Cell("branch1", one),),
            _numbered("branch2.", 0, (three_in,), (three, 3)),
            _numbered("branch3.", 0, (five_in,), (five, 3)),
            (SAME_POOL, Cell("branch4.1", pooled)),
        )
        x = _stack(walk, x, f"inception{name}.", branches)
        if walk.inventing and name in ("4a", "4d"):
            key = "aux1" if name == "4a" else "aux2"
            y = _run(walk, F.adaptive_avg_pool2d(x, 4), "", (Cell(f"{key}.conv", 128),))
            walk.head(walk.linear(y.flatten(1), f"{key}.fc1", 1024), f"{key}.fc2")
        if name in ("3b", "4e", "5b"):
            walk.tap(x)
        if name == "3b":
            x = CEIL_POOL(x)
        if name == "4e":
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    return walk.head(x, "fc")


def inception_v3(walk: Walk, x: Tensor) -> Tensor:
    """Stages: Conv2d_2b, Conv2d_4a, Mixed_5d, 6e, 7c, at strides 2, 4, 8, 16, 32."""
    stem = (Cell("1a_3x3", 32, *HALVING), Cell("2a_3x3", 32, 3, 1, 0), Cell("2b_3x3", 64, 3))
    x = walk.tap(_run(walk, x, "Conv2d_", stem))
    x = HALVING_POOL(x)
    x = walk.tap(_run(walk, x, "Conv2d_", (Cell("3b_1x1", 80), Cell("4a_3x3", 192, 3, 1, 0))))
    x = HALVING_POOL(x)
    for name, branches in V3.items():
        x = _stack(walk, x, f"Mixed_{name}.", branches)
        if name in ("5d", "6e", "7c"):
            walk.tap(x)
        if walk.inventing and name == "6e":
            # at the published size the pool leaves the 5x5 convolution one place
            y = F.adaptive_avg_pool2d(x, 5)
            y = _run(walk, y, "AuxLogits.", (Cell("conv0", 128), Cell("conv1", 768, 5, 1, 0)))
            walk.head(y, "AuxLogits.fc")
    return walk.head(x, "fc")


def _v3_a(pooled: int) -> Branches:
    return (
        (Cell("branch1x1", 64),),
        _numbered("branch5x5_", 1, (48,), (64, 5)),
        _numbered("branch3x3dbl_", 1, (64,), (96, 3), (96, 3)),
        (V3_POOL, Cell("branch_pool", pooled)),
    )


def _v3_c(inner: int) -> Branches:
    tall, wide = (inner, TALL), (inner, WIDE)
    return (
        (Cell("branch1x1", 192),),
        _numbered("branch7x7_", 1, (inner,), wide, (192, TALL)),
        _numbered("branch7x7dbl_", 1, (inner,), tall, wide, tall, (192, WIDE)),
        (V3_POOL, Cell("branch_pool", 192)),
    )


_V3_E: Branches = (
    (Cell("branch1x1", 320),),
    (
        Cell("branch3x3_1", 384),
        [Cell("branch3x3_2a", 384, (1, 3)), Cell("branch3x3_2b", 384, (3, 1))],
    ),
    (
        *_numbered("branch3x3dbl_", 1, (448,), (384, 3)),
        [Cell("branch3x3dbl_3a", 384, (1, 3)), Cell("branch3x3dbl_3b", 384, (3, 1))],
    ),
    (V3_POOL, Cell("branch_pool", 192)),
)

V3: dict[str, Branches] = {
    "5b": _v3_a(32),
    "5c": _v3_a(64),
    "5d": _v3_a(64),
    "6a": (
        (Cell("branch3x3", 384, *HALVING),),
        _numbered("branch3x3dbl_", 1, (64,), (96, 3), (96, *HALVING)),
        (HALVING_POOL,),
    ),
    "6b": _v3_c(128),
    "6c": _v3_c(160),
    "6d": _v3_c(160),
    "6e": _v3_c(192),
    "7a": (
        _numbered("branch3x3_", 1, (192,), (320, *HALVING)),
        _numbered("branch7x7x3_", 1, (192,), (192, WIDE), (192, TALL), (192, *HALVING)),
        (HALVING_POOL,),
    ),
    "7b": _V3_E,
    "7c": _V3_E,
}


def inception_v4(walk: Walk, x: Tensor) -> Tensor:
    """Stages: features.2, .3, .9, .17, .21, at strides 2, 4, 8, 16, 32."""
    stem = (Cell("0", 32, *HALVING), Cell("1", 32, 3, 1, 0), Cell("2", 64, 3))
    x = walk.tap(_run(walk, x, "features.", stem))
    for index, branches in enumerate(V4, start=3):
        x = _stack(walk, x, f"features.{index}.", branches)
        if index in (3, 9, 17, 21):
            walk.tap(x)
    return walk.head(x, "last_linear")


_V4_A: Branches = (
    (Cell("branch0", 96),),
    _numbered("branch1.", 0, (64,), (96, 3)),
    _numbered("branch2.", 0, (64,), (96, 3), (96, 3)),
    (V4_POOL, Cell("branch3.1", 96)),
)
_V4_B: Branches = (
    (Cell("branch0", 384),),
    _numbered("branch1.", 0, (192,), (224, WIDE), (256, TALL)),
    _numbered("branch2.", 0, (192,), (192, TALL), (224, WIDE), (224, TALL), (256, WIDE)),
    (V4_POOL, Cell("branch3.1", 128)),
)
_V4_C: Branches = (
    (Cell("branch0", 256),),
    (
        Cell("branch1_0", 384),
        [Cell("branch1_1a", 256, (1, 3)), Cell("branch1_1b", 256, (3, 1))],
    ),
    (
        *_numbered("branch2_", 0, (384,), (448, (3, 1)), (512, (1, 3))),
        [Cell("branch2_3a", 256, (1, 3)), Cell("branch2_3b", 256, (3, 1))],
    ),
    (V4_POOL, Cell("branch3.1", 256)),
)

V4: tuple[Branches, ...] = (
    ((HALVING_POOL,), (Cell("conv", 96, *HALVING),)),
    (
        _numbered("branch0.", 0, (64,), (96, 3, 1, 0)),
        _numbered("branch1.", 0, (64,), (64, WIDE), (64, TALL), (96, 3, 1, 0)),
    ),
    ((Cell("conv", 192, *HALVING),), (HALVING_POOL,)),
    *[_V4_A] * 4,
    (
        (Cell("branch0", 384, *HALVING),),
        _numbered("branch1.", 0, (192,), (224, 3), (256, *HALVING)),
        (HALVING_POOL,),
    ),
    *[_V4_B] * 7,
    (
        _numbered("branch0.", 0, (192,), (192, *HALVING)),
        _numbered("branch1.", 0, (256,), (256, WIDE), (320, TALL), (320, *HALVING)),
        (HALVING_POOL,),
    ),
    *[_V4_C] * 3,
)


def xception(walk: Walk, x: Tensor) -> Tensor:
    """Stages: block1, block2, block11, the last ReLU, at strides 4, 8, 16, 32."""
    for number, (width, stride) in enumerate(((32, 2), (64, 1)), start=1):
        x = walk.norm(walk.conv(x, f"conv{number}", width, 3, stride), f"bn{number}")
        x = F.relu(x)
    blocks = [(128,) * 2, (256,) * 2, (728,) * 2, *[(728,) * 3] * 8, (728, 1024)]
    for number, widths in enumerate(blocks, start=1):
        x = _xception_block(walk, x, f"block{number}", widths, active=number == 1)
        if number in (1, 2, 11):
            walk.tap(x)
    for number, width in ((3, 1536), (4, 2048)):
        x = F.relu(walk.norm(_separable(walk, x, f"conv{number}", width), f"bn{number}"))
    return walk.head(walk.tap(x), "fc")


def _xception_block(
    walk: Walk, x: Tensor, key: str, widths: tuple[int, ...], active: bool
) -> Tensor:
    """ReLU, separable, norm for each width; two of them halve the map, three keep it.

    active: the input has passed a ReLU already, so that the block's list begins without one.
    """
    y, index, halving = x, 0, len(widths) == 2
    if halving:
        x = walk.norm(walk.conv(x, f"{key}.skip", widths[-1], 1, 2), f"{key}.skipbn")
    for width in widths:
        if index or not active:
            y = F.relu(y)
            index += 1
        y = walk.norm(_separable(walk, y, f"{key}.rep.{index}", width), f"{key}.rep.{index + 1}")
        index += 2
    return x + (F.max_pool2d(y, 3, 2, 1) if halving else y)


def _separable(walk: Walk, x: Tensor, key: str, width: int) -> Tensor:
    x = walk.conv(x, f"{key}.conv1", x.shape[1], 3, 1, 1, groups=x.shape[1])
    return walk.conv(x, f"{key}.pointwise", width)


def mobilenet(walk: Walk, x: Tensor) -> Tensor:
    """Stages: blocks.0 .. blocks.4, at strides 2, 4, 8, 16, 32."""
    x = F.relu6(walk.norm(walk.conv(x, "conv_stem", 32, 3, 2, 1), "bn1"))
    for stage, (width, count) in enumerate(((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))):
        for unit in range(count):
            key, stride = f"blocks.{stage}.{unit}", 2 if stage and not unit else 1
            x = walk.conv(x, f"{key}.conv_dw", x.shape[1], 3, stride, 1, groups=x.shape[1])
            x = F.relu6(walk.norm(x, f"{key}.bn1"))
            x = F.relu6(walk.norm(walk.conv(x, f"{key}.conv_pw", width), f"{key}.bn2"))
        walk.tap(x)
    return walk.head(x, "classifier")
