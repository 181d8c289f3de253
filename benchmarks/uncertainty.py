"""Intervals, calibration, prediction sets and unknown images, against planted or held-out truth.

    python benchmarks/uncertainty.py ../shared/data

Features of the installed ImageNet weights of birds6, flowers5, cifar10_png1k and digits, and a
logistic regression on half of the images; the other half calibrates and evaluates. Features are
cached in the folder `--features`. Writes results/uncertainty.txt; `--only SECTION` prints one
section and writes nothing: calibration-intervals; networks, which trains small networks, on the
data sets of `--photos` too; prediction-sets, with MAPIE's sets where `pip install mapie==1.6.0` has
been run.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import residua
from residua.data.open import open_dataset
from residua.inference.logistic import fit_logistic, single_blas_thread
from residua.system.device import environment
from residua.uncertainty import unknown
from residua.uncertainty.calibration import brier_score, calibration_of
from residua.uncertainty.intervals import clustered_interval, wilson_interval
from residua.uncertainty.prediction_sets import PredictionSets, confidence_threshold
from residua.uncertainty.softmax import log_softmax, softmax
from residua.uncertainty.temperature import cross_fitted, fit_temperature
from residua.uncertainty.unknown_scores import SCORES, Head

RESULT = Path(__file__).parent / "results" / "uncertainty.txt"
SETS = ("birds6", "flowers5", "cifar10_png1k", "digits")
MOST = 1000  # images of a data set
SEEDS = 5
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # C of the logistic regression, by validation loss

Rows = tuple[np.ndarray, np.ndarray]


def data_sets(folder: Path, cache: Path) -> dict[str, Rows]:
    """Features and labels of at most MOST images of each."""
    cache.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name in SETS:
        file = cache / f"{name}.npz"
        if not file.exists():
            features = residua.features("imagenet", name if name == "digits" else folder / name)
            if name == "digits":
                labels = load_digits().target
            else:
                parents = [Path(path).parent.name for path in features.files]
                labels = np.unique(parents, return_inverse=True)[1]
            np.savez(file, features=features.values, labels=labels.astype(np.int64))
        with np.load(file) as stored:
            features, labels = stored["features"], stored["labels"]
        chosen = np.random.default_rng(0).permutation(len(labels))[:MOST]
        rows[name] = features[chosen], labels[chosen]
    return rows


def fit_head(features: np.ndarray, labels: np.ndarray, c: float = 1e-3) -> Rows:
    head = fit_logistic(features, labels, int(labels.max()) + 1, c)
    return head.weight, head.bias


def held_out(rows: Rows, seed: int, c: float) -> Rows:
    """Logits and labels of the half of the images that the head was not fitted on."""
    features, labels = rows
    order = np.random.default_rng(seed).permutation(len(labels))
    train, rest = order[: len(order) // 2], order[len(order) // 2 :]
    weight, bias = fit_head(features[train], labels[train], c)
    return features[rest] @ weight.T + bias, labels[rest]


def intervals() -> list[str]:
    lines = [
        "",
        "## 95 % intervals of an accuracy: coverage in 1,000 draws (93 to 97 % is required)",
    ]
    for groups, share, copies, alike in (
        (100, 0.9, 1, 1.0),
        (300, 0.8, 1, 1.0),
        (100, 0.9, 5, 1.0),
        (100, 0.8, 5, 1.0),
        (100, 0.85, 5, 0.9),
        (300, 0.95, 5, 0.9),
        (60, 0.8, 5, 0.5),
    ):
        counts = np.zeros(2)
        for seed in range(1000):
            random = np.random.default_rng(seed)
            image = np.repeat(random.random(groups) < share, copies)
            own = random.random(groups * copies) < share
            correct = np.where(random.random(groups * copies) < alike, image, own)
            group = np.repeat(np.arange(groups), copies)
            for at, (low, high) in enumerate(
                (
                    clustered_interval(correct, group),
                    wilson_interval(float(correct.mean()), len(correct)),
                )
            ):
                counts[at] += low <= share <= high
        lines.append(
            f"{groups} images, accuracy {share}, {copies} copies each, alike with probability "
            f"{alike}: clustered {counts[0] / 10:.1f} %, naive Wilson {counts[1] / 10:.1f} %"
        )
    return lines


def calibration(rows: dict[str, Rows]) -> list[str]:
    lines = [
        "",
        "## Calibration error (root mean square, debiased) before and after the temperature, which",
        "is cross-fitted on the same held-out half; mean of 5 splits. C is the inverse",
        "regularisation of the head; * has the lowest cross-entropy.",
    ]
    for name in SETS:
        found = {}
        for c in STRENGTHS:
            values = []
            for seed in range(SEEDS):
                logits, labels = held_out(rows[name], seed, c)
                after = cross_fitted(logits, labels, seed=seed)
                first, second = (calibration_of(p, labels) for p in (softmax(logits), after))
                loss = -np.log(softmax(logits)[np.arange(len(labels)), labels] + 1e-300).mean()
                values.append(
                    (
                        first.error,
                        second.error,
                        first.plain_error,
                        second.plain_error,
                        first.brier,
                        second.brier,
                        fit_temperature(logits, labels),
                        loss,
                    )
                )
            found[c] = np.mean(values, axis=0)
        best = min(STRENGTHS, key=lambda c: found[c][-1])
        lines.extend(
            f"{name:14} C {c:<6g}{'*' if c == best else ' '} error {v[0]:.4f} -> {v[1]:.4f}, plain "
            f"{v[2]:.4f} -> {v[3]:.4f}, Brier {v[4]:.4f} -> {v[5]:.4f}, temperature {v[6]:.2f}"
            for c, v in found.items()
        )
    return lines


def calibration_intervals() -> list[str]:
    """Of networks whose accuracy at each confidence is known."""
    lines = [
        "",
        "## 95 % intervals of the calibration error: coverage in 500 draws of N images, and how",
        "often the interval was below and above the true error. overconfident by: everywhere by",
        "the same amount; T: logits are T times as large as they should be. Draws with fewer than",
        "five errors have no interval; x 5: each image five times, as one group. wrong: share of",
        "all draws that have an interval that does not cover. Where few errors are expected, the",
        "few draws that have an interval are those with many errors, so it covers less often.",
    ]
    for what, low, high, gap, factor in (
        ("confidence .55 to .95, overconfident by .05", 0.55, 0.95, 0.05, 1.0),
        ("confidence .55 to .95, overconfident by .15", 0.55, 0.95, 0.15, 1.0),
        ("confidence .90 to 1, overconfident by .10", 0.9, 1.0, 0.1, 1.0),
        ("confidence .95 to 1, calibrated", 0.95, 1.0, 0.0, 1.0),
        ("confidence .98 to 1, overconfident by .02", 0.98, 1.0, 0.02, 1.0),
        ("confidence .60 to .85, overconfident by -.10", 0.6, 0.85, -0.1, 1.0),
        ("confidence .50 to 1, T 2.5", 0.5, 0.999, 0.0, 2.5),
        ("confidence .80 to 1, T 1.5", 0.8, 0.999, 0.0, 1.5),
    ):
        for images, copies in ((40, 1), (60, 1), (100, 1), (200, 1), (400, 1), (100, 5)):
            random, found = np.random.default_rng(0), []
            for _ in range(500):
                confidence = random.uniform(low, high, images)
                logit = np.log(np.maximum(confidence / (1 - confidence + 1e-12), 1e-12)) / factor
                accuracy = confidence - gap if factor == 1 else 1 / (1 + np.exp(-logit))
                labels = (random.random(images) >= accuracy).astype(np.int64)
                probabilities = np.stack([confidence, 1 - confidence], axis=1)
                groups = np.repeat(np.arange(images), copies)
                measured = calibration_of(probabilities[groups], labels[groups], groups)
                if measured.interval is not None:
                    true = _binned_error(confidence, accuracy, [b.images for b in measured.bins])
                    below, above = measured.interval
                    found.append((above < true - 5e-4, below > true + 5e-4))  # a step is .001
            less, more = 100 * np.mean(found, axis=0) if found else (0.0, 0.0)
            wrong = (less + more) * len(found) / 500
            lines.append(
                f"N {images:3}{' x 5' if copies > 1 else '':4} {100 - less - more:5.1f} % (below "
                f"{less:.1f}, above {more:.1f}) of {len(found)} draws, wrong {wrong:.1f} %: {what}"
            )
    return lines


def _binned_error(confidence: np.ndarray, accuracy: np.ndarray, sizes: list[int]) -> float:
    """The root mean square of the true gaps in bins of these numbers of images, or multiples."""
    order = np.argsort(confidence)
    bins = np.repeat(np.arange(len(sizes)), sizes)[:: sum(sizes) // len(order)]
    gaps = np.bincount(bins, (confidence - accuracy)[order])
    counts = np.bincount(bins)
    return float(np.sqrt((gaps**2 / np.maximum(counts, 1)).sum() / counts.sum()))


MEMORISED = {
    "optimization.label_smoothing": 0.0,
    "augmentation.flip": False,
    "augmentation.crop_padding": 0,
    "augmentation.rotation": 0.0,
    "augmentation.zoom": [1.0, 1.0],
    "augmentation.brightness": 0.0,
    "augmentation.contrast": 0.0,
    "augmentation.saturation": 0.0,
}
TRAININGS = (  # data set, input size, settings, epochs, test fraction
    ("digits", 16, "default", 8, 0.3),
    ("mnist", 16, "default", 8, 0.3),
    ("signs", 24, "default", 8, 0.3),
    ("birds6", 24, "memorised", 20, 0.3),
    ("flowers5", 24, "memorised", 20, 0.5),
    ("cifar10_png1k", 24, "memorised", 20, 0.3),
    ("signs", 24, "memorised", 20, 0.3),
)


def trained_networks(folder: Path, photos: list[Path]) -> list[str]:
    """Temperature on the test sets of small networks trained from scratch."""
    lines = [
        "",
        "## Networks trained from scratch: calibration error (root mean square, debiased) and",
        "plain error on the test set, which chose nothing, without -> with the temperature that",
        "the run fitted on its validation set; cifar_resnet20, at most 500 training images, seeds",
        "of split and training 0 to 2. default: residua's settings, with label smoothing 0.1;",
        "memorised: no label smoothing or augmentation, more epochs. confidence: mean before.",
    ]
    places = {path.name: str(path) for path in photos} | {"digits": "digits"}
    for name, size, kind, epochs, fraction in TRAININGS:
        found = []
        for seed in range(3):
            data = _subset_of_mnist(folder) if name == "mnist" else places.get(name, folder / name)
            with tempfile.TemporaryDirectory() as place:
                run = residua.train(
                    data,
                    model="cifar_resnet20",
                    weights="none",
                    size=size,
                    epochs=epochs,
                    seed=seed,
                    split_seed=seed,
                    test_fraction=fraction,
                    settings={"training.max_images": 500}
                    | (MEMORISED if kind != "default" else {}),
                    out=Path(place, "run"),
                    quiet=True,
                )
                scores = run.folder.read_json("evaluations/test/scores.json", dict)["reliability"]
                splits = [member.split for member in run.folder.read_split()]
            before, after = scores["calibration_before"], scores["calibration"]
            lines.append(
                f"{name:13} {kind:9} seed {seed}: error {before['error']:.4f} -> "
                f"{after['error']:.4f}, plain {before['plain_error']:.4f} -> "
                f"{after['plain_error']:.4f}, temperature {scores['temperature']:.2f} of "
                f"{splits.count('validation')} images; {before['images']} test images, accuracy "
                f"{before['accuracy']:.3f}, confidence {before['confidence']:.3f}"
            )
            found.append([row[key] for row in (before, after) for key in ("error", "plain_error")])
        error, plain, error_after, plain_after = np.mean(found, axis=0)
        halved = sum(row[2] <= row[0] / 2 for row in found)
        lines.append(
            f"{name:13} {kind:9} mean: error {error:.4f} -> {error_after:.4f}, plain {plain:.4f} "
            f"-> {plain_after:.4f}; error at least halved with {halved} of 3 seeds"
        )
    return lines


def _subset_of_mnist(folder: Path) -> Rows:
    """2,000 of the images uint8 [N, 28, 28, 1] and their labels."""
    dataset = open_dataset(str(folder / "mnist"))
    rows = range(0, 60000, 30)
    pixels = [dataset.pixels(row, dataset.content(row), 1, 10**8) for row in rows]
    return np.stack(pixels), np.array([dataset.entries[row].label for row in rows])


def small_sets(rows: dict[str, Rows]) -> list[str]:
    """Temperatures from cross-validated logits of few images, where errors are rare or absent."""
    lines = [
        "",
        "## Temperature from the cross-validated logits of N images, for the other images of the",
        "set; mean of 5 draws. Log loss and Brier score with temperature 1 -> with the fitted one,",
        "whose range is given; errors among the N images.",
    ]
    for name in SETS:
        features, labels = rows[name]
        classes = int(labels.max()) + 1
        for images in (60, 180, 400):
            found, fitted, errors = [], [], []
            for seed in range(SEEDS):
                order = np.random.default_rng(seed).permutation(len(labels))
                train, rest = order[:images], order[images:]
                fold = np.arange(images) % 5
                best, loss = None, np.inf
                for c in STRENGTHS:
                    logits = np.zeros((images, classes))
                    for number in range(5):
                        weight, bias = fit_head(
                            features[train[fold != number]], labels[train[fold != number]], c
                        )
                        logits[fold == number] = (
                            features[train[fold == number]] @ weight.T + bias[None]
                        )
                    present = log_softmax(logits)[np.arange(images), labels[train]]
                    if -present.mean() < loss:
                        best, loss = (c, logits), float(-present.mean())
                assert best is not None
                c, logits = best
                temperature = fit_temperature(logits, labels[train])
                weight, bias = fit_head(features[train], labels[train], c)
                others = features[rest] @ weight.T + bias
                row = []
                for divisor in (1.0, temperature):
                    logs = log_softmax(others / divisor)[np.arange(len(rest)), labels[rest]]
                    row += [-logs.mean(), brier_score(softmax(others / divisor), labels[rest])]
                found.append(row)
                fitted.append(temperature)
                errors.append(int((logits.argmax(axis=1) != labels[train]).sum()))
            loss, brier, loss_after, brier_after = np.mean(found, axis=0)
            lines.append(
                f"{name:14} N {images:3}  log loss {loss:.4f} -> {loss_after:.4f}, Brier "
                f"{brier:.4f} -> {brier_after:.4f}, temperature {min(fitted):.2f} to "
                f"{max(fitted):.2f}, errors {min(errors)} to {max(errors)}"
            )
    return lines


def aps_sets(probabilities: Rows, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Adaptive sets (APS, Romano et al. 2020), or RAPS with its penalty (Angelopoulos 2021)."""
    calibrate, evaluate = probabilities
    random = np.random.default_rng(0)

    def scores(rows: np.ndarray) -> np.ndarray:
        order = np.argsort(-rows, axis=1)
        ranks = np.argsort(order, axis=1)
        before = np.take_along_axis(np.cumsum(np.sort(rows)[:, ::-1], axis=1), ranks, axis=1) - rows
        return before + random.random((len(rows), 1)) * rows + penalty * np.maximum(ranks - 1, 0)

    own = np.sort(scores(calibrate)[np.arange(len(labels)), labels])
    level = own[min(len(own) - 1, int(np.ceil((len(own) + 1) * 0.9)) - 1)]
    chosen = scores(evaluate) <= level
    chosen[np.arange(len(evaluate)), evaluate.argmax(axis=1)] = True
    return chosen


