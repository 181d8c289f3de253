"""Exported files of 12 networks against PyTorch: probabilities, classes, size and speed.

    python benchmarks/export_table.py ../shared/data ROWS
    python benchmarks/export_table.py ../shared/data ROWS --networks cifar_resnet20

Every format in every precision that it has. efficientnet_lite0 has its ImageNet weights, and
ImageNet photos; cifar_resnet20 weights trained on CIFAR-10, and its images. There are no trained
weights of the others: they are initialised at random, their norms estimated on photos of birds6,
with a logistic regression as the last layer, so that probabilities differ between images. They have
many close decisions, which int8 changes: results/int8.txt is about trained ones. Files are written
and compared as `residua export` does, but in this process. images/s: median at batch 32.

ROWS is a folder with a JSON file for each network, format and precision: run it again to continue,
delete a file to measure it again. After --minutes no new file is begun. A network has a process of
its own, so a combination that ends the process, or takes too long, becomes a row that says so.
Writes results/exports.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import conditions
from torch import nn

from residua.config.schema import NetworkSpec, Preprocessing
from residua.data.augmentation import normalise
from residua.data.cache import load, survey
from residua.data.dataset import Pixels
from residua.data.image import read_image
from residua.data.open import open_dataset
from residua.exports.classifier import Classifier, description
from residua.exports.formats import FORMATS, Exporter, int8_exporters, quiet_exporters
from residua.exports.images import Images
from residua.exports.proof import Expected, proof_of
from residua.exports.quantisation import CALIBRATION_IMAGES
from residua.exports.worker import outputs_of
from residua.inference.logistic import fit_logistic
from residua.inference.outputs import classifier_of
from residua.networks.staged import pooled
from residua.networks.zoo.catalogue import build_from
from residua.runs.sources import open_weights
from residua.system.console import Console
from residua.system.files import write_atomically
from residua.weights.exported import load_exported
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata, to_bytes
from residua.weights.published.imagenet import RGB

RESULT = Path(__file__).parent / "results" / "exports.txt"
# Side of the images: the smaller, the sooner, and the layers are the same at every size.
NETWORKS = {
    "cifar_resnet20": 32,
    "cifar_wrn16_8": 16,
    "resnet18": 64,
    "resnet18d": 64,
    "preact_resnet18": 64,
    "vgg16": 32,
    "mobilenet_v2": 96,
    "efficientnet_lite0": 224,
    "resnet50": 64,
    "resnet50d": 64,
    "resnext50_32x4d": 64,
    "densenet121": 64,
}
TRAINED = {  # weights, images like those that they were trained on, one of how many is held out
    "cifar_resnet20": (
        "{data}/cifar_resnet_weights/resnet20-12fca82f.th",
        "cifar10_png1k/*/*.png",
        5,
    ),
    "efficientnet_lite0": ("imagenet", "imagenet_photos/*.jpg", 2),
}
COMBINATIONS = [
    (name, precision) for name, kind in FORMATS.items() for precision in kind.precisions
]
BATCH, THREADS = 32, 2
HELD_OUT = 5  # one of so many photos of birds6
COUNTS = {32: None, 7: 14, 1: 2}  # images that are compared at each batch size
ROW_SECONDS = 90  # then a row is given up
SECONDS, ROUNDS = 0.7, 3  # of a speed, at least
MAX_PIXELS = 10**8
ATTEMPTS = 2  # at a row that ended the process


@dataclass(frozen=True)
class Subject:
    """Weights, held-out images, training images for int8, and PyTorch's logits and images/s."""

    weights: Weights
    images: Images
    training: Pixels
    logits: np.ndarray
    rate: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--minutes", type=float, default=13)
    parser.add_argument(
        "--only", choices=NETWORKS, help=argparse.SUPPRESS
    )  # in a process of its own
    options = parser.parse_args()
    options.rows.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))[:THREADS]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    end = time.time() + 60 * options.minutes
    if options.only:
        measure(options.only, options.data, options.rows, end)
        return
    for network in options.networks:
        for _ in range(ATTEMPTS * len(COMBINATIONS)):  # each attempt finishes or fails some rows
            left = end - time.time()
            if left <= 0 or not list(missing(network, options.rows)):
                break
            words = [str(options.data), str(options.rows), "--only", network]
            words += ["--minutes", f"{left / 60:.3f}"]
            done = subprocess.run([sys.executable, __file__, *words])
            if done.returncode not in (0, -signal.SIGINT):
                print(f"{network}: the process ended with status {done.returncode}", flush=True)
    lines = table(options.networks, options.rows)
    print("\n".join(lines))
    if options.networks == list(NETWORKS):
        write_atomically(RESULT, "\n".join(lines) + "\n")


def row_file(rows: Path, network: str, format: str, precision: str) -> Path:
    return rows / f"{network}-{format}-{precision}.json"


