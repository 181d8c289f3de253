"""The networks of the catalogue: their configs, defaults and published parameter counts.

Those of the papers, of keras.applications and of the tutorials. Each of the latter is one of the
former but for its biases, paddings and constants.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from residua.config.schema import ORDERING_LETTERS
from residua.networks.alexnet import ALEXNET, ALEXNET_2012
from residua.networks.densenet import DenseNetConfig
from residua.networks.inception import GOOGLENET, INCEPTION_V3, INCEPTION_V4, KERAS_INCEPTION_V3
from residua.networks.layers import APPLICATIONS_NORM, KERAS_NORM, PLAIN_NORM, Initialisation
from residua.networks.mobilenet import (
    EFFICIENTNET_LITE0,
    KERAS_MOBILENET,
    MOBILENET_V1,
    MOBILENET_V2,
)
from residua.networks.residual import (
    BOTTLENECK,
    BOTTLENECK_V1,
    CIFAR_STEM,
    DEEP_STEM,
    BranchConv,
    ResNetConfig,
    Stem,
    Tap,
)
from residua.networks.staged import Staged
from residua.networks.vgg import VGG11, VGG13, VGG16, VGG19, VGGConfig
from residua.networks.xception import KERAS_XCEPTION, XCEPTION


class NetworkConfig(Protocol):
    """The interface of every architecture's config."""

    @property
    def initialisation(self) -> Initialisation:
        """The rule that fills the kernels."""

    def build(self, classes: int, channels: int) -> Staged:
        """A freshly initialised network: [B, channels, H, W] -> logits [B, classes]."""


@dataclass(frozen=True)
class Row:
    """One network.

    source, trainable: who publishes the network, and its number of trainable parameters there.
    total: the published count with the statistics of BatchNorm; None: not published.
    classes, channels, size: defaults; size is the side of the input in pixels.
    """

    config: NetworkConfig
    source: str
    trainable: int
    total: int | None = None
    classes: int = 1000
    channels: int = 3
    size: int = 224


WIDE = (64, 128, 256, 512)
WIDER = (128, 256, 512, 1024)
DEEP = (256, 512, 1024, 2048)
HE15 = "He et al. 2015, Deep Residual Learning"
HE16 = "He et al. 2016, Identity Mappings"
HE18 = "He et al. 2018, Bag of Tricks"
XIE = "Xie et al. 2017, Aggregated Residual Transformations"
ZAGORUYKO = "Zagoruyko and Komodakis 2016, Wide Residual Networks"
SZEGEDY15 = "Szegedy et al. 2015, Rethinking the Inception Architecture"
LIU = "Liu 2020, EfficientNet-Lite; Tan and Le 2019, EfficientNet"
HUANG = "Huang et al. 2016, Densely Connected Convolutional Networks"
SIMONYAN = "Simonyan and Zisserman 2014"
WITH_NORM = f"{SIMONYAN}, with BatchNorm (torchvision)"

_BASIC = ResNetConfig(units=(), outputs=WIDE)
_DEEP = ResNetConfig(units=(), outputs=DEEP, branch=BOTTLENECK, inner=WIDE)
_BASIC_D = replace(_BASIC, stem=DEEP_STEM, shortcut="D")
_DEEP_D = replace(_DEEP, stem=DEEP_STEM, shortcut="D")
_NEXT50 = replace(_DEEP.with_units(3, 4, 6, 3), inner=WIDER, groups=32)
_NEXT101 = replace(_DEEP.with_units(3, 4, 23, 3), inner=DEEP, groups=32)
_PREACT_BASIC = replace(_BASIC, ordering="full_preactivation", first_tap="before")
_PREACT_DEEP = replace(_DEEP, ordering="full_preactivation", first_tap="before")
CIFAR = replace(_BASIC, outputs=(16, 32, 64), strides=(1, 2, 2), shortcut="A", stem=CIFAR_STEM)
_CIFAR_PREACT = replace(CIFAR, ordering="full_preactivation", first_tap="before")
_CIFAR_PREACT_DEEP = replace(
    _CIFAR_PREACT, outputs=(64, 128, 256), inner=(16, 32, 64), branch=BOTTLENECK_V1, shortcut="B"
)
_CIFAR_NEXT29 = replace(
    _DEEP.with_units(3, 3, 3),
    outputs=(256, 512, 1024),
    inner=(512, 1024, 2048),
    groups=8,
    strides=(1, 2, 2),
    stem=replace(CIFAR_STEM, width=64),
)
_WRN = replace(CIFAR, ordering="full_preactivation", shortcut="B")
_WRN16 = replace(_WRN.with_units(2, 2, 2), outputs=(128, 256, 512))
_WRN28 = replace(_WRN.with_units(4, 4, 4), outputs=(160, 320, 640))


