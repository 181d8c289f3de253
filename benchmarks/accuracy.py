"""Test accuracy of the default recipe over seeds, beside logistic regression on the same images.

    python benchmarks/accuracy.py birds6 ../shared/data/birds6 --test-fraction 0.2
    python benchmarks/accuracy.py mnist ../shared/data/mnist --val-fraction 0.1

Each seed fixes split, initialisation, order and augmentation. The test part chooses nothing and is
judged once, by the weights that the validation part chose. Writes results/accuracy-<name>.txt.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from residua.api.training import load
from residua.data.image import read_image
from residua.system.device import environment

RESULTS = Path(__file__).parent / "results"


def logistic(run: Path, data: Path) -> float:
    """Multinomial regression on the same training and test files, at 32x32 pixels."""
    import dataclasses

    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    small = dataclasses.replace(load(run).preprocessing, size=32)
    inputs: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[str]] = {"train": [], "test": []}
    for row in load(run).folder.read_split():
        if row.split in inputs:
            inputs[row.split].append(read_image(data / row.path, small, 10**8).reshape(-1))
            labels[row.split].append(row.label)
    best = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=300))
    best.fit(np.array(inputs["train"]) / 255, labels["train"])
    return float(best.score(np.array(inputs["test"]) / 255, labels["test"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    options, words = parser.parse_known_args()
    facts = environment(torch.device("cpu"))
    lines = [
        f"# test accuracy of `residua train {options.data} {shlex.join(words)}`, "
        f"--seed and --split-seed 0 to {options.seeds - 1}",
        f"# {datetime.date.today()}; {facts['device_name']}, {os.cpu_count()} cores, "
        f"{facts['threads']} threads; residua {facts['residua']}, torch {facts['torch']}, "
        f"Python {platform.python_version()}",
    ]
    accuracies, minutes, baselines = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(options.seeds):
            run = (options.keep or Path(temporary)) / f"{options.name}-{seed}"
            began = time.monotonic()
            subprocess.run(
                [
                    *(sys.executable, "-m", "residua", "train", options.data, *words),
                    *("--seed", str(seed), "--split-seed", str(seed), "--out", str(run)),
                ],
                check=True,
            )
            minutes.append((time.monotonic() - began) / 60)
            scores = json.loads((run / "evaluations" / "test" / "scores.json").read_text())
            accuracies.append(scores["accuracy"])
            config = load(run).config
            line = (
                f"seed {seed}: {config.network.name} at {config.preprocessing.size} px, "
                f"{config.training.epochs} epochs: accuracy {scores['accuracy']:.4f} "
                f"(95 % {scores['interval'][0]:.4f} to {scores['interval'][1]:.4f}, "
                f"{scores['images']} images), {minutes[-1]:.2f} minutes in all"
            )
            data = Path(options.data)
            if data.is_dir() and not list(data.glob("*ubyte*")):
                baselines.append(logistic(run, data))
                line += f"; logistic regression on 32x32 pixels {baselines[-1]:.4f}"
            lines.append(line)
            print(line, flush=True)

    def spread(values: list[float]) -> str:
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.4f} +- {deviation:.4f}"

    lines.append(
        f"mean and standard deviation of {options.seeds} seeds: accuracy {spread(accuracies)}"
        + (f"; logistic regression {spread(baselines)}" if baselines else "")
        + f"; {statistics.mean(minutes):.2f} minutes each"
    )
    print(lines[-1])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"accuracy-{options.name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
