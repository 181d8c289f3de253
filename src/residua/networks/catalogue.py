"""A name -> a row -> a network; with the parameter counts that were published."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks.layers import KERAS_NORM, Norm
from residua.networks.residual import (
    BOTTLENECK,
    BOTTLENECK_V1,
    CIFAR_STEM,
    Kernel,
    Ordering,
    Residual,
    Shortcut,
    Stem,
)
from residua.networks.vgg import VGG


class Network(Protocol):
    """What every network here offers besides being an nn.Module."""

    def features(self, x: Tensor) -> list[Tensor]:
        """The feature maps of its stages, the last one as its head sees it."""


class Plan(Protocol):
    """A network's description, from which it is built."""

    def build(self, classes: int, channels: int) -> nn.Module:
        """A freshly initialised network."""


@dataclass(frozen=True)
class Published:
    """Parameters as their source counts them; total includes BatchNorm's statistics."""

    trainable: int
    total: int | None = None


@dataclass(frozen=True)
class Row:
    """One network: its plan, its defaults and where it comes from."""

    plan: Plan
    classes: int
    channels: int
    size: int
    published: Published
    source: str


WIDE = (64, 128, 256, 512)
DEEP = (256, 512, 1024, 2048)
HE15 = "He et al. 2015, Deep Residual Learning"
HE16 = "He et al. 2016, Identity Mappings"
XIE = "Xie et al. 2017, Aggregated Residual Transformations"
ZAGORUYKO = "Zagoruyko and Komodakis 2016, Wide Residual Networks"
SIMONYAN = "Simonyan and Zisserman 2014"

_BASIC = Residual(units=(), outputs=WIDE)
_DEEP = Residual(units=(), outputs=DEEP, branch=BOTTLENECK, inner=WIDE)
_CIFAR = Residual(units=(), outputs=(16, 32, 64), strides=(1, 2, 2), shortcut="A", stem=CIFAR_STEM)
_CIFAR_PREACT = dataclasses.replace(
    _CIFAR,
    outputs=(64, 128, 256),
    inner=(16, 32, 64),
    branch=BOTTLENECK_V1,
    ordering="e",
    shortcut="B",
    first_tap="before",
)
_WIDE_CIFAR = dataclasses.replace(_CIFAR, ordering="e", shortcut="B")
_KERAS_CIFAR = Residual(
    units=(5, 5, 5),
    outputs=(16, 32, 64),
    strides=(1, 2, 2),
    stem=dataclasses.replace(CIFAR_STEM, letters="c", padding="same", bias=True),
    tail="na",
    bias=True,
    norm=Norm(momentum=0.1, epsilon=1e-5),
    padding="same",
    projection_norm=False,
    initialisation="he_truncated",
)
_KERAS_CIFAR_DEEP = dataclasses.replace(
    _KERAS_CIFAR,
    outputs=DEEP,
    inner=WIDE,
    branch=BOTTLENECK_V1,
    strides=(2, 2, 2, 2),
    ordering="c",
    stem=dataclasses.replace(_KERAS_CIFAR.stem, width=64),
)
_HALVING_BRANCH = (Kernel(1, "inner", strided=True), Kernel(3, "inner"), Kernel(1, "output"))


def _imagenet(plan: Plan, trainable: int, source: str = HE15) -> Row:
    return Row(plan, 1000, 3, 224, Published(trainable), source)


def _cifar(plan: Plan, trainable: int, source: str = HE15) -> Row:
    return Row(plan, 10, 3, 32, Published(trainable), source)


def _tutorial(
    number: int, plan: Plan, total: int, trainable: int, *, classes: int, channels: int, size: int
) -> Row:
    return Row(plan, classes, channels, size, Published(trainable, total), f"tutorial {number}")


def _tutorial_cifar(plan: Plan, total: int, trainable: int) -> Row:
    return _tutorial(1, plan, total, trainable, classes=10, channels=3, size=32)