def read_row(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}


def missing(network: str, rows: Path) -> Iterator[tuple[str, str]]:
    """Combinations without a row, but for those that ended the process ATTEMPTS times."""
    for format, precision in COMBINATIONS:
        row = read_row(row_file(rows, network, format, precision))
        if not row or row.get("begun", ATTEMPTS) < ATTEMPTS:
            yield format, precision


def measure(network: str, data: Path, rows: Path, end: float) -> None:
    """Write the rows of a network that are missing."""
    began = time.monotonic()
    todo = list(missing(network, rows))
    try:
        with tempfile.TemporaryDirectory() as folder:
            subject = prepared(network, data, Path(folder))
    except Exception as error:
        for format, precision in todo:
            failure = f"the network cannot be prepared: {reason(error)}"
            write_row(rows, network, format, precision, {"failed": failure})
        return
    print(f"{network}: prepared in {time.monotonic() - began:.1f} s", flush=True)
    for format, precision in todo:
        if time.time() > end:
            return
        begun = read_row(row_file(rows, network, format, precision)).get("begun", 0) + 1
        write_row(rows, network, format, precision, {"begun": begun})
        began = time.monotonic()
        try:
            with limited(ROW_SECONDS):
                row = exported_row(subject, format, precision)
        except Exception as error:
            row = {"failed": reason(error)}
        row["seconds"] = round(time.monotonic() - began, 1)
        row["conditions"] = conditions("onnx", "onnxruntime", "openvino")
        row["size"], row["torch_rate"] = NETWORKS[network], subject.rate
        write_row(rows, network, format, precision, row)
        print(json.dumps({"row": f"{network} {format} {precision}"} | row), flush=True)


def write_row(rows: Path, network: str, format: str, precision: str, row: dict[str, Any]) -> None:
    write_atomically(row_file(rows, network, format, precision), json.dumps(row))


def reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError when the time is over; end the process if it does not react."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not finished after {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + 15, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()


def exported_row(subject: Subject, format: str, precision: Any) -> dict[str, Any]:
    """The first file that agrees with PyTorch, else the last one that could be run."""
    kind, row, refused = FORMATS[format], {}, {}  # type: ignore[index]
    exporters = kind.exporters
    if precision == "int8":
        exporters = int8_exporters(format, subject.training)
    text = json.dumps(description(subject.weights, precision))
    example = torch.from_numpy(subject.images.pixels[:2])
    for exporter, write in exporters.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"model{kind.suffix}")
            try:
                row = file_row(subject, write, precision, example, text, file)
            except TimeoutError:
                raise
            except Exception as error:
                refused[exporter] = reason(error)
                continue
        row["exporter"] = exporter
        if not row["problem"] or precision == "int8":  # whose rounding is that of both exporters
            break
        refused[exporter] = row["problem"]
    if not row:
        return {"failed": "; ".join(f"{name}: {why}" for name, why in refused.items())}
    return row | {"refused": refused}


def file_row(
    subject: Subject,
    write: Exporter,
    precision: Any,
    example: torch.Tensor,
    text: str,
    file: Path,
) -> dict[str, Any]:
    began = time.monotonic()
    with quiet_exporters():
        write(Classifier(subject.weights, precision), example, text, file)
    written = time.monotonic() - began
    slow = precision == "fp16" and file.suffix in (".pt2", ".torchscript")
    images = replace(subject.images, pixels=subject.images.pixels[: BATCH if slow else None])
    outputs = outputs_of(file, images.padded(), COUNTS)
    proof = proof_of(outputs, images, Expected(subject.logits[: len(images.padded())]), precision)
    loaded = load_exported(file)
    return {
        "difference": proof.difference,
        "agreement": proof.agreement,
        "problem": proof.problem,
        "images": proof.images,
        "bytes": sum(part.stat().st_size for part in file.parent.iterdir()),
        "rate": speed(loaded.run, images.pixels[:BATCH], once=slow),
        "written": round(written, 1),
    }


def speed(run: Callable[[Pixels], object], images: Pixels, *, once: bool = False) -> float:
    """Images/s, the median of runs after a first one; or of one run."""
    if not once:
        run(images)
    seconds: list[float] = []
    while not seconds or (not once and (len(seconds) < ROUNDS or sum(seconds) < SECONDS)):
        began = time.perf_counter()
        run(images)
        seconds.append(time.perf_counter() - began)
    return len(images) / statistics.median(seconds)


