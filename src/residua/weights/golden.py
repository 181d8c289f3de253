"""A network -> its logits for eight synthetic images; these, read again -> whether it still gives
them.

They are stored in each weights file of a finished run, so that wrong preprocessing, a swapped
channel order or a broken kernel is noticed when the file is loaded. The images are drawn, so a file
reveals nothing of the images that it was trained on.

The check covers everything from the values of a file to the logits. It does not cover the
thresholds of prediction sets and of unknown images: they are numbers that nothing computes again.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
from pathlib import Path

import numpy as np
import torch
from torch import nn

from residua._version import __version__
from residua.config.schema import Preprocessing
from residua.data.augmentation import normalise
from residua.data.dataset import Pixels
from residua.data.image import resize
from residua.data.pixels import pixels_of
from residua.errors import ResiduaError
from residua.system.files import cache_folder, is_there, write_atomically
from residua.weights.load import Weights
from residua.weights.native import Golden
from residua.weights.network import Logits, build_network

COUNT, HEIGHT, WIDTH = 8, 48, 64
BYTES = (0.0, 255.0)  # values of images of 8 bits
# Relative difference of the logits, by norm. float32 differs by up to 1e-5; int8 is not checked.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.02}


def golden_of(network: nn.Module, preprocessing: Preprocessing) -> Golden:
    """Draw the images, and compute the logits of a float32 network in eval mode."""
    images, value_range = _drawn(preprocessing.channels), preprocessing.value_range or BYTES
    return Golden(images, _logits(network, images, preprocessing), value_range)


def check_golden(weights: Weights) -> None:
    """Raise ResiduaError if the network gives other logits than when the file was written.

    Weights without golden images pass. A file is checked once on each machine and version of torch.
    """
    golden, exported = weights.metadata.golden, weights.exported
    precision = "fp32" if exported is None else str(exported.description.get("precision"))
    if golden is None or not weights.has_head or precision not in TOLERANCE:
        return
    if is_there(_marker(weights)):
        return
    rule = weights.metadata.preprocessing
    images = _as_read(golden, rule)
    if exported is None:
        logits = _logits(build_network(weights, torch.device("cpu")), images, rule)
    else:
        logits, *_ = exported.run(_resized(images, rule))
    difference = np.linalg.norm(logits - golden.logits) / np.linalg.norm(golden.logits)
    if not difference <= TOLERANCE[precision]:  # not a number differs too
        raise ResiduaError(
            f"{weights.path}: its network gives other outputs for the golden images than when the "
            f"file was written (difference {difference:.2%}, expected at most "
            f"{TOLERANCE[precision]:.1%}): its preprocessing or weights were changed, or this "
            "machine computes other numbers. Restore the file, or skip this check with --no-check."
        )
    mark_checked(weights)


def mark_checked(weights: Weights) -> None:
    """Remember that the file was checked, or written, in this environment."""
    with contextlib.suppress(ResiduaError):  # without a cache, it is checked each time
        write_atomically(_marker(weights), "")


def _marker(weights: Weights) -> Path:
    """An empty file in the user's cache, of the weights file and the environment."""
    content = (weights.sha256(), __version__, torch.__version__, platform.processor())
    name = hashlib.sha256(repr(content).encode()).hexdigest()[:32]
    return cache_folder() / "golden" / name


def _drawn(channels: int) -> Pixels:
    """Waves of several lengths with a bright rectangle each, uint8 [8, 48, 64, channels]."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / HEIGHT
    images = []
    for _ in range(COUNT):
        waves = sum(
            np.sin(2 * np.pi * (fy * y[..., None] + fx * x[..., None]) + phase)
            for fy, fx, phase in random.uniform(0, 6, (4, 3, channels))
        )
        image = np.clip(128 + 40 * np.asarray(waves), 0, 255)
        top, left = random.integers(4, 20, 2)
        image[top : top + 16, left : left + 24] = random.uniform(0, 255, channels)
        images.append(image)
    return np.stack(images).astype(np.uint8)


def _as_read(golden: Golden, preprocessing: Preprocessing) -> Pixels:
    """The images as the preprocessing of the file reads the values that they mean, uint8."""
    if golden.value_range is None:
        return golden.images
    low, high = golden.value_range
    values = low + golden.images * ((high - low) / 255)
    channels, stored = preprocessing.channels, preprocessing.value_range or BYTES
    return np.stack([pixels_of(x, channels, x.size, stored=stored) for x in values])


def _resized(images: Pixels, preprocessing: Preprocessing) -> Pixels:
    return np.stack([resize(image, preprocessing) for image in images])


@torch.inference_mode()
def _logits(network: nn.Module, images: Pixels, preprocessing: Preprocessing) -> Logits:
    pixels = _resized(images, preprocessing)
    device = next(network.parameters()).device
    inputs = normalise(torch.from_numpy(pixels).to(device), preprocessing)
    return np.asarray(network(inputs).float().cpu().numpy())
