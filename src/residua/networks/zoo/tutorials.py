"""The tutorials' own networks -> rows of the catalogue, with their biases, paddings and norms."""

from __future__ import annotations

import dataclasses

from residua.config.schema import ORDERING_LETTERS
from residua.networks.layers import KERAS_NORM, Norm
from residua.networks.residual import (
    BOTTLENECK,
    BOTTLENECK_V1,
    CIFAR_STEM,
    BranchConv,
    ResNetConfig,
    Stem,
    Tap,
)
from residua.networks.vgg import VGG16, VGG19, VGGConfig
from residua.networks.zoo.papers import DEEP, WIDE
from residua.networks.zoo.row import NetworkConfig, PublishedCount, Row

_BASIC = ResNetConfig(units=(), outputs=WIDE)
_DEEP = ResNetConfig(units=(), outputs=DEEP, branch=BOTTLENECK, inner=WIDE)
_KERAS_CIFAR = ResNetConfig(
    units=(5, 5, 5),
    outputs=(16, 32, 64),
    strides=(1, 2, 2),
    stem=dataclasses.replace(CIFAR_STEM, letters="c", padding="same", bias=True),
    tail="na",
    bias="all",
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
    ordering="relu_before_addition",
    stem=dataclasses.replace(_KERAS_CIFAR.stem, width=64),
)
_HALVING_BRANCH = (
    BranchConv(1, "inner", strided=True),
    BranchConv(3, "inner"),
    BranchConv(1, "output"),
)


def _tutorial(
    number: int,
    config: NetworkConfig,
    total: int,
    trainable: int,
    *,
    classes: int,
    channels: int,
    size: int,
) -> Row:
    return Row(
        config, classes, channels, size, PublishedCount(trainable, total), f"tutorial {number}"
    )


def _tutorial_cifar(config: NetworkConfig, total: int, trainable: int) -> Row:
    return _tutorial(1, config, total, trainable, classes=10, channels=3, size=32)


def _ordered(letter: str, projection_tap: Tap = "before") -> ResNetConfig:
    ordering = ORDERING_LETTERS[letter]
    return dataclasses.replace(_KERAS_CIFAR, ordering=ordering, projection_tap=projection_tap)


TUTORIALS: dict[str, Row] = {
    "tutorial_resnet50": _tutorial(
        0,
        dataclasses.replace(
            _DEEP.with_units(3, 4, 6, 3),
            branch=BOTTLENECK_V1,
            stem=Stem(bias=True, pool_padding="valid"),
            bias="all",
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
        _KERAS_CIFAR_DEEP.with_units(3, 4, 6, 3), 23_593_098, 23_543_690
    ),
    "tutorial_cifar_resnet101": _tutorial_cifar(
        _KERAS_CIFAR_DEEP.with_units(3, 4, 23, 3), 42_663_562, 42_561_930
    ),
    # 3-4-36-3 is what the tutorial's code prints and builds; the paper's 152 layers need 3-8-36-3
    "tutorial_cifar_resnet152": _tutorial_cifar(
        _KERAS_CIFAR_DEEP.with_units(3, 4, 36, 3), 57_246_858, 57_105_290
    ),
    "tutorial_cifar_resnet152_full": _tutorial_cifar(
        _KERAS_CIFAR_DEEP.with_units(3, 8, 36, 3), 58_376_330, 58_228_618
    ),
    "tutorial_resnet18": _tutorial(
        2,
        dataclasses.replace(
            _BASIC.with_units(2, 2, 2, 2),
            stem=Stem(bias=True, padding="same", pool_padding="same"),
            bias="all",
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
        VGGConfig(VGG16, pool=1, dropout_everywhere=False, initialisation="glorot"),
        33_638_218,
        33_638_218,
        classes=10,
        channels=3,
        size=48,
    ),
    "tutorial_vgg19_cifar": _tutorial_cifar(
        VGGConfig(VGG19, norm=KERAS_NORM, pool=1, head_norm=True, initialisation="he_truncated"),
        39_002_738,
        38_975_326,
    ),
    "tutorial_resnext50": _tutorial(
        4,
        dataclasses.replace(
            _DEEP.with_units(3, 4, 6, 3),
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