def prepared(network: str, data: Path, folder: Path) -> Subject:
    """The network with a last layer that was fitted on images."""
    if network in TRAINED:
        source, files, share = TRAINED[network]
        weights = open_weights(source.format(data=data), network, Console(quiet=True))
        rule = weights.metadata.preprocessing
        read = [read_image(file, rule, MAX_PIXELS) for file in sorted(data.glob(files))]
        pixels = np.stack(read)
        is_held_out = np.arange(len(pixels)) % share == 0
        training = pixels[~is_held_out]
    else:
        rule = replace(RGB, size=NETWORKS[network])
        pixels, labels = birds(data / "birds6", rule)
        is_held_out = np.arange(len(pixels)) % HELD_OUT == 0
        training = pixels[~is_held_out]
        file = folder / f"{network}.safetensors"
        file.write_bytes(fitted(network, rule, training, labels[~is_held_out]))
        weights = read_file(file)
    images = Images(pixels[is_held_out], None, "held-out images")
    classify = classifier_of(weights, torch.device("cpu"), images=0)  # PyTorch, in float32
    padded = images.padded()
    parts = [classify(padded[start : start + BATCH]) for start in range(0, len(padded), BATCH)]
    chosen = np.linspace(0, len(training) - 1, min(len(training), CALIBRATION_IMAGES)).astype(int)
    rate = speed(classify, images.pixels[:BATCH])
    return Subject(weights, images, training[chosen], np.concatenate(parts), rate)


def birds(folder: Path, rule: Preprocessing) -> tuple[Pixels, np.ndarray]:
    """Images and labels, one class after the other."""
    dataset = open_dataset(str(folder))
    decoded = load(survey(dataset, MAX_PIXELS), rule, "memory")
    return decoded.pixels, np.array([entry.label for entry in dataset.entries])


@torch.inference_mode()
def fitted(name: str, rule: Preprocessing, pixels: Pixels, labels: np.ndarray) -> bytes:
    """The weights file of a random network whose norms have the statistics of these images, with a
    logistic regression as its head."""
    classes = tuple(f"class {label}" for label in range(labels.max() + 1))
    spec = NetworkSpec(name, len(classes), 3, head="linear")
    network = build_from(spec, seed=0).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches

    def features(batch: Pixels) -> torch.Tensor:
        x = normalise(torch.from_numpy(np.ascontiguousarray(batch)), rule)
        return pooled(network.between(x, 0, len(network.stages)), network.pool_size)

    batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    for batch in batches[::3]:
        features(batch)
    network.eval()
    rows = torch.cat([features(batch) for batch in batches]).numpy()
    head = fit_logistic(rows, labels, len(classes), 1e-2)
    assert isinstance(network.head, nn.Linear)
    network.head.weight.copy_(torch.from_numpy(head.weight))
    network.head.bias.copy_(torch.from_numpy(head.bias))
    return to_bytes(network.state_dict(), Metadata(spec, classes, rule, {}))


def table(networks: Sequence[str], rows: Path) -> list[str]:
    """The lines of the result."""
    found = {
        (network, *combination): read_row(row_file(rows, network, *combination))
        for network in networks
        for combination in COMBINATIONS
    }
    measured = sorted({row["conditions"] for row in found.values() if "conditions" in row})
    lines = [
        "# exported files against PyTorch (float32): largest difference of a probability, same",
        f"# top-1 class, size, images/s at batch {BATCH}, and how many times as fast as PyTorch",
        *(f"# {line}" for line in measured),
        f"# {' and '.join(TRAINED)}: trained weights; the others: random weights and a",
        "# fitted last layer, many close decisions. int8 is calibrated on up to "
        f"{CALIBRATION_IMAGES} other images.",
        "# PyTorch's fp16 files are slow on CPUs, so they are compared on one batch.",
        "# refused: `residua export` does not write this file",
    ]
    for network in networks:
        rows_of = [found[network, *combination] for combination in COMBINATIONS]
        title = f"{network} at {NETWORKS[network]} px"
        for row in rows_of:
            if "rate" in row:
                title += f"; PyTorch {row['torch_rate']:,.0f} images/s"
                break
        lines += ["", title]
        for (format, precision), row in zip(COMBINATIONS, rows_of, strict=True):
            lines.append(f"  {format:11s} {precision}  {cells(row)}")
    return lines


def cells(row: dict[str, Any]) -> str:
    """A row in words."""
    if not row:
        return "not measured"
    if "begun" in row:
        return f"failed: the process ended or was stopped, {row['begun']} time(s)"
    if "failed" in row:
        return f"failed: {row['failed']}"
    notes = [f"exporter {row['exporter']}", f"{row['images']} images"]
    if row["problem"]:
        notes.append(f"refused: {row['problem']}")
    other = {name: why for name, why in row["refused"].items() if name != row["exporter"]}
    notes += [f"{name} refused: {why}" for name, why in other.items()]
    return (
        f"{row['difference']:8.1e}  {row['agreement']:7.2%}  {row['bytes'] / 1e6:6.1f} MB  "
        f"{row['rate']:6,.0f} images/s  x {row['rate'] / row['torch_rate']:.2f}  {'; '.join(notes)}"
    )


if __name__ == "__main__":
    main()
