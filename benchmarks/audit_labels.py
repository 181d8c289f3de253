"""DATA with planted label errors -> precision, recall and AUROC of the audit and of cleanlab.

    python benchmarks/audit_labels.py ../shared/data/birds6 ../shared/data/flowers5 MNIST

Needs `pip install cleanlab==2.9.0`. Both get the same probabilities: those of the audit. Errors:
5 and 10 % of the labels, to another class at random or to the most similar class. missed: share of
the errors that are not among as many labels of the lowest scores as there are errors.
`--seeds 20 --row uniform 0.05` measures one kind and rate of errors with more seeds, and prints the
difference in the errors missed with its 95 % interval (Student's t of the differences by seed).
`--subsets 60 120` measures small balanced subsets with 0, 1 and 5 % errors instead.
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

from residua.audits.images import main_axes, read
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


def small(name, features, labels, seeds, sizes):
    """Subsets of few images: labels said to be wrong, or listed; whether the interval holds."""
    classes = int(labels.max()) + 1
    print(f"\n{name}, {classes} classes; mean of {seeds} subsets")
    print(
        "images  errors  accuracy  warned  likely wrong: of these errors  listed: of these errors"
    )
    for size in sizes:
        for rate in (0.0, 0.01, 0.05):
            rows = []
            for seed in range(seeds):
                generator = np.random.default_rng(seed)
                members = [np.flatnonzero(labels == label) for label in range(classes)]
                chosen = [generator.choice(m, size // classes, replace=False) for m in members]
                drawn = np.concatenate(chosen)
                axes, true = main_axes(features[drawn]), labels[drawn]
                noisy, wrong = planted(axes, true, rate, "uniform", seed)
                predictions = predict(axes, noisy, np.arange(len(drawn)), classes)
                issues = find_issues(predictions, noisy)
                accuracy = (predictions.combined.argmax(axis=1) == noisy).mean()
                count, hits = len(issues.flagged), wrong[issues.flagged].sum()
                said = issues.are_likely
                inside = issues.interval[0] <= wrong.sum() <= issues.interval[1]
                cells = said, said * count, said * hits, count, hits, inside, *issues.interval
                rows.append((wrong.sum(), accuracy, *cells))
            v = np.mean(rows, axis=0)
            print(
                f"{len(drawn):6} {v[0]:7.0f} {v[1]:9.2f} {v[2]:7.2f} {v[3]:13.1f} {v[4]:16.1f} "
                f"{v[5]:7.1f} {v[6]:16.1f}  interval {v[8]:.1f} to {v[9]:.1f}, holds in {v[7]:.2f}",
                flush=True,
            )


def row(values):
    precision, recall, f1, auroc, missed = values
    return f"{precision:13.3f} {recall:6.3f} {f1:5.3f} {auroc:6.4f} {missed:6.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--row", nargs=2, metavar=("KIND", "RATE"))
    parser.add_argument("--subsets", nargs="+", type=int, metavar="N")
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
            if options.subsets:
                small(dataset.name, images.features, labels, options.seeds, options.subsets)
            else:
                everything += compare(dataset.name, images.features, labels, options.seeds, chosen)
    if options.subsets:
        return
    own, theirs = np.mean(everything, axis=0)
    print(f"\nmean             audit: {HEAD}                  cleanlab: {HEAD}")
    print(f"{'':20} {row(own)} {'':15} {row(theirs):>47}")


if __name__ == "__main__":
    main()
