"""Input tensor, classes -> logits: the tutorials' networks in Keras, as the tutorials wrote them.

Layer after layer in the order of their code, in which Keras numbers its automatic names; without
the final softmax. Nothing of the package is used: its networks are compared with these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from keras import layers

Cardinality = Literal["groups", "slices", "lambdas"]
Unit = Callable[[Any, int, bool], Any]
COUNTS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}


def _branch(x: Any, width: int, stride: int, base: str) -> Any:
    """Tutorial 0: a block's convolutions, up to the last norm; `base` begins every name."""
    x = layers.Conv2D(width, 1, stride, name=f"{base}conv1")(x)
    x = layers.BatchNormalization(name=f"{base}bn1")(x)
    x = layers.Activation("relu", name=f"{base}relu1")(x)
    x = layers.Conv2D(width, 3, padding="same", name=f"{base}conv2")(x)
    x = layers.BatchNormalization(name=f"{base}bn2")(x)
    x = layers.Activation("relu", name=f"{base}relu2")(x)
    x = layers.Conv2D(4 * width, 1, name=f"{base}conv3")(x)
    return layers.BatchNormalization(name=f"{base}bn3")(x)


def _resnet50(x: Any, classes: int) -> Any:
    x = layers.ZeroPadding2D(3)(x)
    x = layers.Conv2D(64, 7, strides=2, name="conv1")(x)
    x = layers.BatchNormalization(name="bn_conv1")(x)
    x = layers.MaxPooling2D(3, strides=2)(layers.Activation("relu")(x))
    for stage, count in enumerate(COUNTS["50"], start=2):
        width = 64 * 2 ** (stage - 2)
        for block in "abcdef"[:count]:
            first, stride = block == "a", 2 if block == "a" and stage > 2 else 1
            base = f"{stage}{block}_{'conv' if first else 'identity'}_block_"
            y, shortcut = _branch(x, width, stride, base), x
            if first:
                shortcut = layers.Conv2D(4 * width, 1, stride, name=f"{base}res_conv")(x)
                shortcut = layers.BatchNormalization(name=f"{base}res_bn")(shortcut)
            x = layers.add([y, shortcut], name=f"{base}add")
            x = layers.Activation("relu", name=f"{base}relu4")(x)
    x = layers.AveragePooling2D(tuple(x.shape[1:3]), name="avg_pool")(x)  # 7 x 7 at 224 px
    return layers.Dense(classes, name="fc1000")(layers.Flatten()(x))


def _decayed() -> dict[str, Any]:
    """Tutorial 1: what all its convolutions and its dense layer have."""
    return {"kernel_initializer": "he_normal", "kernel_regularizer": keras.regularizers.l2(1e-4)}


def _conv(x: Any, width: int, side: int = 3, stride: int = 1) -> Any:
    return layers.Conv2D(width, side, stride, padding="same", **_decayed())(x)


def _norm(x: Any) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _relu(x: Any) -> Any:
    return layers.Activation("relu")(x)


def _unit_a(x: Any, width: int, increase: bool) -> Any:
    y = _relu(_norm(_conv(x, width, stride=1 + increase)))
    y = _norm(_conv(y, width))
    return _relu(layers.add([y, _conv(x, width, 1, 2) if increase else x]))


def _unit_b(x: Any, width: int, increase: bool) -> Any:
    y = _relu(_norm(_conv(x, width, stride=1 + increase)))
    y = _conv(y, width)
    return _relu(_norm(layers.add([y, _conv(x, width, 1, 2) if increase else x])))


def _unit_c(x: Any, width: int, increase: bool) -> Any:
    y = _relu(_norm(_conv(x, width, stride=1 + increase)))
    y = _relu(_norm(_conv(y, width)))
    return layers.add([y, _conv(x, width, 1, 2) if increase else x])


def _unit_d(x: Any, width: int, increase: bool, second: bool = False) -> Any:
    ready = _relu(x)
    y = _relu(_norm(_conv(ready, width, stride=1 + increase)))
    y = _norm(_conv(y, width))
    return layers.add([y, _conv(x if second else ready, width, 1, 2) if increase else x])


def _unit_e(x: Any, width: int, increase: bool, second: bool = False, swapped: bool = False) -> Any:
    ready = _relu(_norm(x))
    y = _relu(_norm(_conv(ready, width, stride=1 + increase)))
    y = _conv(y, width)
    shortcut = _conv(x if second else ready, width, 1, 2) if increase else x
    return layers.add([shortcut, y] if swapped else [y, shortcut])


