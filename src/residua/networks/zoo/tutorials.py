"""The tutorials' own networks -> entries of the catalogue, with their biases and norms."""

from __future__ import annotations

from dataclasses import replace

from residua.config.schema import ORDERING_LETTERS
from residua.networks.layers import APPLICATIONS_NORM, KERAS_NORM, PLAIN_NORM
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
from residua.networks.zoo.papers import DEEP, WIDE, WIDER
from residua.networks.zoo.row import NetworkConfig, Row

_RESNET50 = ResNetConfig(
    units=(3, 4, 6, 3),
    outputs=DEEP,
    branch=BOTTLENECK_V1,
    inner=WIDE,
    stem=Stem(bias=True, pool_padding="valid"),
    bias="all",
    norm=KERAS_NORM,
    initialisation="glorot",
)
_RESNET18 = ResNetConfig(
    units=(2, 2, 2, 2),
    outputs=WIDE,
    stem=Stem(bias=True, padding="same", pool_padding="same"),
    bias="all",
    norm=KERAS_NORM,
    padding="same",
    projection_norm=False,
    initialisation="glorot",
)
_RESNEXT50 = ResNetConfig(
    units=(3, 4, 6, 3),
    outputs=DEEP,
    branch=BOTTLENECK,
    inner=WIDER,
    groups=32,
    stem=Stem(bias=True),
    norm=APPLICATIONS_NORM,
    padding="same",
    initialisation="glorot",
)
_CIFAR = ResNetConfig(
    units=(5, 5, 5),
    outputs=(16, 32, 64),
    strides=(1, 2, 2),
    stem=replace(CIFAR_STEM, letters="c", padding="same", bias=True),
    tail="na",
    bias="all",
    norm=PLAIN_NORM,  # by the tutorial's own constants: momentum .9, epsilon 1e-5
    padding="same",
    projection_norm=False,
    initialisation="he_truncated",
)
_CIFAR_DEEP = replace(
    _CIFAR,
    outputs=DEEP,
    inner=WIDE,
    branch=BOTTLENECK_V1,
    strides=(2, 2, 2, 2),
    ordering="relu_before_addition",
    stem=replace(_CIFAR.stem, width=64),
)
_HALVING = (BranchConv(1, "inner", strided=True), BranchConv(3, "inner"), BranchConv(1, "output"))
_VGG16_MNIST = VGGConfig(VGG16, pool=1, dropout_everywhere=False, initialisation="glorot")
_VGG19_CIFAR = VGGConfig(
    VGG19, norm=KERAS_NORM, pool=1, head_norm=True, initialisation="he_truncated"
)


def _cifar(config: NetworkConfig, total: int, trainable: int) -> Row:
    return Row(config, "tutorial 1", trainable, total, classes=10, size=32)


def _ordered(letter: str, projection_tap: Tap = "before") -> ResNetConfig:
    ordering = ORDERING_LETTERS[letter]
    return replace(_CIFAR, ordering=ordering, projection_tap=projection_tap)


_RESNET34 = replace(_ordered("e"), inner=(8, 16, 32), strided_branch=_HALVING)

TUTORIALS: dict[str, Row] = {
    "tutorial_resnet50": Row(_RESNET50, "tutorial 0", 25_583_592, 25_636_712),
    "tutorial_cifar_resnet32_a": _cifar(_ordered("a"), 470_410, 468_042),
    "tutorial_cifar_resnet32_b": _cifar(_ordered("b"), 470_410, 468_042),
    "tutorial_cifar_resnet32_c": _cifar(_ordered("c"), 470_410, 468_042),
    "tutorial_cifar_resnet32_d": _cifar(_ordered("d"), 470_410, 468_042),
    "tutorial_cifar_resnet32_d_v2": _cifar(_ordered("d", "input"), 470_410, 468_042),
    "tutorial_cifar_resnet32_e": _cifar(_ordered("e"), 470_218, 467_946),
    "tutorial_cifar_resnet32_e_v2": _cifar(_ordered("e", "input"), 470_218, 467_946),
    "tutorial_cifar_resnet34": _cifar(_RESNET34, 416_458, 414_186),
    "tutorial_cifar_resnet50": _cifar(_CIFAR_DEEP.with_units(3, 4, 6, 3), 23_593_098, 23_543_690),
    "tutorial_cifar_resnet101": _cifar(_CIFAR_DEEP.with_units(3, 4, 23, 3), 42_663_562, 42_561_930),
    # the tutorial's code prints and builds 3-4-36-3; the paper's 152 layers need 3-8-36-3
    "tutorial_cifar_resnet152": _cifar(_CIFAR_DEEP.with_units(3, 4, 36, 3), 57_246_858, 57_105_290),
    "tutorial_cifar_resnet152_full": _cifar(
        _CIFAR_DEEP.with_units(3, 8, 36, 3), 58_376_330, 58_228_618
    ),
    "tutorial_resnet18": Row(
        _RESNET18, "tutorial 2", 11_178_378, 11_186_186, classes=10, channels=1
    ),
    "tutorial_vgg16_mnist": Row(
        _VGG16_MNIST, "tutorial 3", 33_638_218, 33_638_218, classes=10, size=48
    ),
    "tutorial_vgg19_cifar": _cifar(_VGG19_CIFAR, 39_002_738, 38_975_326),
    "tutorial_resnext50": Row(_RESNEXT50, "tutorial 4", 22_988_164, 23_056_388, classes=4),
}