def _cifar(config: NetworkConfig, source: str, trainable: int) -> Row:
    return Row(config, source, trainable, classes=10, size=32)


def _lite(width: float, depth: float, dropout: float) -> NetworkConfig:
    return replace(EFFICIENTNET_LITE0, width=width, depth=depth, dropout=dropout)


PAPERS: dict[str, Row] = {
    # He 2015 at ImageNet size, the stride on the 3x3 ("v1.5", as in torchvision), option B
    "resnet18": Row(_BASIC.with_units(2, 2, 2, 2), HE15, 11_689_512),
    "resnet34": Row(_BASIC.with_units(3, 4, 6, 3), HE15, 21_797_672),
    "resnet50": Row(_DEEP.with_units(3, 4, 6, 3), HE15, 25_557_032),
    "resnet101": Row(_DEEP.with_units(3, 4, 23, 3), HE15, 44_549_160),
    "resnet152": Row(_DEEP.with_units(3, 8, 36, 3), HE15, 60_192_808),
    # With a deep stem of three 3x3 convolutions and the pooled shortcut: timm's
    "resnet18d": Row(_BASIC_D.with_units(2, 2, 2, 2), HE18, 11_708_744),
    "resnet34d": Row(_BASIC_D.with_units(3, 4, 6, 3), HE18, 21_816_904),
    "resnet50d": Row(_DEEP_D.with_units(3, 4, 6, 3), HE18, 25_576_264),
    "resnext50_32x4d": Row(_NEXT50, XIE, 25_028_904),
    "resnext101_32x8d": Row(_NEXT101, XIE, 88_791_336),
    "wide_resnet50_2": Row(replace(_NEXT50, groups=1), ZAGORUYKO, 68_883_240),
    # He 2016 at ImageNet size; the ordering implies the bare stem and the tail
    "preact_resnet18": Row(_PREACT_BASIC.with_units(2, 2, 2, 2), HE16, 11_687_720),
    "preact_resnet34": Row(_PREACT_BASIC.with_units(3, 4, 6, 3), HE16, 21_795_880),
    "preact_resnet50": Row(_PREACT_DEEP.with_units(3, 4, 6, 3), HE16, 25_549_352),
    "preact_resnet101": Row(_PREACT_DEEP.with_units(3, 4, 23, 3), HE16, 44_541_480),
    "preact_resnet152": Row(_PREACT_DEEP.with_units(3, 8, 36, 3), HE16, 60_185_128),
    # He 2015, section 4.2: 6n + 2 layers, option A; the paper begins at 20
    "cifar_resnet14": _cifar(CIFAR.with_units(2, 2, 2), f"as {HE15}, with n = 2", 172_506),
    "cifar_resnet20": _cifar(CIFAR.with_units(3, 3, 3), HE15, 269_722),
    "cifar_resnet32": _cifar(CIFAR.with_units(5, 5, 5), HE15, 464_154),
    "cifar_resnet44": _cifar(CIFAR.with_units(7, 7, 7), HE15, 658_586),
    "cifar_resnet56": _cifar(CIFAR.with_units(9, 9, 9), HE15, 853_018),
    "cifar_resnet110": _cifar(CIFAR.with_units(18, 18, 18), HE15, 1_727_962),
    "cifar_resnet1202": _cifar(CIFAR.with_units(200, 200, 200), HE15, 19_421_274),
    # He 2016 on CIFAR; 110 is basic with option A, 164 and 1001 are bottlenecks (9n + 2)
    "cifar_preact_resnet110": _cifar(_CIFAR_PREACT.with_units(18, 18, 18), HE16, 1_727_962),
    "cifar_preact_resnet164": _cifar(_CIFAR_PREACT_DEEP.with_units(18, 18, 18), HE16, 1_703_258),
    "cifar_preact_resnet1001": _cifar(
        _CIFAR_PREACT_DEEP.with_units(111, 111, 111), HE16, 10_327_706
    ),
    "cifar_resnext29_8x64d": _cifar(_CIFAR_NEXT29, XIE, 34_426_698),
    "cifar_wrn16_8": _cifar(_WRN16, ZAGORUYKO, 10_961_370),
    "cifar_wrn28_10": _cifar(_WRN28, ZAGORUYKO, 36_479_194),
    "vgg11": Row(VGGConfig(VGG11), SIMONYAN, 132_863_336),
    "vgg13": Row(VGGConfig(VGG13), SIMONYAN, 133_047_848),
    "vgg16": Row(VGGConfig(VGG16), SIMONYAN, 138_357_544),
    "vgg19": Row(VGGConfig(VGG19), SIMONYAN, 143_667_240),
    "vgg11_bn": Row(VGGConfig(VGG11, norm=PLAIN_NORM), WITH_NORM, 132_868_840),
    "vgg13_bn": Row(VGGConfig(VGG13, norm=PLAIN_NORM), WITH_NORM, 133_053_736),
    "vgg16_bn": Row(VGGConfig(VGG16, norm=PLAIN_NORM), WITH_NORM, 138_365_992),
    "vgg19_bn": Row(VGGConfig(VGG19, norm=PLAIN_NORM), WITH_NORM, 143_678_248),
    "alexnet": Row(ALEXNET, "Krizhevsky 2014, One weird trick", 61_100_840),
    "alexnet_2012": Row(ALEXNET_2012, "Krizhevsky et al. 2012", 60_965_224),
    # With BatchNorm, 3x3 where the paper has 5x5, without auxiliary heads: torchvision's
    "googlenet": Row(GOOGLENET, "Szegedy et al. 2014", 6_624_904),
    "inception_v3": Row(INCEPTION_V3, SZEGEDY15, 23_834_568, size=299),
    "inception_v4": Row(INCEPTION_V4, "Szegedy et al. 2016", 42_679_816, size=299),
    "xception": Row(XCEPTION, "Chollet 2016, Xception", 22_855_952, size=299),
    "densenet121": Row(DenseNetConfig((6, 12, 24, 16)), HUANG, 7_978_856),
    "densenet161": Row(DenseNetConfig((6, 12, 36, 24), growth=48, width=96), HUANG, 28_681_000),
    "densenet169": Row(DenseNetConfig((6, 12, 32, 32)), HUANG, 14_149_480),
    "densenet201": Row(DenseNetConfig((6, 12, 48, 32)), HUANG, 20_013_928),
    "mobilenet_v1": Row(MOBILENET_V1, "Howard et al. 2017, MobileNets", 4_231_976),
    "mobilenet_v2": Row(MOBILENET_V2, "Sandler et al. 2018, MobileNetV2", 3_504_872),
    "efficientnet_lite0": Row(EFFICIENTNET_LITE0, LIU, 4_652_008),
    "efficientnet_lite1": Row(_lite(1.0, 1.1, 0.2), LIU, 5_416_680, size=240),
    "efficientnet_lite2": Row(_lite(1.1, 1.2, 0.3), LIU, 6_092_072, size=260),
    "efficientnet_lite3": Row(_lite(1.2, 1.4, 0.3), LIU, 8_197_096, size=300),
    "efficientnet_lite4": Row(_lite(1.4, 1.8, 0.3), LIU, 13_006_568, size=380),
}

