"""The papers' networks -> rows of the catalogue."""

from __future__ import annotations

import dataclasses

from residua.networks.alexnet import ALEXNET, ALEXNET_2012
from residua.networks.densenet import DENSENET121, DENSENET161, DENSENET169, DENSENET201
from residua.networks.inception import GOOGLENET, INCEPTION_V3, INCEPTION_V4
from residua.networks.layers import Norm
from residua.networks.mobilenet import MOBILENET_V1
from residua.networks.residual import BOTTLENECK, BOTTLENECK_V1, CIFAR_STEM, ResNetConfig
from residua.networks.vgg import VGG11, VGG13, VGG16, VGG19, VGGConfig
from residua.networks.xception import XCEPTION
from residua.networks.zoo.row import NetworkConfig, PublishedCount, Row

WIDE = (64, 128, 256, 512)
DEEP = (256, 512, 1024, 2048)
HE15 = "He et al. 2015, Deep Residual Learning"
HE16 = "He et al. 2016, Identity Mappings"
XIE = "Xie et al. 2017, Aggregated Residual Transformations"
ZAGORUYKO = "Zagoruyko and Komodakis 2016, Wide Residual Networks"
SZEGEDY15 = "Szegedy et al. 2015, Rethinking the Inception Architecture"
HUANG = "Huang et al. 2016, Densely Connected Convolutional Networks"
SIMONYAN = "Simonyan and Zisserman 2014"

_BASIC = ResNetConfig(units=(), outputs=WIDE)
_DEEP = ResNetConfig(units=(), outputs=DEEP, branch=BOTTLENECK, inner=WIDE)
_CIFAR = ResNetConfig(
    units=(), outputs=(16, 32, 64), strides=(1, 2, 2), shortcut="A", stem=CIFAR_STEM
)
_CIFAR_PREACT = dataclasses.replace(
    _CIFAR,
    outputs=(64, 128, 256),
    inner=(16, 32, 64),
    branch=BOTTLENECK_V1,
    ordering="full_preactivation",
    shortcut="B",
    first_tap="before",
)
_WIDE_CIFAR = dataclasses.replace(_CIFAR, ordering="full_preactivation", shortcut="B")


def _imagenet(config: NetworkConfig, trainable: int, source: str = HE15, size: int = 224) -> Row:
    return Row(config, 1000, 3, size, PublishedCount(trainable), source)


def _cifar(config: NetworkConfig, trainable: int, source: str = HE15) -> Row:
    return Row(config, 10, 3, 32, PublishedCount(trainable), source)


_PREACT_BASIC = dataclasses.replace(_BASIC, ordering="full_preactivation", first_tap="before")
_PREACT_DEEP = dataclasses.replace(_DEEP, ordering="full_preactivation", first_tap="before")

