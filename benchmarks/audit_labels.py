"""DATA with planted label errors -> precision, recall and AUROC of the audit and of cleanlab.

    python benchmarks/audit_labels.py ../shared/data/birds6 ../shared/data/flowers5 MNIST

Needs `pip install cleanlab==2.9.0`. Both get the same probabilities: those of the audit. Errors:
5 and 10 % of the labels, to another class at random or to the most similar class. missed: share of
the errors that are not among as many labels of the lowest scores as there are errors.
`--seeds 20 --row uniform 0.05` measures one kind and rate of errors with more seeds, and prints the
difference in the errors missed with its 95 % interval (Student's t of the differences by seed).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from conditions import conditions
from PIL import Image
from scipy import stats
from sklearn.metrics import roc_auc_score

from residua.audits.images import read
from residua.audits.labels import find_issues, predict
from residua.config.schema import Data
from residua.data.open import open_dataset
from residua.system.console import Console

ROWS = [(kind, rate) for kind in ("uniform", "similar") for rate in (0.05, 0.1)]
MOST = 1500  # images of a data set without image files
HEAD = "precision recall    F1  AUROC missed"


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


def measured(flagged, score, wrong):
    """Precision, recall, F1, AUROC, share missed at the number of errors."""
    hits, count = (flagged & wrong).sum(), wrong.sum()
    lowest = np.argsort(score, kind="stable")[:count]
    return np.array(
        (
            hits / max(flagged.sum(), 1),
            hits / count,
            2 * hits / max(flagged.sum() + count, 1),
            roc_auc_score(wrong, -score),
            1 - wrong[lowest].mean(),
        )
    )


def compare(name, features, labels, seeds, chosen):
    """The rows of the table: (audit, cleanlab), [5] each."""
    classes, groups = int(labels.max()) + 1, np.arange(len(labels))
    print(f"\n{name}: {len(labels)} images, {classes} classes; mean of {seeds} seeds")
    print(f"errors           audit: {HEAD}  estimate in CI   cleanlab: {HEAD}")
    found = []
    for kind, rate in chosen:
        rows, estimates = [], []
        for seed in range(seeds):
            noisy, wrong = planted(features, labels, rate, kind, seed)
            predictions = predict(features, noisy, groups, classes)
            issues = find_issues(predictions, noisy)
            low, high = issues.interval
            estimates.append((issues.estimate, low <= wrong.sum() <= high))
            probabilities = predictions.combined
            rows.append(
                (
                    measured(np.isin(groups, issues.flagged), issues.score, wrong),
                    measured(
                        find_label_issues(noisy, probabilities),
                        get_label_quality_scores(noisy, probabilities),
                        wrong,
                    ),
                )
            )
        own, theirs = np.mean(rows, axis=0)
        estimate, inside = np.mean(estimates, axis=0)
        found.append((own, theirs))
        print(
            f"{kind:8} {rate:4.0%} ({int(rate * len(labels)):4}) {row(own)} {estimate:9.1f} "
            f"{inside:5.1f} {row(theirs):>47}",
            flush=True,
        )
        if len(chosen) == 1:
            more = np.array([audit[-1] - other[-1] for audit, other in rows])
            half = stats.t.ppf(0.975, seeds - 1) * more.std(ddof=1) / seeds**0.5
            print(
                f"missed, audit less cleanlab: {more.mean():+.4f} (95 % CI "
                f"{more.mean() - half:+.4f} to {more.mean() + half:+.4f}); more in "
                f"{(more > 0).sum()}, fewer in {(more < 0).sum()} of {seeds} seeds"
            )
    return found


def row(values):
    precision, recall, f1, auroc, missed = values
    return f"{precision:13.3f} {recall:6.3f} {f1:5.3f} {auroc:6.4f} {missed:6.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--row", nargs=2, metavar=("KIND", "RATE"))
    options = parser.parse_args()
    chosen = [(options.row[0], float(options.row[1]))] if options.row else ROWS
    print(conditions("cleanlab", "scikit-learn"))
    everything = []
    for path in options.paths:
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
            images = read(Data(path=str(path)), 3600, Console(quiet=True))
            labels = images.labels[images.featured]
            everything += compare(dataset.name, images.features, labels, options.seeds, chosen)
    own, theirs = np.mean(everything, axis=0)
    print(f"\nmean             audit: {HEAD}                  cleanlab: {HEAD}")
    print(f"{'':20} {row(own)} {'':15} {row(theirs):>47}")


if __name__ == "__main__":
    main()
