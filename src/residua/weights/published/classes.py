"""Package data -> the class names of published networks, and every way to name one of them.

The 1,000 classes of ImageNet (ILSVRC 2012) are synsets of WordNet 3.0. Its identifier ("wnid") and
one of its words come in the order of the published networks' outputs, which is that of the wnids.
Two words occur twice: "crane" (134 the bird, 517 the machine) and "maillot" (638, 639); "Cardigan"
(264, a dog) and "cardigan" (474) differ in one capital.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import defaultdict
from functools import cache
from importlib.resources import files

# Labels 0 to 9 of CIFAR-10, as in its batches.meta.
CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 classes as "wnid label", such as "n02504013 Indian_elephant", by output."""
    text = files("residua.weights.published").joinpath("imagenet_classes.csv").read_text("utf-8")
    return tuple(f"{row['wnid']} {row['label']}" for row in csv.DictReader(text.splitlines()))


def class_indices(classes: tuple[str, ...]) -> dict[str, int]:
    """Every way to name a class, in Unicode's NFC form -> its place in `classes`, 0 for the first.

    A class answers to its whole name; one called "wnid label" also to its wnid, and to its label
    where no other class answers to that; each with spaces for underscores too.
    """
    whole, shorter = {}, defaultdict(set)
    for place, name in enumerate(classes):
        whole[unicodedata.normalize("NFC", name)] = place
        parts = re.fullmatch(r"(n\d{8}) (.+)", name)
        for each in (name, *(parts.groups() if parts else ())):
            for spelled in (each, each.replace("_", " ")):
                shorter[unicodedata.normalize("NFC", spelled)].add(place)
    unique = {name: min(places) for name, places in shorter.items() if len(places) == 1}
    return unique | whole