PAPERS: dict[str, Row] = {
    # He 2015 at ImageNet size, the stride on the 3x3 ("v1.5", as in torchvision), option B
    "resnet18": _imagenet(_BASIC.with_units(2, 2, 2, 2), 11_689_512),
    "resnet34": _imagenet(_BASIC.with_units(3, 4, 6, 3), 21_797_672),
    "resnet50": _imagenet(_DEEP.with_units(3, 4, 6, 3), 25_557_032),
    "resnet101": _imagenet(_DEEP.with_units(3, 4, 23, 3), 44_549_160),
    "resnet152": _imagenet(_DEEP.with_units(3, 8, 36, 3), 60_192_808),
    "resnext50_32x4d": _imagenet(
        dataclasses.replace(_DEEP.with_units(3, 4, 6, 3), inner=(128, 256, 512, 1024), groups=32),
        25_028_904,
        XIE,
    ),
    "resnext101_32x8d": _imagenet(
        dataclasses.replace(_DEEP.with_units(3, 4, 23, 3), inner=(256, 512, 1024, 2048), groups=32),
        88_791_336,
        XIE,
    ),
    "wide_resnet50_2": _imagenet(
        dataclasses.replace(_DEEP.with_units(3, 4, 6, 3), inner=(128, 256, 512, 1024)),
        68_883_240,
        ZAGORUYKO,
    ),
    # He 2016 at ImageNet size; the ordering implies the bare stem and the tail
    "preact_resnet18": _imagenet(_PREACT_BASIC.with_units(2, 2, 2, 2), 11_687_720, HE16),
    "preact_resnet34": _imagenet(_PREACT_BASIC.with_units(3, 4, 6, 3), 21_795_880, HE16),
    "preact_resnet50": _imagenet(_PREACT_DEEP.with_units(3, 4, 6, 3), 25_549_352, HE16),
    "preact_resnet101": _imagenet(_PREACT_DEEP.with_units(3, 4, 23, 3), 44_541_480, HE16),
    "preact_resnet152": _imagenet(_PREACT_DEEP.with_units(3, 8, 36, 3), 60_185_128, HE16),
    # He 2015, section 4.2: 6n + 2 layers, option A; the paper begins at 20
    "cifar_resnet14": _cifar(_CIFAR.with_units(2, 2, 2), 172_506),
    "cifar_resnet20": _cifar(_CIFAR.with_units(3, 3, 3), 269_722),
    "cifar_resnet32": _cifar(_CIFAR.with_units(5, 5, 5), 464_154),
    "cifar_resnet44": _cifar(_CIFAR.with_units(7, 7, 7), 658_586),
    "cifar_resnet56": _cifar(_CIFAR.with_units(9, 9, 9), 853_018),
    "cifar_resnet110": _cifar(_CIFAR.with_units(18, 18, 18), 1_727_962),
    "cifar_resnet1202": _cifar(_CIFAR.with_units(200, 200, 200), 19_421_274),
    # He 2016 on CIFAR; 110 is basic with option A, 164 and 1001 are bottlenecks (9n + 2)
    "cifar_preact_resnet110": _cifar(
        dataclasses.replace(
            _CIFAR.with_units(18, 18, 18), ordering="full_preactivation", first_tap="before"
        ),
        1_727_962,
        HE16,
    ),
    "cifar_preact_resnet164": _cifar(_CIFAR_PREACT.with_units(18, 18, 18), 1_703_258, HE16),
    "cifar_preact_resnet1001": _cifar(_CIFAR_PREACT.with_units(111, 111, 111), 10_327_706, HE16),
    "cifar_resnext29_8x64d": _cifar(
        ResNetConfig(
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
    "vgg11": _imagenet(VGGConfig(VGG11), 132_863_336, SIMONYAN),
    "vgg13": _imagenet(VGGConfig(VGG13), 133_047_848, SIMONYAN),
    "vgg16": _imagenet(VGGConfig(VGG16), 138_357_544, SIMONYAN),
    "vgg19": _imagenet(VGGConfig(VGG19), 143_667_240, SIMONYAN),
    "vgg11_bn": _imagenet(VGGConfig(VGG11, norm=Norm()), 132_868_840, SIMONYAN),
    "vgg13_bn": _imagenet(VGGConfig(VGG13, norm=Norm()), 133_053_736, SIMONYAN),
    "vgg16_bn": _imagenet(VGGConfig(VGG16, norm=Norm()), 138_365_992, SIMONYAN),
    "vgg19_bn": _imagenet(VGGConfig(VGG19, norm=Norm()), 143_678_248, SIMONYAN),
    "alexnet": _imagenet(ALEXNET, 61_100_840, "Krizhevsky 2014, One weird trick"),
    "alexnet_2012": _imagenet(ALEXNET_2012, 60_965_224, "Krizhevsky et al. 2012"),
    # With BatchNorm, 3x3 where the paper has 5x5, without auxiliary heads: torchvision's
    "googlenet": _imagenet(GOOGLENET, 6_624_904, "Szegedy et al. 2014"),
    "inception_v3": _imagenet(INCEPTION_V3, 23_834_568, SZEGEDY15, 299),
    "inception_v4": _imagenet(INCEPTION_V4, 42_679_816, "Szegedy et al. 2016", 299),
    "xception": _imagenet(XCEPTION, 22_855_952, "Chollet 2016, Xception", 299),
    "densenet121": _imagenet(DENSENET121, 7_978_856, HUANG),
    "densenet161": _imagenet(DENSENET161, 28_681_000, HUANG),
    "densenet169": _imagenet(DENSENET169, 14_149_480, HUANG),
    "densenet201": _imagenet(DENSENET201, 20_013_928, HUANG),
    "mobilenet_v1": _imagenet(MOBILENET_V1, 4_231_976, "Howard et al. 2017, MobileNets"),
}