# keras.applications

_KERAS_RESNET = replace(
    _DEEP,
    branch=BOTTLENECK_V1,
    stem=Stem(bias=True),
    bias="all",
    norm=APPLICATIONS_NORM,
    initialisation="glorot",
)
_KERAS_V2 = replace(
    _KERAS_RESNET,
    branch=BOTTLENECK,
    ordering="full_preactivation",
    strides=(2, 2, 2, 1),
    strided_unit="last",
    stem=Stem(bias=True, pool_padding="zeros"),
    bias="where no norm follows",
)
_VGG = VGGConfig(VGG16, dropout=0.0, initialisation="glorot")
_DENSENET = DenseNetConfig((6, 12, 24, 16), norm=APPLICATIONS_NORM, initialisation="glorot")


def _keras(config: NetworkConfig, total: int, trainable: int, size: int = 224) -> Row:
    return Row(config, "keras.applications", trainable, total, size=size)


KERAS_VARIANTS: dict[str, Row] = {
    "keras_resnet50": _keras(_KERAS_RESNET.with_units(3, 4, 6, 3), 25_636_712, 25_583_592),
    "keras_resnet101": _keras(_KERAS_RESNET.with_units(3, 4, 23, 3), 44_707_176, 44_601_832),
    "keras_resnet152": _keras(_KERAS_RESNET.with_units(3, 8, 36, 3), 60_419_944, 60_268_520),
    "keras_resnet50v2": _keras(_KERAS_V2.with_units(3, 4, 6, 3), 25_613_800, 25_568_360),
    "keras_resnet101v2": _keras(_KERAS_V2.with_units(3, 4, 23, 3), 44_675_560, 44_577_896),
    "keras_resnet152v2": _keras(_KERAS_V2.with_units(3, 8, 36, 3), 60_380_648, 60_236_904),
    "keras_vgg16": _keras(_VGG, 138_357_544, 138_357_544),
    "keras_vgg19": _keras(replace(_VGG, convolutions=VGG19), 143_667_240, 143_667_240),
    "keras_xception": _keras(KERAS_XCEPTION, 22_910_480, 22_855_952, 299),
    "keras_inception_v3": _keras(KERAS_INCEPTION_V3, 23_851_784, 23_817_352, 299),
    "keras_densenet121": _keras(_DENSENET, 8_062_504, 7_978_856),
    "keras_densenet169": _keras(replace(_DENSENET, layers=(6, 12, 32, 32)), 14_307_880, 14_149_480),
    "keras_densenet201": _keras(replace(_DENSENET, layers=(6, 12, 48, 32)), 20_242_984, 20_013_928),
    "keras_mobilenet": _keras(KERAS_MOBILENET, 4_253_864, 4_231_976),
}