def _of(plan: Residual, *units: int) -> Residual:
    return dataclasses.replace(plan, units=units)


def _ordered(ordering: Ordering, projection_tap: Literal["before", "input"] = "before") -> Residual:
    return dataclasses.replace(_KERAS_CIFAR, ordering=ordering, projection_tap=projection_tap)


_PREACT_BASIC = dataclasses.replace(_BASIC, ordering="e", first_tap="before")
_PREACT_DEEP = dataclasses.replace(_DEEP, ordering="e", first_tap="before")
_VGG11, _VGG13 = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2)
_VGG16, _VGG19 = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)

ROWS: dict[str, Row] = {
    # He 2015 at ImageNet size, the stride on the 3x3 ("v1.5", as in torchvision), option B
    "resnet18": _imagenet(_of(_BASIC, 2, 2, 2, 2), 11_689_512),
    "resnet34": _imagenet(_of(_BASIC, 3, 4, 6, 3), 21_797_672),
    "resnet50": _imagenet(_of(_DEEP, 3, 4, 6, 3), 25_557_032),
    "resnet101": _imagenet(_of(_DEEP, 3, 4, 23, 3), 44_549_160),
    "resnet152": _imagenet(_of(_DEEP, 3, 8, 36, 3), 60_192_808),
    "resnext50_32x4d": _imagenet(
        dataclasses.replace(_of(_DEEP, 3, 4, 6, 3), inner=(128, 256, 512, 1024), groups=32),
        25_028_904,
        XIE,
    ),
    "resnext101_32x8d": _imagenet(
        dataclasses.replace(_of(_DEEP, 3, 4, 23, 3), inner=(256, 512, 1024, 2048), groups=32),
        88_791_336,
        XIE,
    ),
    "wide_resnet50_2": _imagenet(
        dataclasses.replace(_of(_DEEP, 3, 4, 6, 3), inner=(128, 256, 512, 1024)),
        68_883_240,
        ZAGORUYKO,
    ),
    # He 2016 at ImageNet size: bare stem and tail follow from the ordering
    "preact_resnet18": _imagenet(_of(_PREACT_BASIC, 2, 2, 2, 2), 11_687_720, HE16),
    "preact_resnet34": _imagenet(_of(_PREACT_BASIC, 3, 4, 6, 3), 21_795_880, HE16),
    "preact_resnet50": _imagenet(_of(_PREACT_DEEP, 3, 4, 6, 3), 25_549_352, HE16),
    "preact_resnet101": _imagenet(_of(_PREACT_DEEP, 3, 4, 23, 3), 44_541_480, HE16),
    "preact_resnet152": _imagenet(_of(_PREACT_DEEP, 3, 8, 36, 3), 60_185_128, HE16),
    # He 2015, section 4.2: 6n + 2 layers, option A
    "cifar_resnet20": _cifar(_of(_CIFAR, 3, 3, 3), 269_722),
    "cifar_resnet32": _cifar(_of(_CIFAR, 5, 5, 5), 464_154),
    "cifar_resnet44": _cifar(_of(_CIFAR, 7, 7, 7), 658_586),
    "cifar_resnet56": _cifar(_of(_CIFAR, 9, 9, 9), 853_018),
    "cifar_resnet110": _cifar(_of(_CIFAR, 18, 18, 18), 1_727_962),
    "cifar_resnet1202": _cifar(_of(_CIFAR, 200, 200, 200), 19_421_274),
    # He 2016 on CIFAR; 110 is basic with option A, 164 and 1001 are bottlenecks (9n + 2)
    "cifar_preact_resnet110": _cifar(
        dataclasses.replace(_of(_CIFAR, 18, 18, 18), ordering="e", first_tap="before"),
        1_727_962,
        HE16,
    ),
    "cifar_preact_resnet164": _cifar(_of(_CIFAR_PREACT, 18, 18, 18), 1_703_258, HE16),
    "cifar_preact_resnet1001": _cifar(_of(_CIFAR_PREACT, 111, 111, 111), 10_327_706, HE16),
    "cifar_resnext29_8x64d": _cifar(
        Residual(
            units=(3, 3, 3),
            outputs=(256, 512, 1024),
            branch=BOTTLENECK,
            inner=(512, 1024, 2048),
            groups=8,
            strides=(1, 2, 2),
            stem=dataclasses.replace(CIFAR_STEM, width=64),
        ),
        34_426_698,
        XIE,
    ),
    "cifar_wrn16_8": _cifar(
        dataclasses.replace(_WIDE_CIFAR, units=(2, 2, 2), outputs=(128, 256, 512)),
        10_961_370,
        ZAGORUYKO,
    ),
    "cifar_wrn28_10": _cifar(
        dataclasses.replace(_WIDE_CIFAR, units=(4, 4, 4), outputs=(160, 320, 640)),
        36_479_194,
        ZAGORUYKO,
    ),
    "vgg11": _imagenet(VGG(_VGG11), 132_863_336, SIMONYAN),
    "vgg13": _imagenet(VGG(_VGG13), 133_047_848, SIMONYAN),
    "vgg16": _imagenet(VGG(_VGG16), 138_357_544, SIMONYAN),
    "vgg19": _imagenet(VGG(_VGG19), 143_667_240, SIMONYAN),
    "vgg11_bn": _imagenet(VGG(_VGG11, norm=Norm()), 132_868_840, SIMONYAN),
    "vgg13_bn": _imagenet(VGG(_VGG13, norm=Norm()), 133_053_736, SIMONYAN),
    "vgg16_bn": _imagenet(VGG(_VGG16, norm=Norm()), 138_365_992, SIMONYAN),
    "vgg19_bn": _imagenet(VGG(_VGG19, norm=Norm()), 143_678_248, SIMONYAN),
    # The tutorials' own networks, their biases, paddings, missing norms and constants kept
    "tutorial_resnet50": _tutorial(
        0,
        dataclasses.replace(
            _of(_DEEP, 3, 4, 6, 3),
            branch=BOTTLENECK_V1,
            stem=Stem(bias=True, pool_padding="valid"),
            bias=True,
            norm=KERAS_NORM,
            initialisation="glorot",
        ),
        25_636_712,
        25_583_592,
        classes=1000,
        channels=3,
        size=224,
    ),
    "tutorial_cifar_resnet32_a": _tutorial_cifar(_ordered("a"), 470_410, 468_042),
    "tutorial_cifar_resnet32_b": _tutorial_cifar(_ordered("b"), 470_410, 468_042),
    "tutorial_cifar_resnet32_c": _tutorial_cifar(_ordered("c"), 470_410, 468_042),
    "tutorial_cifar_resnet32_d": _tutorial_cifar(_ordered("d"), 470_410, 468_042),
    "tutorial_cifar_resnet32_d_v2": _tutorial_cifar(_ordered("d", "input"), 470_410, 468_042),
    "tutorial_cifar_resnet32_e": _tutorial_cifar(_ordered("e"), 470_218, 467_946),
    "tutorial_cifar_resnet32_e_v2": _tutorial_cifar(_ordered("e", "input"), 470_218, 467_946),
    "tutorial_cifar_resnet34": _tutorial_cifar(
        dataclasses.replace(_ordered("e"), inner=(8, 16, 32), strided_branch=_HALVING_BRANCH),
        416_458,
        414_186,
    ),
    "tutorial_cifar_resnet50": _tutorial_cifar(
        _of(_KERAS_CIFAR_DEEP, 3, 4, 6, 3), 23_593_098, 23_543_690
    ),
    "tutorial_cifar_resnet101": _tutorial_cifar(
        _of(_KERAS_CIFAR_DEEP, 3, 4, 23, 3), 42_663_562, 42_561_930
    ),
    # 3-4-36-3 is what the tutorial's code prints and builds; the paper's 152 layers need 3-8-36-3
    "tutorial_cifar_resnet152": _tutorial_cifar(
        _of(_KERAS_CIFAR_DEEP, 3, 4, 36, 3), 57_246_858, 57_105_290
    ),
    "tutorial_cifar_resnet152_full": _tutorial_cifar(
        _of(_KERAS_CIFAR_DEEP, 3, 8, 36, 3), 58_376_330, 58_228_618
    ),
    "tutorial_resnet18": _tutorial(
        2,
        dataclasses.replace(
            _of(_BASIC, 2, 2, 2, 2),
            stem=Stem(bias=True, padding="same", pool_padding="same"),
            bias=True,
            norm=KERAS_NORM,
            padding="same",
            projection_norm=False,
            initialisation="glorot",
        ),
        11_186_186,
        11_178_378,
        classes=10,
        channels=1,
        size=224,
    ),
    "tutorial_vgg16_mnist": _tutorial(
        3,
        VGG(_VGG16, pool=1, dropout_everywhere=False, initialisation="glorot"),
        33_638_218,
        33_638_218,
        classes=10,
        channels=3,
        size=48,
    ),
    "tutorial_vgg19_cifar": _tutorial_cifar(
        VGG(_VGG19, norm=KERAS_NORM, pool=1, head_norm=True, initialisation="he_truncated"),
        39_002_738,
        38_975_326,
    ),
    "tutorial_resnext50": _tutorial(
        4,
        dataclasses.replace(
            _of(_DEEP, 3, 4, 6, 3),
            inner=(128, 256, 512, 1024),
            groups=32,
            stem=Stem(bias=True),
            norm=Norm(momentum=0.01, epsilon=1.001e-5),
            padding="same",
            initialisation="glorot",
        ),
        23_056_388,
        22_988_164,
        classes=4,
        channels=3,
        size=224,
    ),
}


