"""DATA with planted label errors -> precision, recall and AUROC of the audit and of cleanlab.

    python benchmarks/audit_labels.py ../shared/data/birds6 ../shared/data/flowers5 MNIST

Needs `pip install cleanlab==2.9.0`. Both get the same probabilities: those of the audit. Errors:
5 and 10 % of the labels, to another class at random or to the most similar class.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from conditions import conditions
from PIL import Image
from sklearn.metrics import roc_auc_score

from residua.audits.images import read
from residua.audits.labels import find_issues, predict
from residua.data.open import open_dataset
from residua.system.console import Console

SEEDS = range(5)
MOST = 1500  # images of a data set without image files


def planted(features, labels, rate, kind, seed):
    """Labels with errors, and where these are."""
    generator = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    rows = generator.choice(len(labels), int(rate * len(labels)), replace=False)
    noisy = labels.copy()
    if kind == "uniform":
        noisy[rows] = (labels[rows] + generator.integers(1, classes, len(rows))) % classes
    else:
        means = np.stack([features[labels == label].mean(axis=0) for label in range(classes)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        similarity = means @ means.T - 9 * np.eye(classes)
        noisy[rows] = similarity.argmax(axis=1)[labels[rows]]
    return noisy, noisy != labels


def rates(flagged, wrong):
    """Precision, recall, F1."""
    hits = (flagged & wrong).sum()
    precision, recall = hits / max(flagged.sum(), 1), hits / wrong.sum()
    return precision, recall, 2 * hits / max(flagged.sum() + wrong.sum(), 1)


def compare(name, features, labels):
    classes, groups = int(labels.max()) + 1, np.arange(len(labels))
    print(f"\n{name}: {len(labels)} images, {classes} classes; mean of {len(SEEDS)} seeds")
    print(
        "errors              audit: precision recall    F1  AUROC  estimate  in CI"
        "   cleanlab: precision recall    F1  AUROC"
    )
    for kind in ("uniform", "similar"):
        for rate in (0.05, 0.1):
            rows = []
            for seed in SEEDS:
                noisy, wrong = planted(features, labels, rate, kind, seed)
                predictions = predict(features, noisy, groups, classes)
                own = predictions.combined
                issues = find_issues(predictions, noisy)
                flagged = np.isin(groups, issues.flagged)
                theirs = find_label_issues(noisy, own)
                quality = get_label_quality_scores(noisy, own)
                rows.append(
                    (
                        *rates(flagged, wrong),
                        roc_auc_score(wrong, -issues.score),
                        issues.estimate,
                        issues.interval[0] <= wrong.sum() <= issues.interval[1],
                        *rates(theirs, wrong),
                        roc_auc_score(wrong, -quality),
                    )
                )
            m = np.mean(rows, axis=0)
            print(
                f"{kind:8} {rate:4.0%} ({int(rate * len(labels)):4}) "
                f"{m[0]:16.3f} {m[1]:6.3f} {m[2]:5.3f} {m[3]:6.4f} {m[4]:9.1f} {m[5]:6.1f}"
                f"{m[6]:21.3f} {m[7]:6.3f} {m[8]:5.3f} {m[9]:6.4f}",
                flush=True,
            )


def main(paths):
    print(conditions("cleanlab", "scikit-learn"))
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            dataset = open_dataset(path)
            if not (Path(path) / dataset.entries[0].path).is_file():
                step = len(dataset.entries) // MOST
                for index in range(0, step * MOST, step):
                    entry = dataset.entries[index]
                    pixels = dataset.pixels(index, dataset.content(index), 3, 10**8)
                    file = Path(folder, str(entry.label), f"{index}.png")
                    file.parent.mkdir(exist_ok=True)
                    Image.fromarray(pixels).save(file)
                path = folder
            images = read(path, "", 3600, Console(quiet=True))
            compare(dataset.name, images.features, images.labels[images.featured])


if __name__ == "__main__":
    main(sys.argv[1:])