def lac_by_mapie(logits: Rows, labels: np.ndarray) -> np.ndarray | None:
    """MAPIE's sets of the same probabilities, as an oracle."""
    try:
        from mapie.classification import SplitConformalClassifier
    except ImportError:
        return None
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        def fit(self, x: np.ndarray, y: np.ndarray) -> Given:
            self.classes_ = np.arange(x.shape[1])
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return x

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(axis=1)

    model = SplitConformalClassifier(
        Given().fit(logits[0], labels), confidence_level=0.9, conformity_score="lac", prefit=True
    )
    model.conformalize(logits[0], labels)
    return np.asarray(model.predict_set(logits[1])[1])[:, :, 0]


def prediction_sets(rows: dict[str, Rows]) -> list[str]:
    lines = [
        "",
        "## Prediction sets of 90 %: half of the held-out images calibrates, the other evaluates;",
        "20 splits. Coverage (should be 90 %, or more: the predicted class is always in the set),",
        "the lowest coverage of a class, mean size; `marginal` has one threshold for all classes.",
    ]
    for name in SETS:
        found: dict[str, list[tuple[float, float, float]]] = {}
        mapie, guaranteed = [], []
        for seed in range(20):
            logits, labels = held_out(rows[name], seed, 1e-2)
            half = len(labels) // 2
            temperature = fit_temperature(logits[:half], labels[:half])
            first, second = (
                softmax(logits[:half] / temperature),
                softmax(logits[half:] / temperature),
            )
            truth = labels[half:]
            sets = PredictionSets.fit(first, labels[:half])
            level = np.full(sets.classes, np.sort(sets.scores)[int(np.ceil((half + 1) * 0.9)) - 1])
            marginal = (1 - second <= level) | (second == second.max(axis=1, keepdims=True))
            for kind, chosen in (
                ("by class", sets.sets(second)),
                ("marginal", marginal),
                ("APS", aps_sets((first, second), labels[:half], 0.0)),
                ("RAPS", aps_sets((first, second), labels[:half], 0.05)),
            ):
                inside = chosen[np.arange(len(truth)), truth]
                worst = min(inside[truth == k].mean() for k in np.unique(truth))
                found.setdefault(kind, []).append((inside.mean(), worst, chosen.sum(1).mean()))
            oracle = lac_by_mapie((first, second), labels[:half])
            if oracle is not None:
                mapie.append(float((oracle == (1 - second <= level)).all(axis=1).mean()))
            threshold = confidence_threshold(first, labels[:half], 0.95)
            if threshold is not None:
                above = second.max(axis=1) >= threshold
                if above.any():
                    right = second.argmax(axis=1)[above] == truth[above]
                    guaranteed.append((right.mean(), above.mean()))
        for kind, values in found.items():
            mean, error = np.mean(values, axis=0), np.std([v[0] for v in values]) / np.sqrt(20)
            lines.append(
                f"{name:14} {kind:9} coverage {100 * mean[0]:.1f} +- {100 * error:.1f} %, lowest "
                f"of a class {100 * mean[1]:.1f} %, size {mean[2]:.2f}"
            )
        if mapie:
            lines.append(
                f"{name:14} MAPIE's sets equal the marginal ones before the predicted class is "
                f"added: {100 * np.mean(mapie):.2f} % of images"
            )
        if guaranteed:
            right, predicted = np.mean(guaranteed, axis=0)
            reached = np.mean([accuracy >= 0.95 for accuracy, _ in guaranteed])
            lines.append(
                f"{name:14} threshold for 95 % accuracy: found in {len(guaranteed)} of 20 splits; "
                f"accuracy above it {100 * right:.1f} % on average, at least 95 % in "
                f"{100 * reached:.0f} % of splits, of {100 * predicted:.0f} % of the images"
            )
    return lines


