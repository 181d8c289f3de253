"""A network and its number of classes -> the preprocessing and class names that are assumed.

Third-party weights files record neither; the publisher of the network does.
"""

from __future__ import annotations

import re
from dataclasses import replace
from statistics import fmean

from residua.config.schema import NetworkSpec, Preprocessing
from residua.networks.zoo.catalogue import row
from residua.weights.native import Metadata, Origin
from residua.weights.published.classes import CIFAR10, imagenet_classes
from residua.weights.published.imagenet import RGB, SOURCES

_CIFAR = replace(RGB, crop=1.0)
_CIFAR_TUTORIAL = replace(_CIFAR, mean=(125.307, 122.95, 113.865), std=(62.9932, 62.0887, 66.7048))
_RAW = replace(RGB, resize="squash", crop=1.0, interpolation="bilinear", mean=(0.0,) * 3)
# Pattern of network names -> preprocessing and its source; the first match counts.
_USUAL: tuple[tuple[str, Preprocessing, str], ...] = (
    ("tutorial_cifar", _CIFAR_TUTORIAL, "tutorial 1"),
    ("tutorial_(vgg16_mnist|resnet18)", replace(_RAW, std=(255.0,) * 3), "its tutorial"),
    ("tutorial_resn", replace(_RAW, std=(1.0,) * 3), "its tutorial"),
    ("cifar", _CIFAR, "pytorch_resnet_cifar10"),
)


def defaults_for(name: str, classes: int, channels: int) -> Metadata:
    """The metadata that is assumed for weights of the network `name`; the origin states it.

    classes: outputs of its head. channels: of its input.
    """
    preprocessing, source = _usual_preprocessing(name, classes)
    if channels == 1:
        mean, std = (fmean(preprocessing.mean),), (fmean(preprocessing.std),)
        preprocessing = replace(preprocessing, channels=1, channel_order="rgb", mean=mean, std=std)
    if name not in SOURCES:
        preprocessing = replace(preprocessing, size=row(name).size)
    assumed = (
        f"its preprocessing is not recorded in the file, so that of {source} is assumed: "
        f"{preprocessing.channel_order}, mean {list(preprocessing.mean)}, std "
        f"{list(preprocessing.std)} of pixels in 0..255"
    )
    if classes == 1000:
        names, dataset = imagenet_classes(), "ImageNet"
    elif "cifar" in name and classes == 10:
        names, dataset = CIFAR10, "CIFAR-10"
    else:
        names, dataset = (), ""
    unnamed = f"its class names are not recorded in the file, so those of {dataset} are assumed"
    origin = Origin(assumed_preprocessing=assumed, assumed_classes=unnamed if names else "")
    return Metadata(NetworkSpec(name, classes, channels), names, preprocessing, {}, origin)


def _usual_preprocessing(name: str, classes: int) -> tuple[Preprocessing, str]:
    """The preprocessing of a network's usual weights, and whose it is."""
    if name in SOURCES and (classes == 1000 or not name.startswith("tutorial")):
        return SOURCES[name].preprocessing, SOURCES[name].publisher.partition(",")[0]
    for pattern, preprocessing, source in _USUAL:
        if re.match(pattern, name):
            return preprocessing, source
    return RGB, "torchvision"
