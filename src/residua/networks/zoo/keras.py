"""keras.applications -> entries of the catalogue, with Keras' biases, paddings and constants."""

from __future__ import annotations

from dataclasses import replace

from residua.networks.densenet import DenseNetConfig
from residua.networks.inception import KERAS_INCEPTION_V3
from residua.networks.layers import APPLICATIONS_NORM
from residua.networks.mobilenet import KERAS_MOBILENET
from residua.networks.residual import BOTTLENECK, BOTTLENECK_V1, ResNetConfig, Stem
from residua.networks.vgg import VGG16, VGG19, VGGConfig
from residua.networks.xception import KERAS_XCEPTION
from residua.networks.zoo.papers import DEEP, WIDE
from residua.networks.zoo.row import NetworkConfig, Row

_RESNET = ResNetConfig(
    units=(),
    outputs=DEEP,
    inner=WIDE,
    branch=BOTTLENECK_V1,
    stem=Stem(bias=True),
    bias="all",
    norm=APPLICATIONS_NORM,
    initialisation="glorot",
)
_RESNET_V2 = replace(
    _RESNET,
    branch=BOTTLENECK,
    ordering="full_preactivation",
    strides=(2, 2, 2, 1),
    strided_unit="last",
    stem=Stem(bias=True, pool_padding="zeros"),
    bias="where no norm follows",
)
_VGG = VGGConfig(VGG16, dropout=0.0, initialisation="glorot")
_DENSENET = DenseNetConfig((6, 12, 24, 16), norm=APPLICATIONS_NORM, initialisation="glorot")


def _row(config: NetworkConfig, total: int, trainable: int, size: int = 224) -> Row:
    return Row(config, "keras.applications", trainable, total, size=size)


KERAS_VARIANTS: dict[str, Row] = {
    "keras_resnet50": _row(_RESNET.with_units(3, 4, 6, 3), 25_636_712, 25_583_592),
    "keras_resnet101": _row(_RESNET.with_units(3, 4, 23, 3), 44_707_176, 44_601_832),
    "keras_resnet152": _row(_RESNET.with_units(3, 8, 36, 3), 60_419_944, 60_268_520),
    "keras_resnet50v2": _row(_RESNET_V2.with_units(3, 4, 6, 3), 25_613_800, 25_568_360),
    "keras_resnet101v2": _row(_RESNET_V2.with_units(3, 4, 23, 3), 44_675_560, 44_577_896),
    "keras_resnet152v2": _row(_RESNET_V2.with_units(3, 8, 36, 3), 60_380_648, 60_236_904),
    "keras_vgg16": _row(_VGG, 138_357_544, 138_357_544),
    "keras_vgg19": _row(replace(_VGG, convolutions=VGG19), 143_667_240, 143_667_240),
    "keras_xception": _row(KERAS_XCEPTION, 22_910_480, 22_855_952, 299),
    "keras_inception_v3": _row(KERAS_INCEPTION_V3, 23_851_784, 23_817_352, 299),
    "keras_densenet121": _row(_DENSENET, 8_062_504, 7_978_856),
    "keras_densenet169": _row(replace(_DENSENET, layers=(6, 12, 32, 32)), 14_307_880, 14_149_480),
    "keras_densenet201": _row(replace(_DENSENET, layers=(6, 12, 48, 32)), 20_242_984, 20_013_928),
    "keras_mobilenet": _row(KERAS_MOBILENET, 4_253_864, 4_231_976),
}
