"""Accuracy and seconds of every way of transferring, and of auto, at equal wall time.

    python benchmarks/transfer.py prepare --fashion FOLDER  # sources are pretrained here, offline
    python benchmarks/transfer.py run                       # every pair, way and seed; resumable
    python benchmarks/transfer.py table                     # results/transfer-strategies.txt

Sources: a network trained by the default recipe on digits 0 to 4, on three of the flowers, on
Fashion-MNIST (class folders under FOLDER/train), and the CIFAR-10 ResNet-20 of ../shared/data.
Each run is a process of its own with --budget, judged on a test part that chose nothing. `run
--lane I/N` takes every N-th piece of work; the lanes share the processor's cores.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from residua.system.device import environment

SHARED = Path(__file__).parents[2] / "shared" / "data"
RESULTS = Path(__file__).parent / "results"
WAYS = ("features", "partial", "full", "scratch", "auto")
FEW = 200


@dataclass(frozen=True)
class Pair:
    """Weights and images. scenario: of tutorial 3, by how many and how near the images are.
    untouched: whether the rules of auto were made without it."""

    source: str
    target: str
    scenario: str
    words: tuple[str, ...] = ("--test-fraction", "0.3")
    untouched: bool = False


PAIRS = {
    "digits 0-4 -> digits 5-9, all": Pair("digits04", "digits59", "large and near, 4", ()),
    "digits 0-4 -> digits 5-9, 200": Pair("digits04", "digits59-200", "small and near, 1", ()),
    "CIFAR-10 -> birds6": Pair("cifar10", "birds6", "small and near, 1"),
    "digits 0-4 -> birds6": Pair("digits04", "birds6", "small and far, 2"),
    "CIFAR-10 -> MNIST, all": Pair("cifar10", "mnist", "large and far, 3", ()),
    "fashion -> birds6": Pair("fashion", "birds6", "small and far, 2"),
    "3 flowers -> 2 others": Pair("flowers3", "flowers2", "large and near, 4"),
    "CIFAR-10 -> flowers5": Pair("cifar10", "flowers5", "large and near, 4", untouched=True),
    "3 flowers -> CIFAR-10, 1,000": Pair(
        "flowers3", "cifar10_png1k", "small and far, 2", untouched=True
    ),
}


def read_idx(path: Path) -> np.ndarray:
    content = gzip.decompress(path.read_bytes())
    sides = struct.unpack_from(f">{content[3]}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(sides)


def digits(folder: Path, low: int, high: int, most: int | None = None) -> None:
    """MNIST's digits low to high, the first `most` training ones, all of the test part."""
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(SHARED / "mnist" / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(SHARED / "mnist" / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = np.flatnonzero((labels >= low) & (labels <= high))
        for at in chosen[:most] if part == "train" else chosen:
            file = folder / part / str(labels[at]) / f"{at:05}.png"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[at]).save(file)


def residua(*words: str, threads: int | None = None) -> float:
    """Run the command line; seconds."""
    limited = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    began = time.monotonic()
    command = [sys.executable, "-m", "residua", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **limited}, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
    return time.monotonic() - began


def prepare(place: Path, fashion: Path | None) -> None:
    digits(place / "data" / "digits04", 0, 4)
    digits(place / "data" / "digits59", 5, 9)
    digits(place / "data" / f"digits59-{FEW}", 5, 9, FEW)
    for name in ("daisy", "rose", "tulip", "dandelion", "sunflower"):
        group = "flowers2" if name in ("dandelion", "sunflower") else "flowers3"
        target = place / "data" / group / name
        shutil.copytree(SHARED / "flowers5" / name, target, dirs_exist_ok=True)
    (place / "sources").mkdir(exist_ok=True)
    wanted = {
        "digits04": (str(place / "data" / "digits04"), "--epochs", "4"),
        "flowers3": (str(place / "data" / "flowers3"), "--model", "resnet18", "--size", "64"),
    }
    if fashion is not None:
        wanted["fashion"] = (str(fashion / "train"), "--epochs", "2")
    for name, words in wanted.items():
        out = place / "sources" / name
        if not (out / "report.html").exists():
            shutil.rmtree(out, ignore_errors=True)
            seconds = residua("train", *words, "--out", str(out))
            print(f"{name}: {seconds:.0f} s, {last_accuracy(out)}", flush=True)


def last_accuracy(run: Path) -> str:
    for part in ("test", "validation"):
        scores = run / "evaluations" / part / "scores.json"
        if scores.exists():
            return f"{part} accuracy {json.loads(scores.read_text())['accuracy']:.4f}"
    return "not judged"


def source_of(place: Path, name: str) -> str:
    if name == "cifar10":
        return str(SHARED / "cifar_resnet_weights" / "resnet20-12fca82f.th")
    return str(place / "sources" / name)


def target_of(place: Path, name: str) -> str:
    own = place / "data" / name
    return str(own if own.exists() else SHARED / name)


def run(place: Path, budget: str, seeds: int, lane: str, only: str | None) -> None:
    mine, lanes = map(int, lane.split("/"))
    work = [
        (pair, seed, way)
        for seed in range(seeds)
        for pair in PAIRS
        for way in WAYS
        if only is None or only in pair
    ]
    for pair, seed, way in work[mine::lanes]:
        own = PAIRS[pair]
        name = f"{list(PAIRS).index(pair)}-{way}-{seed}"
        row = place / "rows" / f"{name}.json"
        if row.exists():
            continue
        out, cache = place / "runs" / name, place / "caches" / name
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)
        os.environ["RESIDUA_CACHE"] = str(cache)
        seconds = residua(
            *("train", target_of(place, own.target), "--weights", source_of(place, own.source)),
            *("--transfer", way, "--budget", budget, *own.words, "--out", str(out)),
            *("--seed", str(seed), "--split-seed", str(seed)),
            threads=max(1, (os.cpu_count() or 1) // lanes),
        )
        scores = json.loads((out / "evaluations" / "test" / "scores.json").read_text())
        found = {"pair": pair, "way": way, "seed": seed, "seconds": seconds}
        found |= {"accuracy": scores["accuracy"], "images": scores["images"]}
        measured = out / "transfer.json"
        if way == "auto":
            facts = json.loads(measured.read_text())
            found |= {"chosen": facts["chosen"], "scenario": facts["scenario"]["number"]}
            found["trials"] = facts["trials"]
        row.parent.mkdir(exist_ok=True)
        row.write_text(json.dumps(found))
        shutil.rmtree(out)
        shutil.rmtree(cache, ignore_errors=True)
        print(
            f"{pair}, seed {seed}, {way}: {scores['accuracy']:.4f} in {seconds:.1f} s", flush=True
        )


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} +- {deviation:.4f}"


