"""Published names and tensors -> logits: torchvision's, timm's and akamaster's networks, read anew.

Plain functions on tensors, written from those projects' sources and independent of residua.

The names are those of the projects, but for `cifar_resnetN` (pytorch_resnet_cifar10), `timm_vggN`,
`xception` (legacy_xception), `mobilenet_v1` (mobilenetv1_100) and `preact_resnetN` (resnetv2_N).
timm stores resnets, densenets and inception_v3 (without auxiliary head) under torchvision's keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from references.torch_inceptions import googlenet, inception_v3, inception_v4, mobilenet, xception
from references.torch_walk import COUNTER, Walk

HIDDEN = 4096  # width of the hidden layers of VGG and AlexNet


def shapes(name: str, classes: int | None = None) -> dict[str, Tensor]:
    """The keys of a published checkpoint with meta tensors: shapes and types without memory."""
    return _invented(name, Walk(classes=classes or _published_classes(name), device="meta"))


def state_dict(name: str, classes: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """A random checkpoint under the published keys; the published number of classes by default.

    Auxiliary heads are part of it where the published file has them. BatchNorm's variances fit what
    reaches them up to a factor in .5..1.5, so that logits are of order 1 at any depth.
    """
    return _invented(name, Walk(classes=classes or _published_classes(name), seed=seed))


def logits(name: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Float [B, 3, H, W] as the first convolution sees it -> [B, classes], in evaluation mode.

    The prefix `module.` is optional; auxiliary heads and counters are not read. Raises KeyError for
    a missing tensor and ValueError for one of another shape.
    """
    return _walked(name, state, x)[0]