def _my_unit_34(x: Any, width: int, increase: bool) -> Any:
    """Tutorial 1, my_resnet_34: the units that halve the map have three convolutions."""
    if not increase:
        return _unit_e(x, width, increase, swapped=True)
    ready = _relu(_norm(x))
    y = _relu(_norm(_conv(ready, width // 2, 1, 2)))
    y = _relu(_norm(_conv(y, width // 2)))
    y = _conv(y, width, 1)
    return layers.add([_conv(ready, width, 1, 2), y])


def _bottleneck_c(x: Any, width: int, increase: bool) -> Any:
    y = _relu(_norm(_conv(x, width // 4, 1, 1 + increase)))
    y = _relu(_norm(_conv(y, width // 4)))
    y = _relu(_norm(_conv(y, width, 1)))
    return layers.add([y, _conv(x, width, 1, 2) if increase else x])


def _cifar(x: Any, classes: int, unit: Unit, counts: Sequence[int] = (5, 5, 5)) -> Any:
    deep = len(counts) == 4
    x = _conv(x, 64 if deep else 16)
    for stage, count in enumerate(counts):
        width = (256 if deep else 16) * 2**stage
        for number in range(count):
            x = unit(x, width, number == 0 and (deep or stage > 0))
    x = layers.GlobalAveragePooling2D()(_relu(_norm(x)))
    return layers.Dense(classes, **_decayed())(x)


def _vgg19(x: Any, classes: int) -> Any:
    """Tutorial 1, vgg19_pretrain: a norm behind every convolution and every dense layer."""
    widths = (64, 128, 256, 512, 512)
    for stage, (count, width) in enumerate(zip((2, 2, 4, 4, 4), widths, strict=True), start=1):
        for number in range(1, count + 1):
            x = layers.Conv2D(width, 3, padding="same", name=f"block{stage}_conv{number}")(x)
            x = _relu(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D(2, strides=2, name=f"block{stage}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc_cifa10", "fc2"):
        x = _relu(layers.BatchNormalization()(layers.Dense(4096, name=name)(x)))
        x = layers.Dropout(0.5)(x)
    x = layers.BatchNormalization()(layers.Dense(classes, name="predictions_cifa10")(x))
    return layers.Activation("linear")(x)


class Residual(keras.Model):
    """Tutorial 2: two 3x3 convolutions, a 1x1 on the shortcut where the shape changes."""

    def __init__(self, width: int, use_1x1conv: bool = False, strides: int = 1) -> None:
        super().__init__()
        self.conv1 = layers.Conv2D(width, 3, padding="same", strides=strides)
        self.conv2 = layers.Conv2D(width, 3, padding="same")
        self.conv3 = layers.Conv2D(width, 1, strides=strides) if use_1x1conv else None
        self.bn1 = layers.BatchNormalization()
        self.bn2 = layers.BatchNormalization()

    def call(self, x: Any) -> Any:
        y = keras.activations.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.conv3 is not None:
            x = self.conv3(x)
        return keras.activations.relu(y + x)


class ResnetBlock(layers.Layer):
    """A stage; the first unit of every stage but the first halves the map."""

    def __init__(self, width: int, count: int, first_block: bool = False) -> None:
        super().__init__()
        self.listLayers = []
        for number in range(count):
            if number == 0 and not first_block:
                self.listLayers.append(Residual(width, use_1x1conv=True, strides=2))
            else:
                self.listLayers.append(Residual(width))

    def call(self, x: Any) -> Any:
        for layer in self.listLayers:  # Keras 2 needed listLayers.layers, Keras 3 has no such thing
            x = layer(x)
        return x


@keras.saving.register_keras_serializable("tutorial2")
class ResNet(keras.Model):
    """Tutorial 2; ResNet([2, 2, 2, 2]) is its ResNet-18."""

    def __init__(self, num_blocks: Sequence[int], classes: int = 10, **rest: Any) -> None:
        super().__init__(**rest)
        self.settings = {"num_blocks": list(num_blocks), "classes": classes}
        self.conv = layers.Conv2D(64, kernel_size=7, strides=2, padding="same")
        self.bn = layers.BatchNormalization()
        self.relu = layers.Activation("relu")
        self.mp = layers.MaxPool2D(pool_size=3, strides=2, padding="same")
        self.resnet_block1 = ResnetBlock(64, num_blocks[0], first_block=True)
        self.resnet_block2 = ResnetBlock(128, num_blocks[1])
        self.resnet_block3 = ResnetBlock(256, num_blocks[2])
        self.resnet_block4 = ResnetBlock(512, num_blocks[3])
        self.gap = layers.GlobalAvgPool2D()
        self.fc = layers.Dense(classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    def call(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def vgg16_mnist(classes: int, size: int) -> keras.Model:
    """Tutorial 3: Keras' VGG16 without top, frozen, and three dense layers."""
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(size, size, 3))
    for layer in base.layers:
        layer.trainable = False
    x = layers.Flatten(name="flatten")(base.output)
    x = layers.Dense(4096, activation="relu", name="fc1")(x)
    x = layers.Dense(4096, activation="relu", name="fc2")(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(classes, name="prediction")(x)
    return keras.Model(base.input, x, name="vgg16_pretrain")


def _grouped(x: Any, stride: int, width: int, cardinality: Cardinality) -> Any:
    """Tutorial 4: a 3x3 convolution in 32 groups, or 32 convolutions of 32 slices.

    The printed lambda reads its loop variable late, so that all slices are the last one; here each
    slice is the one that was meant.
    """
    settings = {"strides": stride, "padding": "same", "use_bias": False}
    if cardinality == "groups":
        return layers.Conv2D(width, 3, groups=32, **settings)(x)
    parts = []
    for begin in range(0, width, width // 32):
        end = begin + width // 32
        if cardinality == "slices":
            part = x[:, :, :, begin:end]
        else:
            part = layers.Lambda(_slicing(begin, end))(x)
        parts.append(layers.Conv2D(width // 32, 3, **settings)(part))
    return layers.concatenate(parts, axis=3)


def _slicing(begin: int, end: int) -> Callable[[Any], Any]:
    return lambda x: x[:, :, :, begin:end]


def _resnext_norm(x: Any) -> Any:
    return layers.BatchNormalization(epsilon=1.001e-5)(x)


def _resnext_unit(x: Any, width: int, stride: int, first: bool, cardinality: Cardinality) -> Any:
    shortcut = x
    if first:
        shortcut = layers.Conv2D(2 * width, 1, stride, padding="same", use_bias=False)(x)
        shortcut = _resnext_norm(shortcut)
    y = layers.Conv2D(width, 1, padding="same", use_bias=False)(x)
    y = _relu(_resnext_norm(y))
    y = _relu(_resnext_norm(_grouped(y, stride, width, cardinality)))
    y = layers.Conv2D(2 * width, 1, padding="same", use_bias=False)(y)
    return _relu(layers.Add()([_resnext_norm(y), shortcut]))


def _resnext50(x: Any, classes: int, cardinality: Cardinality) -> Any:
    x = layers.ZeroPadding2D(3)(x)
    x = layers.Conv2D(64, 7, strides=2)(x)
    x = _relu(_resnext_norm(x))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(3, strides=2)(x)
    for stage, count in enumerate(COUNTS["50"]):
        for number in range(count):
            stride = 2 if number == 0 and stage > 0 else 1
            x = _resnext_unit(x, 128 * 2**stage, stride, number == 0, cardinality)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


FUNCTIONAL: dict[str, Callable[[Any, int], Any]] = {
    "tutorial_resnet50": _resnet50,
    "tutorial_cifar_resnet32_a": partial(_cifar, unit=_unit_a),
    "tutorial_cifar_resnet32_b": partial(_cifar, unit=_unit_b),
    "tutorial_cifar_resnet32_c": partial(_cifar, unit=_unit_c),
    "tutorial_cifar_resnet32_d": partial(_cifar, unit=_unit_d),
    "tutorial_cifar_resnet32_d_v2": partial(_cifar, unit=partial(_unit_d, second=True)),
    "tutorial_cifar_resnet32_e": partial(_cifar, unit=_unit_e),
    "tutorial_cifar_resnet32_e_v2": partial(_cifar, unit=partial(_unit_e, second=True)),
    "my_resnet_32": partial(_cifar, unit=partial(_unit_e, swapped=True)),
    "tutorial_cifar_resnet34": partial(_cifar, unit=_my_unit_34),
    "tutorial_cifar_resnet50": partial(_cifar, unit=_bottleneck_c, counts=COUNTS["50"]),
    "tutorial_cifar_resnet101": partial(_cifar, unit=_bottleneck_c, counts=COUNTS["101"]),
    "tutorial_cifar_resnet152": partial(_cifar, unit=_bottleneck_c, counts=(3, 4, 36, 3)),
    "tutorial_cifar_resnet152_full": partial(_cifar, unit=_bottleneck_c, counts=COUNTS["152"]),
    "tutorial_vgg19_cifar": _vgg19,
    "tutorial_resnext50": partial(_resnext50, cardinality="groups"),
    "tutorial_resnext50_slices": partial(_resnext50, cardinality="slices"),
    "tutorial_resnext50_lambdas": partial(_resnext50, cardinality="lambdas"),
}