# The tutorials

_RESNET50 = replace(
    _KERAS_RESNET.with_units(3, 4, 6, 3),
    stem=Stem(bias=True, pool_padding="valid"),
    norm=KERAS_NORM,
)
_RESNET18 = replace(
    _BASIC.with_units(2, 2, 2, 2),
    stem=Stem(bias=True, padding="same", pool_padding="same"),
    bias="all",
    norm=KERAS_NORM,
    padding="same",
    projection_norm=False,
    initialisation="glorot",
)
_RESNEXT50 = replace(
    _NEXT50, stem=Stem(bias=True), norm=APPLICATIONS_NORM, padding="same", initialisation="glorot"
)
_RESNET32 = replace(  # its norms have the tutorial's own constants: momentum .9, epsilon 1e-5
    CIFAR.with_units(5, 5, 5),
    shortcut="B",
    stem=replace(CIFAR_STEM, letters="c", padding="same", bias=True),
    tail="na",
    bias="all",
    padding="same",
    projection_norm=False,
    initialisation="he_truncated",
)
_CIFAR_DEEP = replace(
    _RESNET32,
    outputs=DEEP,
    inner=WIDE,
    branch=BOTTLENECK_V1,
    strides=(2, 2, 2, 2),
    ordering="relu_before_addition",
    stem=replace(_RESNET32.stem, width=64),
)
_HALVING = (BranchConv(1, "inner", strided=True), BranchConv(3, "inner"), BranchConv(1, "output"))
_VGG16_MNIST = VGGConfig(VGG16, pool=1, dropout_everywhere=False, initialisation="glorot")
_VGG19_CIFAR = VGGConfig(
    VGG19, norm=KERAS_NORM, pool=1, head_norm=True, initialisation="he_truncated"
)