def stages(name: str, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The maps at the ends of the stages, the last one as the head pools it."""
    return _walked(name, state, x)[1]


def old_densenet_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A densenet as torchvision's own files spell it: `norm.1` and `conv.1`, and no counters."""
    inner = re.compile(r"(denselayer\d+\.(?:norm|conv))(?=[12]\.)")
    kept = {key: value for key, value in state.items() if not key.endswith(COUNTER)}
    return {inner.sub(r"\1.", key): value for key, value in kept.items()}


def _published_classes(name: str) -> int:
    return 10 if name.startswith("cifar_") else 1000


@torch.no_grad()
def _invented(name: str, walk: Walk) -> dict[str, Tensor]:
    cifar = name.startswith("cifar_")
    # the inceptions leave little but padding of a small image, which would falsify their norms
    side = 32 if cifar else 160 if name.startswith("inception") else 96
    NETWORKS[name](walk, walk.normal(2, 3, side, side))
    if not cifar:
        return walk.state
    # saved by DataParallel, before PyTorch counted batches
    kept = {key: value for key, value in walk.state.items() if not key.endswith(COUNTER)}
    return {f"module.{key}": value for key, value in kept.items()}


@torch.no_grad()
def _walked(name: str, state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    walk = Walk({key.removeprefix("module."): value for key, value in state.items()})
    return NETWORKS[name](walk, x), walk.taps


def _resnet(walk: Walk, x: Tensor, units: Sequence[int], base: int = 0, groups: int = 1) -> Tensor:
    """Basic units without a base width, otherwise bottlenecks with the stride on their 3x3."""
    x = F.relu(walk.norm(walk.conv(x, "conv1", 64, 7, 2, 3), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(units, start=1):
        planes = 32 << stage
        inner = planes * base // 64 * groups
        kernels = ((inner, 1), (inner, 3), (4 * planes, 1)) if base else ((planes, 3), (planes, 3))
        for unit in range(count):
            key, y = f"layer{stage}.{unit}", x
            for number, (width, kernel) in enumerate(kernels, start=1):
                strided = stage > 1 and unit == 0 and number == (2 if base else 1)
                share = groups if kernel == 3 else 1
                stride = 2 if strided else 1
                y = y if number == 1 else F.relu(y)
                y = walk.conv(
                    y, f"{key}.conv{number}", width, kernel, stride, kernel // 2, groups=share
                )
                y = walk.norm(y, f"{key}.bn{number}")
            if y.shape != x.shape:
                x = walk.conv(x, f"{key}.downsample.0", y.shape[1], 1, 2 if stage > 1 else 1)
                x = walk.norm(x, f"{key}.downsample.1")
            x = F.relu(x + y)
        walk.tap(x)
    return walk.head(x, "fc")


def _resnet_d(walk: Walk, x: Tensor, units: Sequence[int], bottleneck: bool) -> Tensor:
    """timm's: three 3x3 in the stem; where the shape changes, 2x2 averages, then a 1x1."""
    for key, width, stride in (("0", 32, 2), ("3", 32, 1), ("6", 64, 1)):
        x = walk.conv(x, f"conv1.{key}", width, 3, stride, 1)
        x = F.relu(walk.norm(x, "bn1" if key == "6" else f"conv1.{int(key) + 1}"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(units, start=1):
        width = 32 << stage
        for unit in range(count):
            key, stride = f"layer{stage}.{unit}", 2 if stage > 1 and unit == 0 else 1
            if bottleneck:
                y = F.relu(walk.norm(walk.conv(x, f"{key}.conv1", width), f"{key}.bn1"))
                y = walk.norm(walk.conv(y, f"{key}.conv2", width, 3, stride, 1), f"{key}.bn2")
                y = walk.norm(walk.conv(F.relu(y), f"{key}.conv3", 4 * width), f"{key}.bn3")
            else:
                y = walk.norm(walk.conv(x, f"{key}.conv1", width, 3, stride, 1), f"{key}.bn1")
                y = walk.norm(walk.conv(F.relu(y), f"{key}.conv2", width, 3, 1, 1), f"{key}.bn2")
            if y.shape != x.shape:
                if stride == 2:
                    x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
                x = walk.norm(
                    walk.conv(x, f"{key}.downsample.1", y.shape[1]), f"{key}.downsample.2"
                )
            x = F.relu(x + y)
        walk.tap(x)
    return walk.head(x, "fc")


def _preact_resnet(walk: Walk, x: Tensor, units: Sequence[int]) -> Tensor:
    """timm's resnetv2: bare stem, stride on the 3x3, the projection reads the first activation."""
    x = F.max_pool2d(walk.conv(x, "stem.conv", 64, 7, 2, 3), 3, 2, 1)
    for stage, count in enumerate(units):
        inner = 64 << stage
        for unit in range(count):
            key, stride = f"stages.{stage}.blocks.{unit}", 2 if stage and not unit else 1
            y = F.relu(walk.norm(x, f"{key}.norm1"))
            if unit == 0:
                x = walk.conv(y, f"{key}.downsample.conv", 4 * inner, 1, stride)
            y = F.relu(walk.norm(walk.conv(y, f"{key}.conv1", inner), f"{key}.norm2"))
            y = walk.conv(y, f"{key}.conv2", inner, 3, stride, 1)
            y = walk.conv(F.relu(walk.norm(y, f"{key}.norm3")), f"{key}.conv3", 4 * inner)
            x = x + y
        walk.tap(x)
    walk.taps[-1] = F.relu(walk.norm(x, "norm"))
    pooled = F.adaptive_avg_pool2d(walk.taps[-1], 1)
    return walk.conv(pooled, "head.fc", walk.classes("head.fc"), bias=True).flatten(1)


def _cifar_resnet(walk: Walk, x: Tensor, count: int) -> Tensor:
    """Option A: the shortcut gets half of the missing channels as zeros before and half behind."""
    x = F.relu(walk.norm(walk.conv(x, "conv1", 16, 3, 1, 1), "bn1"))
    for stage, width in enumerate((16, 32, 64), start=1):
        for unit in range(count):
            key, stride = f"layer{stage}.{unit}", 2 if stage > 1 and unit == 0 else 1
            y = walk.norm(walk.conv(x, f"{key}.conv1", width, 3, stride, 1), f"{key}.bn1")
            y = walk.norm(walk.conv(F.relu(y), f"{key}.conv2", width, 3, 1, 1), f"{key}.bn2")
            missing = (width - x.shape[1]) // 2
            x = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, missing, missing))
            x = F.relu(x + y)
        walk.tap(x)
    return walk.head(x, "linear")


def _vgg(walk: Walk, x: Tensor, counts: Sequence[int], norm: bool, timm: bool) -> Tensor:
    index = 0
    for count, width in zip(counts, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            x = walk.conv(x, f"features.{index}", width, 3, 1, 1, bias=True)
            x = F.relu(walk.norm(x, f"features.{index + 1}") if norm else x)
            index += 3 if norm else 2
        x = walk.tap(F.max_pool2d(x, 2, 2))
        index += 1
    if timm:  # the 7x7 convolution slides over a larger map, a smaller one is blown up
        x = F.adaptive_avg_pool2d(x, (max(7, x.shape[2]), max(7, x.shape[3])))
        for key, kernel in (("fc1", 7), ("fc2", 1)):
            x = F.relu(walk.conv(x, f"pre_logits.{key}", HIDDEN, kernel, bias=True))
        return walk.head(x, "head.fc")
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    for key in ("classifier.0", "classifier.3"):
        x = F.relu(walk.linear(x, key, HIDDEN))
    return walk.head(x, "classifier.6")


def _alexnet(walk: Walk, x: Tensor) -> Tensor:
    rows = ((0, 64, 11, 4, 2), (3, 192, 5, 1, 2), (6, 384, 3, 1, 1), (8, 256, 3, 1, 1))
    for index, *sizes in (*rows, (10, 256, 3, 1, 1)):
        x = F.relu(walk.conv(x, f"features.{index}", *sizes, bias=True))
        if index in (0, 3, 10):
            x = walk.tap(F.max_pool2d(x, 3, 2))
    x = F.adaptive_avg_pool2d(x, 6).flatten(1)
    for key in ("classifier.1", "classifier.4"):
        x = F.relu(walk.linear(x, key, HIDDEN))
    return walk.head(x, "classifier.6")


def _densenet(walk: Walk, x: Tensor, growth: int, layers: Sequence[int]) -> Tensor:
    x = walk.conv(x, "features.conv0", 2 * growth, 7, 2, 3)
    x = F.max_pool2d(F.relu(walk.norm(x, "features.norm0")), 3, 2, 1)
    for block, count in enumerate(layers, start=1):
        for layer in range(1, count + 1):
            key = f"features.denseblock{block}.denselayer{layer}"
            y = walk.conv(F.relu(walk.norm(x, f"{key}.norm1")), f"{key}.conv1", 4 * growth)
            y = walk.conv(F.relu(walk.norm(y, f"{key}.norm2")), f"{key}.conv2", growth, 3, 1, 1)
            x = torch.cat((x, y), 1)
        walk.tap(x)
        if block < len(layers):
            key = f"features.transition{block}"
            x = walk.conv(F.relu(walk.norm(x, f"{key}.norm")), f"{key}.conv", x.shape[1] // 2)
            x = F.avg_pool2d(x, 2)
    walk.taps[-1] = F.relu(walk.norm(x, "features.norm5"))
    return walk.head(walk.taps[-1], "classifier")


_BASIC, _DEEP, _DEEPER = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CIFAR = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18, 1202: 200}

NETWORKS: dict[str, Callable[[Walk, Tensor], Tensor]] = {
    "resnet18": partial(_resnet, units=(2, 2, 2, 2)),
    "resnet34": partial(_resnet, units=_BASIC),
    "resnet50": partial(_resnet, units=_BASIC, base=64),
    "resnet101": partial(_resnet, units=_DEEP, base=64),
    "resnet152": partial(_resnet, units=_DEEPER, base=64),
    "resnext50_32x4d": partial(_resnet, units=_BASIC, base=4, groups=32),
    "resnext101_32x8d": partial(_resnet, units=_DEEP, base=8, groups=32),
    "wide_resnet50_2": partial(_resnet, units=_BASIC, base=128),
    "resnet18d": partial(_resnet_d, units=(2, 2, 2, 2), bottleneck=False),
    "resnet34d": partial(_resnet_d, units=_BASIC, bottleneck=False),
    "resnet50d": partial(_resnet_d, units=_BASIC, bottleneck=True),
    "preact_resnet50": partial(_preact_resnet, units=_BASIC),
    "preact_resnet101": partial(_preact_resnet, units=_DEEP),
    "preact_resnet152": partial(_preact_resnet, units=_DEEPER),
    **{f"cifar_resnet{depth}": partial(_cifar_resnet, count=n) for depth, n in _CIFAR.items()},
    **{
        f"{source}vgg{depth}{suffix}": partial(
            _vgg, counts=counts, norm=bool(suffix), timm=bool(source)
        )
        for source in ("", "timm_")
        for suffix in ("", "_bn")
        for depth, counts in _VGG.items()
    },
    "alexnet": _alexnet,
    "densenet121": partial(_densenet, growth=32, layers=(6, 12, 24, 16)),
    "densenet161": partial(_densenet, growth=48, layers=(6, 12, 36, 24)),
    "densenet169": partial(_densenet, growth=32, layers=(6, 12, 32, 32)),
    "densenet201": partial(_densenet, growth=32, layers=(6, 12, 48, 32)),
    "googlenet": googlenet,
    "inception_v3": inception_v3,
    "inception_v4": inception_v4,
    "xception": xception,
    "mobilenet_v1": mobilenet,
}
