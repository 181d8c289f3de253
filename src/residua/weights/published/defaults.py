"""A network and its number of classes -> what its weights expect of an image, and what they name.

Foreign files do not say how images must be prepared; whoever published the network did.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from statistics import fmean

from residua.config.schema import Preprocessing
from residua.networks.zoo.catalogue import row
from residua.weights.published.classes import CIFAR10, imagenet_classes
from residua.weights.published.imagenet import RGB, SOURCES

_SQUASHED = dataclasses.replace(RGB, resize="squash", crop=1.0, interpolation="bilinear")
# Network names -> preprocessing and whose it is; the first that fits.
_HABITS: tuple[tuple[str, Preprocessing, str], ...] = (
    (
        "tutorial_cifar",
        dataclasses.replace(
            RGB, crop=1.0, mean=(125.307, 122.95, 113.865), std=(62.9932, 62.0887, 66.7048)
        ),
        "tutorial 1",
    ),
    (
        "tutorial_(vgg16_mnist|resnet18)",
        dataclasses.replace(_SQUASHED, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
        "its tutorial",
    ),
    (
        "tutorial_resn",
        dataclasses.replace(_SQUASHED, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        "its tutorial",
    ),
    ("cifar", dataclasses.replace(RGB, crop=1.0), "pytorch_resnet_cifar10"),
)


@dataclass(frozen=True)
class Convention:
    """classes: names by output, none if unknown. In words, assumed: what the file does not say of
    images; guessed: whose names the outputs are taken to have."""

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    assumed: str
    guessed: str = ""


def convention(name: str, classes: int, channels: int) -> Convention:
    """What belongs to weights of the network `name` with so many classes and input channels."""
    found, whose = RGB, "torchvision"
    if name in SOURCES and (classes == 1000 or not name.startswith("tutorial")):
        found, whose = SOURCES[name].preprocessing, "whoever published such weights"
    else:
        for pattern, preprocessing, habit in _HABITS:
            if re.match(pattern, name):
                found, whose = preprocessing, habit
                break
    if channels == 1:
        grey = ((fmean(found.mean),), (fmean(found.std),))
        found = dataclasses.replace(
            found, channels=1, channel_order="rgb", mean=grey[0], std=grey[1]
        )
    if name not in SOURCES:
        found = dataclasses.replace(found, size=row(name).size)
    assumed = (
        f"the file does not say how images are prepared, so it is done as by {whose}: "
        f"{found.channel_order}, mean {list(found.mean)}, std {list(found.std)}"
    )
    if classes == 1000:
        names, whose = imagenet_classes(), "ImageNet"
    elif "cifar" in name and classes == 10:
        names, whose = CIFAR10, "CIFAR-10"
    else:
        return Convention(found, (), assumed)
    return Convention(found, names, assumed, f"its outputs are taken for those of {whose}")