def table(place: Path, budget: str, lanes: int) -> None:
    rows = [json.loads(each.read_text()) for each in sorted((place / "rows").glob("*.json"))]
    facts = environment(torch.device("cpu"))
    lines = [
        "# test accuracy (mean +- standard deviation over seeds) and seconds from command to saved",
        f"# run, of every way of `residua train TARGET --weights SOURCE --transfer WAY --budget "
        f"{budget}`; cold cache; {lanes} runs at a time, each with one thread",
        f"# {datetime.date.today()}; {facts['device_name']}, {os.cpu_count()} cores; residua "
        f"{facts['residua']}, torch {facts['torch']}, Python {platform.python_version()}",
        "# regret: mean accuracy of the best fixed way less that of auto, points; (*): the rules "
        "of auto were frozen before this pair was ever run",
        "# beside each pair the scenario of tutorial 3 that it was made for, behind auto's choice "
        "the one that it names: it can where it tried a network from nothing",
    ]
    regrets = []
    for pair, about in PAIRS.items():
        own = [each for each in rows if each["pair"] == pair]
        if not own:
            continue
        lines.append(f"{pair} ({about.scenario}){' (*)' if about.untouched else ''}")
        means = {}
        for way in WAYS:
            these = [each for each in own if each["way"] == way]
            if not these:
                continue
            accuracies = [each["accuracy"] for each in these]
            means[way] = statistics.mean(accuracies)
            seconds = [each["seconds"] for each in these]
            line = f"  {way:<9} {spread(accuracies)}  {statistics.mean(seconds):5.1f} s"
            if way == "auto":
                chosen = ", ".join(
                    f"{each['chosen']} ({each['scenario'] or 'not measured'})" for each in these
                )
                line += f"  chose (scenario): {chosen}"
            lines.append(line)
        if "auto" in means and len(means) > 1:
            best = max(value for way, value in means.items() if way != "auto")
            regrets.append(100 * (best - means["auto"]))
            lines.append(f"  regret    {regrets[-1]:.2f} points")
    if regrets:
        lines.append(
            f"mean regret over {len(regrets)} pairs {statistics.mean(regrets):.2f} points, largest "
            f"{max(regrets):.2f}"
        )
    print("\n".join(lines))
    (RESULTS / "transfer-strategies.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("prepare", "run", "table"))
    parser.add_argument("--place", type=Path, default=Path("/tmp/residua-transfer"))
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lane", default="0/1")
    parser.add_argument("--only")
    options = parser.parse_args()
    options.place.mkdir(parents=True, exist_ok=True)
    if options.what == "prepare":
        prepare(options.place, options.fashion)
    elif options.what == "run":
        run(options.place, options.budget, options.seeds, options.lane, options.only)
    else:
        table(options.place, options.budget, int(options.lane.partition("/")[2]))


if __name__ == "__main__":
    main()