def _tutorial(config: NetworkConfig, total: int, trainable: int) -> Row:
    return Row(config, "tutorial 1", trainable, total, classes=10, size=32)


def _ordered(letter: str, projection_tap: Tap = "before") -> ResNetConfig:
    ordering = ORDERING_LETTERS[letter]
    return replace(_RESNET32, ordering=ordering, projection_tap=projection_tap)


_RESNET34 = replace(_ordered("e"), inner=(8, 16, 32), strided_branch=_HALVING)

TUTORIALS: dict[str, Row] = {
    "tutorial_resnet50": Row(_RESNET50, "tutorial 0", 25_583_592, 25_636_712),
    "tutorial_cifar_resnet32_a": _tutorial(_ordered("a"), 470_410, 468_042),
    "tutorial_cifar_resnet32_b": _tutorial(_ordered("b"), 470_410, 468_042),
    "tutorial_cifar_resnet32_c": _tutorial(_ordered("c"), 470_410, 468_042),
    "tutorial_cifar_resnet32_d": _tutorial(_ordered("d"), 470_410, 468_042),
    "tutorial_cifar_resnet32_d_v2": _tutorial(_ordered("d", "input"), 470_410, 468_042),
    "tutorial_cifar_resnet32_e": _tutorial(_ordered("e"), 470_218, 467_946),
    "tutorial_cifar_resnet32_e_v2": _tutorial(_ordered("e", "input"), 470_218, 467_946),
    "tutorial_cifar_resnet34": _tutorial(_RESNET34, 416_458, 414_186),
    "tutorial_cifar_resnet50": _tutorial(
        _CIFAR_DEEP.with_units(3, 4, 6, 3), 23_593_098, 23_543_690
    ),
    "tutorial_cifar_resnet101": _tutorial(
        _CIFAR_DEEP.with_units(3, 4, 23, 3), 42_663_562, 42_561_930
    ),
    # the tutorial's code prints and builds 3-4-36-3; the paper's 152 layers need 3-8-36-3
    "tutorial_cifar_resnet152": _tutorial(
        _CIFAR_DEEP.with_units(3, 4, 36, 3), 57_246_858, 57_105_290
    ),
    "tutorial_cifar_resnet152_full": _tutorial(
        _CIFAR_DEEP.with_units(3, 8, 36, 3), 58_376_330, 58_228_618
    ),
    "tutorial_resnet18": Row(
        _RESNET18, "tutorial 2", 11_178_378, 11_186_186, classes=10, channels=1
    ),
    "tutorial_vgg16_mnist": Row(
        _VGG16_MNIST, "tutorial 3", 33_638_218, 33_638_218, classes=10, size=48
    ),
    "tutorial_vgg19_cifar": _tutorial(_VGG19_CIFAR, 39_002_738, 38_975_326),
    "tutorial_resnext50": Row(_RESNEXT50, "tutorial 4", 22_988_164, 23_056_388, classes=4),
}
