"""Does the 95 % CI of `cross_validation.estimate` cover the accuracy of a head on few images?

    OMP_NUM_THREADS=1 python benchmarks/small_data.py [../shared/data] [--jobs 2]
    OMP_NUM_THREADS=1 python benchmarks/small_data.py --more NAME=FOLDER ... [--jobs 2]

Again and again a small set is drawn, as many images of each class; the stage of the network and
the strength are chosen on it by cross-validation, the head is fitted on all of it, and all images
that were not drawn tell its true accuracy (the mean over the classes, since the small set has as
many of each). The 95 % interval, made from the small set alone, should hold it in 95 % of draws.

The network is a ResNet for CIFAR-10 with published weights, at 32 px, frozen; with --more, it is
the installed EfficientNet-Lite0, and the folders of images have chosen nothing. --jobs: repetitions
at a time, each on one thread. Writes results/small-data-interval.txt, with --more
results/small-data-interval-lite0.txt.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import residua
from residua.data.augmentation import normalise
from residua.data.dataset import Unreadable
from residua.data.image import resize
from residua.data.open import open_dataset
from residua.inference.logistic import fit_logistic, folds_of
from residua.networks.staged import pooled
from residua.runs.sources import open_weights
from residua.system.console import Console
from residua.system.device import environment
from residua.transfer.cross_validation import C_VALUES, Targets, measured_gain, race
from residua.transfer.expected_accuracy import estimate
from residua.uncertainty.intervals import wilson_interval
from residua.weights.network import build_network

RESULTS = Path(__file__).parent / "results"
WEIGHTS = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.th",
    "resnet56": "resnet56-4bfd9763.th",
}
REPETITIONS = {5: 600, 20: 500, 100: 200}
MORE = {5: 150, 10: 150, 20: 150}  # repetitions with the installed weights
MOST = 20_000  # images of a data set that take part
# What found the constants of `estimate`, and what confirms them; weights, images a class.
FOUND = (("flowers5", "resnet20 resnet56", (5, 20, 100)), ("digits", "resnet56", (5, 20)))
CONFIRMED = (("mnist", "resnet20 resnet56", (5, 20, 100)), ("birds6", "resnet32", (5,)))
HEADINGS = (
    f"{'data':<9}{'weights':<10}{'images':>8}{'repeti-':>9}{'true':>8}{'plain':>8}{'esti-':>8}"
    f"{'cover-':>8}{'':>8}{'':>8}{'to':>8}{'cover of':>10}   stages",
    f"{'':<9}{'':<10}{'a class':>8}{'tions':>9}{'mean':>8}{'mean':>8}{'mate':>8}"
    f"{'age':>8}{'+-':>8}{'width':>8}{'Wilson':>8}{'plain':>10}   chosen",
)


@dataclass(frozen=True, eq=False)
class Cached:
    """Features of each stage, float32 [N, C], and labels int64 [N]."""

    stages: list[np.ndarray]
    labels: np.ndarray


def features(weights_file: Path | str, data: str) -> Cached:
    """What every stage of a network says of the images, averaged over each map."""
    weights = open_weights(weights_file, None, Console(quiet=True))
    network = build_network(weights, torch.device("cpu"))
    source, preprocessing = open_dataset(data), weights.metadata.preprocessing
    rows = np.random.default_rng(0).permutation(len(source.entries))[:MOST]
    pixels, labels = [], []
    for row in rows.tolist():
        try:
            found = source.pixels(row, source.content(row), preprocessing.channels, 10**8)
        except Unreadable:
            continue
        pixels.append(resize(found, preprocessing))
        labels.append(source.entries[row].label)
    batches = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(pixels), 64):
            images = torch.from_numpy(np.stack(pixels[start : start + 64]))
            maps = network.features(normalise(images, preprocessing))
            batches.append([pooled(each.float(), 1).numpy() for each in maps])
    stages = [np.concatenate(each) for each in zip(*batches, strict=True)]
    return Cached(stages, np.array(labels, np.int64))


def repetition(cached: Cached, images: int, seed: int) -> dict[str, float]:
    """One small set: what is said of its head, and what is true."""
    random = np.random.default_rng((seed, images))
    classes = int(cached.labels.max()) + 1
    places = [np.flatnonzero(cached.labels == k) for k in range(classes)]
    rows = np.concatenate([random.permutation(each)[:images] for each in places])
    rest = np.setdiff1d(np.arange(len(cached.labels)), rows)
    labels = cached.labels[rows]
    targets = Targets(labels, classes, contents=[str(row) for row in rows], seed=seed)
    folds = folds_of(labels, targets.contents, seed)
    probes = race([stage[rows] for stage in cached.stages], targets, folds)
    rights = np.concatenate([each.correct for each in probes], axis=1)
    losses = np.concatenate([each.loss for each in probes], axis=1)
    stage, strength = divmod(int(losses.mean(axis=0).argmin()), len(C_VALUES))
    head = fit_logistic(cached.stages[stage][rows], labels, classes, C_VALUES[strength])
    answers = (cached.stages[stage][rest] @ head.weight.T + head.bias).argmax(axis=1)
    correct, wanted = answers == cached.labels[rest], cached.labels[rest]
    truth = float(np.mean([correct[wanted == k].mean() for k in range(classes)]))
    gain = measured_gain(cached.stages[stage][rows], targets, folds, probes[stage])
    said = estimate(rights, losses, seed, gain=gain)
    plain = int(rights[:, losses.mean(axis=0).argmin()].sum())
    low, high = wilson_interval(plain / len(rows), len(rows))
    same = wilson_interval(round(said.accuracy * len(rows)) / len(rows), len(rows))
    return {
        "truth": truth,
        "plain": plain / len(rows),
        "estimate": said.accuracy,
        "covers": said.interval[0] <= truth <= said.interval[1],
        "width": said.interval[1] - said.interval[0],
        "wilson": same[1] - same[0],
        "plain covers": low <= truth <= high,
        "stage": stage,
    }


def cell(cached: Cached, data: str, weights: str, images: int, number: int, jobs: int) -> str:
    """A row of the table."""
    with ProcessPoolExecutor(jobs) as pool:
        seeds = range(1_000_000, 1_000_000 + number)
        rows = list(pool.map(partial(repetition, cached, images), seeds, chunksize=10))
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    error = math.sqrt(mean["covers"] * (1 - mean["covers"]) / number)
    stages = np.bincount([int(row["stage"]) for row in rows], minlength=len(cached.stages))
    return (
        f"{data:<9}{weights:<10}{images:>8}{number:>9}{mean['truth']:>8.3f}{mean['plain']:>8.3f}"
        f"{mean['estimate']:>8.3f}{mean['covers']:>8.3f}{error:>8.3f}{mean['width']:>8.3f}"
        f"{mean['width'] / mean['wilson']:>8.2f}{mean['plain covers']:>10.3f}   "
        + "/".join(map(str, stages))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--more", nargs="+", metavar="NAME=FOLDER")
    options = parser.parse_args()
    root, jobs = options.data, options.jobs
    torch.set_num_threads(1)
    facts, began = environment(torch.device("cpu")), time.monotonic()
    network = "the installed EfficientNet-Lite0" if options.more else "ResNets of CIFAR-10 at 32 px"
    lines = [
        "# coverage of the 95 % CI of residua.transfer.cross_validation.estimate: heads on frozen "
        f"{network},",
        f"# stage and one of {len(C_VALUES)} strengths chosen on the small set; true: accuracy of "
        "the finished head on all images not drawn",
        "# plain: cross-validated accuracy of what was chosen, with Wilson's interval; to Wilson: "
        "mean width beside that of Wilson's at the estimate",
        f"# {datetime.date.today()}; {facts['device_name']}, {os.cpu_count()} cores, "
        f"{jobs} at a time on one thread each; residua {residua.__version__}, "
        f"torch {facts['torch']}, numpy {np.__version__}, Python {platform.python_version()}",
    ]
    print("\n".join(lines), flush=True)
    tables = (
        ("data sets on which the constants were found (other draws)", FOUND),
        ("data sets that chose nothing", CONFIRMED),
    )
    for title, plan in () if options.more else tables:
        lines += ["", title, *HEADINGS]
        print("\n".join(lines[-4:]), flush=True)
        for data, names, cells in plan:
            for name in names.split():
                place = data if data == "digits" else str(root / data)
                cached = features(root / "cifar_resnet_weights" / WEIGHTS[name], place)
                for images in cells:
                    lines.append(cell(cached, data, name, images, REPETITIONS[images], jobs))
                    print(lines[-1], flush=True)
    if options.more:
        lines += ["", *HEADINGS]
    for named in options.more or ():
        data, _, folder = named.partition("=")
        cached = features("imagenet", folder)
        for images, number in MORE.items():
            if np.bincount(cached.labels).min() >= 2 * images:
                lines.append(cell(cached, data, "lite0", images, number, jobs))
                print(lines[-1], flush=True)
    lines += ["", f"{(time.monotonic() - began) / 60:.1f} minutes in all"]
    RESULTS.mkdir(exist_ok=True)
    name = "small-data-interval-lite0.txt" if options.more else "small-data-interval.txt"
    (RESULTS / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
