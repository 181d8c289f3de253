"""A network and its number of classes -> what its weights expect of a picture, and what they name.

Foreign files do not say how pictures must be prepared; whoever published the network did.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from statistics import fmean

from residua.config import Preprocessing
from residua.networks.catalogue import row
from residua.weights.classes import CIFAR10, imagenet_classes
from residua.weights.imagenet import SOURCES

RGB = Preprocessing(
    size=224,
    channels=3,
    resize="crop",
    crop=0.875,
    channel_order="rgb",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
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
    """classes: names by output, none if unknown. assumed: what nobody said, as a sentence."""

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    assumed: str | None


def convention(name: str, classes: int, channels: int) -> Convention:
    """What belongs to weights of the network `name` with so many classes and input channels."""
    defaults = row(name)
    if name in SOURCES and classes == 1000 and channels == 3:
        return Convention(SOURCES[name].preprocessing, imagenet_classes(), None)
    found, whose = RGB, "torchvision"
    if name in SOURCES and not name.startswith("tutorial"):
        found, whose = SOURCES[name].preprocessing, "the published weights"
    for pattern, preprocessing, habit in _HABITS:
        if re.match(pattern, name):
            found, whose = preprocessing, habit
            break
    if channels == 1:
        grey = ((fmean(found.mean),), (fmean(found.std),))
        found = dataclasses.replace(
            found, channels=1, channel_order="rgb", mean=grey[0], std=grey[1]
        )
    found = dataclasses.replace(found, size=defaults.size)
    names = CIFAR10 if "cifar" in name and classes == 10 else ()
    assumed = f"pictures are prepared as {whose} does it, mean {_list(found.mean)} and std " + (
        f"{_list(found.std)} of 0..255 in {found.channel_order}, since the file does not say"
    )
    if name.startswith("cifar_resnet") and names:
        return Convention(found, names, None)
    return Convention(found, names, assumed)


def _list(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{each:g}" for each in values) + ")"
