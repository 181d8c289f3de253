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
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import cast

# Labels 0 to 9 of CIFAR-10, as in its batches.meta.
CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 classes as "wnid label", such as "n02504013 Indian_elephant", in output order."""
    text = files("residua.weights.published").joinpath("imagenet_classes.csv").read_text("utf-8")
    return tuple(f"{row['wnid']} {row['label']}" for row in csv.DictReader(text.splitlines()))


def outputs_of(names: Sequence[str], classes: tuple[str, ...]) -> list[int] | None:
    """The output of each class name of a data set; None if one is no class of the weights.

    classes: names of the outputs. Names that are exactly the numbers 0 to N - 1 of N outputs, none
    of which is called so, are these numbers: sorted as text, 10 would come before 2.
    """
    index_of = class_indices(classes)
    outputs = [index_of.get(unicodedata.normalize("NFC", name)) for name in names]
    if None in outputs and set(names) == set(map(str, range(len(classes)))):
        outputs = [int(name) for name in names]
    return None if None in outputs else cast("list[int]", outputs)


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