def row(name: str) -> Row:
    """The row of a name. Raises ResiduaError that suggests near names."""
    if name not in ROWS:
        near = difflib.get_close_matches(name, ROWS, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ResiduaError(f"{name!r} is no known model.{hint} `residua models` lists all of them.")
    return ROWS[name]


def plan(name: str, *, ordering: Ordering | None = None, shortcut: Shortcut | None = None) -> Plan:
    """A row's plan with another ordering or shortcut, which only residual networks have.

    Raises ResiduaError.
    """
    found = row(name).plan
    changes = {
        key: value
        for key, value in (("ordering", ordering), ("shortcut", shortcut))
        if value is not None
    }
    if not changes:
        return found
    if not isinstance(found, Residual):
        asked = ", ".join(f"{key} {value!r}" for key, value in changes.items())
        raise ResiduaError(f"{name} has no residual units: {asked} does not apply.")
    for key, allowed in (("ordering", get_args(Ordering)), ("shortcut", get_args(Shortcut))):
        if key in changes and changes[key] not in allowed:
            raise ResiduaError(
                f"{key} {changes[key]!r} is unknown: expected one of {', '.join(allowed)}."
            )
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def build(
    name: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    ordering: Ordering | None = None,
    shortcut: Shortcut | None = None,
    seed: int | None = None,
) -> nn.Module:
    """A freshly initialised network: float [B, channels, H, W] -> logits [B, classes].

    What is not given is the row's default. seed fixes the initialisation without touching torch's
    global generator; None draws from it. The result is an ordinary nn.Module, in training mode,
    with a `features` method (see Network). Raises ResiduaError on an unknown name or option.
    """
    chosen, defaults = plan(name, ordering=ordering, shortcut=shortcut), row(name)
    classes = defaults.classes if classes is None else classes
    channels = defaults.channels if channels is None else channels
    for what, value in (("classes", classes), ("channels", channels)):
        if value < 1:
            raise ResiduaError(f"{name}: {what} = {value}: must be at least 1.")
    if seed is None:
        return chosen.build(classes, channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return chosen.build(classes, channels)
