"""Package data -> the class names of published networks; class names -> indices.

The 1,000 classes of ImageNet (ILSVRC 2012) are synsets of WordNet 3.0, each with an identifier
("wnid") and a label, in the order of the published networks' outputs, which is that of the wnids.
Two labels occur twice: "crane" (134 the bird, 517 the machine) and "maillot" (638, 639); "Cardigan"
(264, a dog) and "cardigan" (474) differ only in case.
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
    """The 1,000 classes as "wnid label", such as "n02504013 Indian_elephant", in output order."""
    text = files("residua.weights.published").joinpath("imagenet_classes.csv").read_text("utf-8")
    return tuple(f"{row['wnid']} {row['label']}" for row in csv.DictReader(text.splitlines()))


def class_indices(classes: tuple[str, ...]) -> dict[str, int]:
    """Every accepted name of each class, in Unicode NFC -> its index in `classes`.

    Accepted are the full name; for "wnid label" also the wnid, and the label if it is unique; each
    also with spaces for underscores.
    """
    full: dict[str, int] = {}
    short: dict[str, set[int]] = defaultdict(set)
    for index, name in enumerate(classes):
        full[unicodedata.normalize("NFC", name)] = index
        synset = re.fullmatch(r"(n\d{8}) (.+)", name)
        for alias in (name, *(synset.groups() if synset else ())):
            for spelling in (alias, alias.replace("_", " ")):
                short[unicodedata.normalize("NFC", spelling)].add(index)
    unique = {name: min(indices) for name, indices in short.items() if len(indices) == 1}
    return unique | full
