"""Planted label errors, ranked by predictions, by the margin of a training, and by both.

    python benchmarks/audit_margins.py ../shared/data    # results/audit-margins.txt

10 % of the labels are wrong, at random or as the most similar class. A network is trained on them
without a validation set: on photos EfficientNet-Lite0 by partial fine-tuning, 5 epochs; on MNIST
cifar_resnet14 from scratch. missed: share of the errors that are not among as many labels of the
lowest scores as there are errors.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from audit_labels import planted
from conditions import conditions
from PIL import Image
from sklearn.metrics import roc_auc_score

import residua
from residua.audits.images import read
from residua.audits.labels import find_issues, predict
from residua.config.schema import Data
from residua.data.open import open_dataset
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.training.margins import recorded_margins
from residua.transfer.fine_tune import NO_AUGMENTATION

SEEDS = range(1)
RATE = 0.1
# without augmentation the frozen stages are computed once
PHOTOS = {"transfer": "partial", "epochs": 5, "settings": NO_AUGMENTATION}
DIGITS = {
    "epochs": 20,
    "settings": {
        "network.name": "cifar_resnet14",
        "network.weights": "none",
        "preprocessing.size": 28,
    },
}
SETS = {"birds6": (600, PHOTOS), "mnist": (1500, DIGITS)}


def write(source, count, labels, target):
    """`count` images in folders by `labels`, their names the number of the image."""
    dataset = open_dataset(str(source))
    step = len(dataset.entries) / count
    for number in range(count):
        index = int(number * step)
        label = dataset.entries[index].label if labels is None else labels[number]
        pixels = dataset.pixels(index, dataset.content(index), 3, 10**8)
        file = Path(target, f"class{label}", f"{number:05}.png")
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)


def features_of(folder):
    """Features, labels and numbers of the images, and the rows of the data set."""
    images = read(Data(path=str(folder)), 3600, Console(quiet=True))
    numbers = np.array([int(Path(path).stem) for path in images.paths])
    return images.features, images.labels, numbers, images.rows


def figures(score, wrong):
    lowest = np.argsort(score, kind="stable")[: wrong.sum()]
    return roc_auc_score(wrong, -score), 1 - wrong[lowest].mean()


def main(data):
    print(conditions("scikit-learn"))
    print(f"seeds {list(SEEDS)}, {RATE:.0%} wrong labels: AUROC and share missed")
    print(f"\n{'':18}{'predictions':>16}{'margin':>16}{'both':>16}")
    for name, (count, training) in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(data / name, count, None, folder)
            clean, true, numbers, _ = features_of(folder)
        order = np.argsort(numbers)
        for kind in ("uniform", "similar"):
            rows = []
            for seed in SEEDS:
                noisy, _ = planted(clean[order], true[order], RATE, kind, seed)
                with tempfile.TemporaryDirectory() as folder:
                    place = Path(folder, "data")
                    place.mkdir()
                    write(data / name, count, noisy, place)
                    features, labels, numbers, entries = features_of(place)
                    wrong = labels != true[order][numbers]
                    settings = {"data.val_fraction": 0.0, **training.get("settings", {})}
                    given = {**training, "settings": settings}
                    residua.train(str(place), out=f"{folder}/run", seed=seed, quiet=True, **given)
                    margins = recorded_margins(RunFolder(Path(folder, "run")))[entries]
                predictions = predict(features, labels, np.arange(count), int(true.max()) + 1)
                alone = find_issues(predictions, labels).score
                both = find_issues(predictions, labels, margins).score
                rows.append([figures(score, wrong) for score in (alone, margins, both)])
            cells = [f"{auroc:9.4f} {missed:6.3f}" for auroc, missed in np.mean(rows, axis=0)]
            print(f"{name:9} {kind:8}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
