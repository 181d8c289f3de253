"""A run, or weights alone -> the images that an exported file is compared with PyTorch on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from residua.data.cache import load, survey
from residua.data.dataset import Pixels, SplitName
from residua.data.image import resize
from residua.data.random import Integers
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.evaluation.labelled_images import held_out_split, split_images
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.weights.load import Weights

LIMIT = 1000  # images, evenly spread: enough for a difference, a minute or two for a ResNet-50
AT_LEAST = 32  # so that a batch of 32 is full: fewer images are repeated


@dataclass(frozen=True, eq=False)
class Images:
    """Preprocessed images.

    pixels: uint8 [N, S, S, C]. labels: int64 [N], None where the accuracy on them means nothing.
    origin: for the user, such as "test images".
    """

    pixels: Pixels
    labels: Integers | None
    origin: str

    def padded(self) -> Pixels:
        """At least AT_LEAST images: all of them in order, then again from the first."""
        return self.pixels[np.arange(max(AT_LEAST, len(self.pixels))) % len(self.pixels)]


def held_out_images(weights: Weights, run: RunFolder | None, console: Console) -> Images:
    """Held-out images of the run; else training images, without labels; else sample photos."""
    if run is None:
        return _photos(weights)
    try:
        members = run.read_split()
        split = held_out_split(members)
        images = images_of(weights, run, members, split or "train", console)
    except ResiduaError as error:
        console.caution(f"the exported file is compared on sample photos alone: {error}")
        return _photos(weights)
    return images if split else Images(images.pixels, None, images.origin)


def images_of(
    weights: Weights,
    run: RunFolder,
    members: Sequence[Member],
    split: SplitName,
    console: Console,
    limit: int = LIMIT,
) -> Images:
    """At most `limit` evenly spread images of a split. Raises ResiduaError if they are gone.

    members: the lines of split.csv.
    """
    images = split_images(run, members, split)
    count = len(images.labels)
    chosen = np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))
    surveyed = survey(images.dataset.selected(chosen.tolist()), run.config.data.max_pixels)
    with console.bar("decoding") as move:
        decoded = load(surveyed, weights.metadata.preprocessing, progress=move)
    readable = np.setdiff1d(np.arange(len(chosen)), list(decoded.failures)).astype(np.int64)
    if not len(readable):
        raise ResiduaError(f"{run.config.data.path}: none of its {split} images can be read.")
    name = "training" if split == "train" else split
    return Images(decoded.pixels[readable], images.labels[chosen][readable], f"{name} images")


def _photos(weights: Weights) -> Images:
    """scikit-learn's two photos, each in four parts, mirrored and inverted: 32 images."""
    from sklearn.datasets import load_sample_images

    preprocessing = weights.metadata.preprocessing
    pixels = []
    for photo in load_sample_images().images:
        rows, columns = photo.shape[0] // 2, photo.shape[1] // 2
        for top, left in ((0, 0), (0, columns), (rows, 0), (rows, columns)):
            quarter = photo[top : top + rows, left : left + columns]
            if preprocessing.channels == 1:
                quarter = quarter[:, :, 1:2]  # green is close to grey
            fitted = resize(np.ascontiguousarray(quarter), preprocessing)
            pixels += [fitted, fitted[:, ::-1], 255 - fitted, 255 - fitted[:, ::-1]]
    return Images(np.stack(pixels), None, "crops of two sample photos")
