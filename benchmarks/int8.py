"""Accuracy that int8 loses, on thousands of held-out images, over seeds.

    python benchmarks/int8.py ../shared/data ROWS
    python benchmarks/int8.py ../shared/data ROWS --variants 3

A linear probe on efficientnet_lite0 (ImageNet weights) on 800 photos of flowers5, evaluated on 40 %
of all, and cifar_resnet14, trained on 6,000 images of MNIST, evaluated on its 10,000 test images.
Each seed is another split, initialisation and order of training. The files are ONNX, as `residua
export --precision int8` writes them, and with changes of the quantisation; --variants: how many.

ROWS is a folder with the runs, and one JSON file for each data set, seed and variant: run it again
to continue. After --minutes nothing new is begun. Writes results/int8.txt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from conditions import conditions

import residua
from residua.data.dataset import Pixels
from residua.evaluation.score import Evaluation
from residua.exports.classifier import INPUT, Classifier
from residua.exports.formats import FORMATS, quiet_exporters
from residua.exports.images import images_of
from residua.exports.quantisation import CALIBRATION_IMAGES, quantise
from residua.runs.folder import RunFolder
from residua.runs.sources import run_weights
from residua.system.console import Console
from residua.system.files import write_atomically

RESULT = Path(__file__).parent / "results" / "int8.txt"
RUNS: dict[str, dict[str, Any]] = {  # arguments of residua.train
    "flowers5": {
        "transfer": "features",
        "test_fraction": 0.4,
        "settings": {"network.pool_size": 1, "training.max_images": 800},  # last layer alone
    },
    "mnist": {
        "model": "cifar_resnet14",
        "epochs": 2,
        "batch_size": 32,
        "val_fraction": 0.0,
        "settings": {"training.max_images": 6000},
    },
}
SEEDS, BATCH = 3, 32
# Variant -> arguments of quantize_static, and how many images calibrate.
Variant = Callable[[Path], tuple[dict[str, Any], int]]
VARIANTS: dict[str, Variant] = {
    "as exported": lambda file: ({}, CALIBRATION_IMAGES),
    "every layer in int8": lambda file: ({"nodes_to_exclude": []}, 256),
    "last layer in float32": lambda file: ({"nodes_to_exclude": layers(file)[-1:]}, 256),
    "8-bit kernels": lambda file: ({"reduce_range": False}, 256),
    "averaged range": lambda file: ({"extra_options": {"CalibMovingAverage": True}}, 256),
    "32 images": lambda file: ({}, 32),
    "one scale per kernel": lambda file: ({"per_channel": False}, 256),
}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--sets", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--variants", type=int, default=1, choices=range(1, len(VARIANTS) + 1))
    parser.add_argument("--minutes", type=float, default=4.5)
    options = parser.parse_args()
    options.rows.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    variants = list(VARIANTS)[: options.variants]
    for seed in range(options.seeds):
        for name in options.sets:
            todo = [v for v in variants if not row_file(options.rows, name, seed, v).exists()]
            if todo and time.monotonic() < end:
                try:
                    measure(options.data / name, seed, todo, options.rows, end)
                except residua.ResiduaError as error:
                    print(f"{name}, seed {seed}: {error}", flush=True)
    lines = table(options.sets, options.seeds, options.rows)
    print("\n".join(lines))
    if options.sets == list(RUNS):
        write_atomically(RESULT, "\n".join(lines) + "\n")


def row_file(rows: Path, name: str, seed: int, variant: str) -> Path:
    return rows / f"{name}-{seed}-{variant.replace(' ', '-')}.json"


def measure(data: Path, seed: int, variants: list[str], rows: Path, end: float) -> None:
    """Train the run if it is missing, and write the rows of some variants."""
    run = trained(data, seed, rows)
    evaluation = residua.evaluate(run.path)
    weights = run_weights(run)
    training = images_of(
        weights, run, run.read_split(), "train", Console(quiet=True), CALIBRATION_IMAGES
    ).pixels
    with tempfile.TemporaryDirectory() as folder:
        plain, int8 = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        (write, *_) = FORMATS["onnx"].exporters.values()
        with quiet_exporters():
            write(Classifier(weights, "fp32"), torch.from_numpy(training[:2]), "{}", plain)
        for variant in variants:
            if time.monotonic() > end:
                return
            began, (changes, count) = time.monotonic(), VARIANTS[variant](plain)
            images = spread(training, count)
            row: Row = {"network": weights.metadata.network.name, "images": len(images)}
            try:
                quantise(plain, int8, images, changes)
                row |= compared(int8, evaluation)
            except Exception as error:
                row["failed"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            row["seconds"] = round(time.monotonic() - began, 1)
            row["conditions"] = conditions("onnxruntime")
            write_atomically(row_file(rows, data.name, seed, variant), json.dumps(row))
            print(json.dumps({"row": f"{data.name}, seed {seed}, {variant}"} | row), flush=True)


def trained(data: Path, seed: int, rows: Path) -> RunFolder:
    """The run of a seed, with the name that it gets when it is finished."""
    path, began = rows / f"{data.name}-{seed}", time.monotonic()
    if not path.exists():
        unfinished = path.with_name(f"{path.name}-unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        residua.train(
            data, seed=seed, split_seed=seed, out=unfinished, quiet=True, **RUNS[data.name]
        )
        unfinished.rename(path)
        print(f"{path.name}: trained in {time.monotonic() - began:.0f} s", flush=True)
    return RunFolder.existing(path)


def layers(file: Path) -> list[str]:
    """Names of the convolutions and linear layers, in order."""
    nodes = onnx.load(file).graph.node
    return [node.name for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]


def spread(images: Pixels, count: int) -> Pixels:
    return images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]


def compared(file: Path, evaluation: Evaluation) -> Row:
    """Decisions of an int8 file and of the run itself for the same images."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    pixels, labels = evaluation.pixels, evaluation.labels
    starts, began = range(0, len(pixels), BATCH), time.monotonic()
    parts = [session.run(["logits"], {INPUT: pixels[at : at + BATCH]})[0] for at in starts]
    best, expected = np.concatenate(parts).argmax(1), evaluation.logits.argmax(1)
    return {
        "held_out": len(labels),
        "accuracy": float((expected == labels).mean()),
        "only_float32": int(((expected == labels) & (best != labels)).sum()),
        "only_int8": int(((expected != labels) & (best == labels)).sum()),
        "agreement": float((best == expected).mean()),
        "rate": len(labels) / (time.monotonic() - began),
        "bytes": file.stat().st_size,
    }