def unknown_cases(rows: dict[str, Rows]) -> list[tuple[str, tuple[int, ...], str]]:
    """(known set, its classes that are unknown, unknown set): five pairs of classes, all sets."""
    cases = []
    for name in SETS:
        pairs = list(itertools.combinations(range(int(rows[name][1].max()) + 1), 2))
        for at in np.random.default_rng(1).permutation(len(pairs))[:5]:
            cases.append((name, pairs[at], ""))
        cases.extend((name, (), other) for other in SETS if other != name)
    return cases


def unknown_images(rows: dict[str, Rows], c: float) -> list[str]:
    lines = [
        "",
        f"## Unknown images, C {c:g}: AUROC of each fixed score and of the choice, and its alarms.",
        "Three quarters of the known images are for training; the others, and the images of two",
        "classes or of another data set, are evaluated. At most 5 % false alarms are stated.",
    ]
    table, seconds, alarms, names = [], [], [], list(SCORES)
    cases = unknown_cases(rows)
    for seed, (name, left_out, other) in enumerate(cases):
        features, labels = rows[name]
        is_known = ~np.isin(labels, left_out)
        known, label = features[is_known], np.unique(labels[is_known], return_inverse=True)[1]
        foreign = rows[other][0][:400] if other else features[~is_known]
        order = np.random.default_rng(seed).permutation(len(label))
        train, test = order[: 3 * len(order) // 4], order[3 * len(order) // 4 :]
        images = np.concatenate([known[test], foreign])
        truth = np.arange(len(images)) >= len(test)
        fit = partial(fit_head, c=c)
        weight, bias = fit(known[train], label[train])
        logits = images @ weight.T + bias
        began = time.perf_counter()
        chosen = unknown.choose(known[train], label[train], None, fit)
        seconds.append((len(train), time.perf_counter() - began))
        areas = [roc_auc_score(truth, chosen.scores(images, logits))]
        head = Head(weight, bias)
        for fixed in SCORES:
            fitted = SCORES[fixed].fit(known[train], label[train], head)
            areas.append(roc_auc_score(truth, SCORES[fixed].score(fitted, images, logits)))
        alarm = chosen.is_unknown(images, logits)
        alarms.append((alarm[~truth].mean(), alarm[truth].mean(), len(test)))
        table.append(areas)
        what = other or "classes " + " and ".join(map(str, left_out))
        fixed_text = " ".join(f"{n} {a:.3f}" for n, a in zip(names, areas[1:], strict=True))
        estimate = "none" if chosen.auroc is None else f"{chosen.auroc:.3f}"
        lines.append(
            f"{name} without {what}: choice {areas[0]:.3f} ({chosen.name}, estimated {estimate}); "
            f"{fixed_text}; false alarms {100 * alarms[-1][0]:.1f} %, found "
            f"{100 * alarms[-1][1]:.1f} %"
        )
    return lines + _summary(np.array(table), names, cases, alarms, seconds)


def _summary(
    areas: np.ndarray,
    names: list[str],
    cases: list[tuple[str, tuple[int, ...], str]],
    alarms: list[tuple[float, float, int]],
    seconds: list[tuple[int, float]],
) -> list[str]:
    near = np.array([not other for *_, other in cases])
    lines = [
        f"mean AUROC, all {areas[:, at].mean():.4f}, classes {areas[near, at].mean():.4f}, other "
        f"sets {areas[~near, at].mean():.4f}: {name}"
        for at, name in enumerate(["choice", *names])
    ]
    fixed = areas[:, 1 : 1 + len(SCORES)]
    best = int(fixed.mean(axis=0).argmax())
    below = areas[:, 0] - fixed[:, best]
    oracle = areas[:, 0] - fixed.max(axis=1)
    images = sum(count for *_, count in alarms)
    found = np.array([share for _, share, _ in alarms])
    false = sum(rate * count for rate, _, count in alarms) / images
    return [
        *lines,
        f"best fixed score by mean: {names[best]}; choice less this: mean {below.mean():+.4f}, "
        f"lowest {below.min():+.4f} in {cases[int(below.argmin())]}; cases below -.03: "
        f"{int((below < -0.03).sum())} of {len(below)}",
        f"choice less the best of the five in each case, known only afterwards: mean "
        f"{oracle.mean():+.4f}, lowest {oracle.min():+.4f}; cases below -.03: "
        f"{int((oracle < -0.03).sum())}",
        f"false alarms of the choice: {100 * false:.2f} % of {images:,} known images; found: "
        f"{100 * found.mean():.1f} % of the unknown on average, "
        f"{100 * found[~near].mean():.1f} % of those of other sets, {100 * found[near].mean():.1f} "
        "% of those of other classes",
        "seconds of a choice by number of images, beside other load: "
        + ", ".join(f"{count}: {value:.2f}" for count, value in sorted(seconds)[::8]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--features", type=Path, default=Path("/tmp/residua-uncertainty"))
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--only", choices=("calibration-intervals", "networks", "prediction-sets"))
    options = parser.parse_args()
    facts = environment(torch.device("cpu"))
    began = time.perf_counter()
    if options.only == "calibration-intervals":
        print("\n".join(calibration_intervals()))
        return
    if options.only == "networks":
        print("\n".join(trained_networks(options.data, options.photos)))
        return
    with single_blas_thread():
        rows = data_sets(options.data, options.features)
        lines = [
            "# intervals, calibration, prediction sets and unknown images",
            f"# {datetime.date.today()}; {facts['device_name']}, {os.cpu_count()} cores, 1 thread; "
            f"residua {facts['residua']}, torch {facts['torch']}, numpy {np.__version__}, scipy "
            f"{scipy.__version__}, Python {platform.python_version()}",
            "# " + ", ".join(f"{name}: {len(row[1])} images" for name, row in rows.items()),
        ]
        if options.only == "prediction-sets":
            print("\n".join(lines + prediction_sets(rows)))
            return
        lines += (
            calibration(rows)
            + calibration_intervals()
            + small_sets(rows)
            + trained_networks(options.data, options.photos)
            + prediction_sets(rows)
            + intervals()
        )
        for c in (1e-3, 1e-1):
            lines += unknown_images(rows, c)
    lines.append(f"# {time.perf_counter() - began:.0f} s, less if the features are cached")
    RESULT.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
