"""Frozen features once, against the backbone in every epoch; from command to saved head.

    python benchmarks/features.py pretrain  # sources, made here because nothing downloads
    python benchmarks/features.py tutorial  # results/features-against-tutorial.txt
    python benchmarks/features.py last  # adds features of the last stage, which is not chosen there
    python benchmarks/features.py keras --python P   # then Keras 3 on TensorFlow, run by another P
    python benchmarks/features.py tutorial --set flowers5  # with 4,317 images; last, keras too
    python benchmarks/features.py birds  # results/features-resnet50-birds6.txt
    python benchmarks/features.py mnist  # results/features-vgg16-mnist.txt

tutorial and keras: recipe tutorial_frozen_head (tutorial 2: frozen ResNet-50 at 224 px, head of
256, augmentation, batch 32, 10 epochs) and `--transfer features` on birds6, 600 images, or on
flowers5, 4,317, on the same split, each from a cold cache. birds: 500 images as they come, which
is so few that all of them teach and cross-validation judges; and the same with 100 of them kept for
a test.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from residua.system.device import environment

SHARED = Path(__file__).parents[2] / "shared" / "data"
RESULTS = Path(__file__).parent / "results"
KERAS = Path(__file__).parent / "keras_frozen_head.py"
TEST = ("--test-fraction", "0.2")
TITLES = {
    "birds6": "birds6 (480 images to learn and choose, 120 to judge)",
    "flowers5": "all of flowers5 (3,454 images to learn and choose, 863 to judge)",
}


def file_of(name: str) -> Path:
    ending = "" if name == "birds6" else f"-{name}"
    return RESULTS / f"features-against-tutorial{ending}.txt"


def head() -> str:
    facts = environment(torch.device("cpu"))
    return (
        f"# {datetime.date.today()}; {facts['device_name']}, {os.cpu_count()} cores, "
        f"{facts['threads']} threads; residua {facts['residua']}, torch {facts['torch']}, Python "
        f"{platform.python_version()}"
    )


def train(place: Path, name: str, *words: str) -> tuple[float, Path]:
    """Seconds from command to report, and folder, of one run from a cold cache."""
    out, cache = place / "runs" / name, place / "cache"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "residua", "train", *words, "--out", str(out)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "RESIDUA_CACHE": str(cache)},
        check=False,
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return seconds, out


def saved(run: Path, seconds: float) -> float:
    """Seconds from command to saved head, of a run that has just ended after so many seconds."""
    head = run / "last.safetensors"  # of a training, whose best epoch may be an early one
    head = head if head.exists() else run / "best.safetensors"
    return seconds - ((run / "report.html").stat().st_mtime - head.stat().st_mtime)


def judged(run: Path) -> float:
    """Its test accuracy; where it kept no test part, what cross-validation says."""
    scores = run / "evaluations" / "test" / "scores.json"
    if scores.exists():
        return float(json.loads(scores.read_text())["accuracy"])
    return float(json.loads((run / "transfer.json").read_text())["cross_validated"]["accuracy"])


def stage(run: Path) -> str:
    """That features came from, as it was chosen; the last one is what the network itself uses."""
    choices = json.loads((run / "choices.json").read_text())
    chosen = [each["value"] for each in choices if each["setting"] == "network.stage"]
    return str(chosen[0]) if chosen and chosen[0] is not None else "last"


def pretrain(place: Path) -> None:
    flowers = place / "flowers3"
    for name in ("daisy", "rose", "tulip"):
        shutil.copytree(SHARED / "flowers5" / name, flowers / name, dirs_exist_ok=True)
    wanted = {
        "resnet50": ("keras_resnet50", str(flowers), "--size", "64", "--epochs", "6"),
        "vgg16": ("keras_vgg16", str(SHARED / "cifar10_png1k"), "--size", "48", "--epochs", "6"),
    }
    for name, (model, data, *words) in wanted.items():
        settings = ("--set", "optimization.learning_rate=0.01") if name == "vgg16" else ()
        head_of = ("--head", "linear") if name == "vgg16" else ()
        out = place / "sources" / name
        if not (out / "report.html").exists():
            shutil.rmtree(out, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            command = (data, "--model", model, *words, *settings, *head_of, "--out", str(out))
            began = time.monotonic()
            subprocess.run([sys.executable, "-m", "residua", "train", *command], check=True)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def tutorial(place: Path, repeats: int, name: str) -> None:
    """`name`: birds6 or flowers5, all its images."""
    file = file_of(name)
    weights, data = str(place / "sources" / "resnet50"), str(SHARED / name)
    size = ("--size", "224")
    slow = (data, "--recipe", "tutorial_frozen_head", "--weights", weights, *TEST)
    fast = (data, "--weights", weights, "--transfer", "features", *size, *TEST)
    heads: dict[str, list[float]] = {"features": [], "tutorial": []}
    reports: dict[str, list[float]] = {"features": [], "tutorial": []}
    accuracies: dict[str, list[float]] = {"features": [], "tutorial": []}
    stages: list[str] = []
    for repeat in range(repeats):
        for way, words in (("features", fast), ("tutorial", slow)):
            seconds, out = train(place, way, *words, "--seed", str(repeat))
            heads[way].append(saved(out, seconds))
            reports[way].append(seconds)
            accuracies[way].append(judged(out))
            stages += [stage(out)] if way == "features" else []
        print(repeat, heads, reports, accuracies, flush=True)
    to_head, to_report = (
        [slow / fast for slow, fast in zip(found["tutorial"], found["features"], strict=True)]
        for found in (heads, reports)
    )
    lines = [
        f"# frozen ResNet-50 at 224 px on {TITLES[name]}:",
        "# seconds from command to saved head, and to its report; cold cache, bf16; source:",
        "# a ResNet-50 trained for a short while on three flowers of flowers5: accuracies compare",
        "# the two ways, and say nothing of published weights or of other images",
        head(),
        f"features, solved head: {said(heads['features'])} s, with report "
        f"{said(reports['features'])} s, test accuracy {mean(accuracies['features'])}, stage "
        f"{', '.join(stages)}",
        f"tutorial 2, backbone in each of 10 epochs: {said(heads['tutorial'])} s, with report "
        f"{said(reports['tutorial'])} s, test accuracy {mean(accuracies['tutorial'])}",
        f"ratio, interleaved: {said(to_head)} to the saved head, {said(to_report)} to the report",
    ]
    file.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def keras(place: Path, python: str, epochs: int, name: str) -> None:
    """The same weights, files and head in Keras 3 on TensorFlow."""
    images, path = SHARED / name, file_of(name)
    source = place / "sources" / "resnet50"
    file = place / "resnet50.weights.h5"
    command = [sys.executable, "-m", "residua", "weights", "convert", str(source), str(file)]
    subprocess.run(command, check=True)
    split = place / "runs" / "tutorial" / "split.csv"  # with a validation part
    began = time.monotonic()
    done = subprocess.run(
        [python, str(KERAS), str(images), str(split), str(file), str(epochs)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    fast, last_stage = median_of(path, "features"), median_of(path, "stage 4 given")
    add(
        path,
        "Keras",
        f"{done.stdout.strip().splitlines()[-1]}; {seconds:.1f} s from command to saved head, one "
        f"run: {seconds / fast:.1f} times the median of features, {seconds / last_stage:.1f} times "
        "that with stage 4 given",
    )


def last(place: Path, repeats: int, name: str) -> None:
    """Features of the last stage, whatever would be chosen: every image through all layers."""
    weights, path, seconds, accuracies = place / "sources" / "resnet50", file_of(name), [], []
    words = (str(SHARED / name), "--weights", str(weights), "--transfer", "features")
    for repeat in range(repeats):
        options = ("--size", "224", *TEST, "--set", "network.stage=4", "--seed", str(repeat))
        took, out = train(place, "last", *words, *options)
        seconds.append(saved(out, took))
        accuracies.append(judged(out))
    slow = median_of(path, "tutorial")
    add(
        path,
        "stage 4 given",
        f"stage 4 given, not interleaved: {said(seconds)} s, test accuracy {mean(accuracies)}; the "
        f"median of tutorial 2 is {slow / statistics.median(seconds):.2f} times that",
    )


def median_of(path: Path, what: str) -> float:
    """Seconds that the results say of a way."""
    line = next(each for each in path.read_text().splitlines() if each.startswith(what))
    return float(line.partition("median ")[2].split()[0])


def add(path: Path, what: str, line: str) -> None:
    """Put a line to the results, in the place of an older one that begins so."""
    known = [each for each in path.read_text().splitlines() if not each.startswith(what)]
    path.write_text("\n".join([*known, line]) + "\n")
    print(line)


def birds(place: Path, repeats: int) -> None:
    data = place / "birds500"
    if not data.exists():
        for folder in sorted((SHARED / "birds6").iterdir()):
            (data / folder.name).mkdir(parents=True)
            count = 83 + (folder.name < "owl")  # 84 + 84 + 83 x 4 = 500
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy(file, data / folder.name)
    assert len(list(data.glob("*/*.jpg"))) == 500
    weights = str(place / "sources" / "resnet50")
    words = (str(data), "--weights", weights, "--transfer", "features", "--size", "224")
    lines = [
        "# 500 birds6 images at 224 px through ResNet-50, cold cache: seconds from command to",
        "# head fitted, judged, saved and reported; import and decoding included",
        "# engine: PyTorch, norms folded into convolutions, bf16, channels_last",
        head(),
    ]
    for what, options in (("cross-validated", ()), ("100 kept for a test", TEST)):
        seconds, accuracies = [], []
        for repeat in range(repeats):
            took, out = train(place, "birds500", *words, *options, "--seed", str(repeat))
            seconds.append(took)
            accuracies.append(judged(out))
        lines.append(f"{what}: {said(seconds)} s; accuracy {mean(accuracies)} (source: 3 flowers)")
    (RESULTS / "features-resnet50-birds6.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def mnist(place: Path) -> None:
    weights = str(place / "sources" / "vgg16")
    words = (str(SHARED / "mnist"), "--recipe", "vgg16_mnist", "--weights", weights)
    seconds, out = train(place, "mnist", *words)
    result = json.loads((out / "transfer.json").read_text())
    lines = [
        "# all of MNIST (60,000 and 10,000 images) through frozen VGG-16 at 48 px, cold cache:",
        "# seconds from command to head fitted, judged and reported (recipe vgg16_mnist; the",
        "# source is a VGG-16 trained a short while on 1,000 images of CIFAR-10); one run. The",
        "# ten epochs of the tutorial take 670 s on its GPU",
        head(),
        f"{seconds:.1f} s = {seconds / 60:.2f} minutes; test accuracy {judged(out):.4f}; features "
        f"of the training set {result['feature_seconds']:.1f} s",
    ]
    (RESULTS / "features-vgg16-mnist.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def said(values: list[float]) -> str:
    return (
        f"median {statistics.median(values):.2f} of {len(values)} "
        f"({min(values):.2f} to {max(values):.2f})"
    )


def mean(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} +- {deviation:.4f}"


WHATS = ("pretrain", "tutorial", "last", "keras", "birds", "mnist")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=WHATS)
    parser.add_argument("--place", type=Path, default=Path("/tmp/residua-features"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--epochs", type=int, default=10, help="of Keras")
    parser.add_argument("--set", choices=TITLES, default="birds6")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    options.place.mkdir(parents=True, exist_ok=True)
    if options.what == "pretrain":
        pretrain(options.place)
    elif options.what == "tutorial":
        tutorial(options.place, options.repeats, options.set)
    elif options.what == "last":
        last(options.place, options.repeats, options.set)
    elif options.what == "keras":
        keras(options.place, options.python, options.epochs, options.set)
    elif options.what == "birds":
        birds(options.place, options.repeats)
    else:
        mnist(options.place)


if __name__ == "__main__":
    main()