def table(sets: list[str], seeds: int, rows: Path) -> list[str]:
    """The lines of the result."""
    found: dict[tuple[str, str], list[Row]] = {}
    for name in sets:
        for variant in VARIANTS:
            files = [row_file(rows, name, seed, variant) for seed in range(seeds)]
            found[name, variant] = [json.loads(file.read_text()) for file in files if file.exists()]
    measured = sorted({row["conditions"] for entries in found.values() for row in entries})
    lines = [
        "# accuracy lost by int8 in points: mean over seeds (each seed +- 95 % by the images that",
        "# only one of both classifies correctly, McNemar); same top-1 class as float32",
        *(f"# {line}" for line in measured),
    ]
    for name in sets:
        of_set = [row for key, entries in found.items() if key[0] == name for row in entries]
        lines += ["", f"{name}: {next(titles(of_set), 'not measured')}"]
        for variant in VARIANTS:
            if entries := found[name, variant]:
                lines.append(f"  {variant:22s} {cells(entries)}")
    return lines


def titles(entries: list[Row]) -> Iterator[str]:
    for row in entries:
        if "accuracy" in row:
            yield (
                f"{row['network']}, {row['held_out']:,} held-out images for each seed; "
                f"float32 accuracy {row['accuracy']:.4f} (first seed)"
            )


def cells(entries: list[Row]) -> str:
    """Rows of a variant in words, one for each seed."""
    usable = [row for row in entries if "failed" not in row]
    failures = [row["failed"] for row in entries if "failed" in row]
    if not usable:
        return f"failed: {failures[0]}"
    lost, parts = [], []
    for row in usable:
        only, images = (row["only_float32"], row["only_int8"]), row["held_out"]
        lost.append(100 * (only[0] - only[1]) / images)
        error = ((sum(only) - (only[0] - only[1]) ** 2 / images) ** 0.5) / images
        parts.append(f"{lost[-1]:+.2f} +- {196 * error:.2f}")
    return (
        f"lost {statistics.mean(lost):+.2f} ({', '.join(parts)}); same top-1 "
        f"{statistics.mean(row['agreement'] for row in usable):.2%}; "
        f"{usable[0]['bytes'] / 1e6:.1f} MB; {usable[0]['images']} calibration images"
        + "".join(f"; a seed failed: {failure}" for failure in failures)
    )


if __name__ == "__main__":
    main()
