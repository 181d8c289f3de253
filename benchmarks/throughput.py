"""Images a second on each leg: reading, decoding, cached reading, augmenting, training.

    python benchmarks/throughput.py ../shared/data/birds6

Medians of the rounds; each leg alone, on the settings that `residua train DATA` chooses.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import residua
from residua.cli import TUNABLES
from residua.data.augmentation import OFF
from residua.data.batches import DecodedImages, TrainingBatches
from residua.data.cache import load, survey
from residua.data.open import open_dataset
from residua.system.device import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if "GLIBC_TUNABLES" not in os.environ:  # as the command line does
        environment_ = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment_)
    with tempfile.TemporaryDirectory() as folder:
        run = residua.train(options.data, out=Path(folder) / "run", epochs=4, quiet=True)
        config, history = run.config, run.history
    source = open_dataset(options.data)
    count = len(source.entries)
    seen = survey(source, config.data.max_pixels)
    decoded = load(seen, config.preprocessing, "memory")
    legs: dict[str, Callable[[], object]] = {
        "reading, hashing and headers": lambda: survey(source, config.data.max_pixels),
        "reading, decoding and resizing": lambda: load(seen, config.preprocessing, "memory"),
    }
    for name, augmentation in (
        ("cached reading and normalising", OFF),
        ("the same with default augmentation", config.augmentation),
    ):
        batches = TrainingBatches(
            DecodedImages(decoded.pixels, torch.device("cpu")),
            np.zeros(count, np.int64),
            np.arange(count),
            classes=config.network.classes,
            batch_size=config.training.batch_size,
            seed=0,
            preprocessing=config.preprocessing,
            augmentation=augmentation,
        )
        legs[name] = lambda batches=batches: [
            batches.batch(0, step) for step in range(batches.steps)
        ]
    facts = environment(torch.device("cpu"))
    lines = [
        f"# images/s, {Path(options.data).name} ({count} images) at "
        f"{config.preprocessing.size} px, median of {options.rounds} (least to most)",
        f"# {datetime.date.today()}; {facts['device_name']}, {os.cpu_count()} cores, "
        f"{facts['threads']} threads; residua {facts['residua']}, torch {facts['torch']}",
    ]
    for name, leg in legs.items():
        leg()
        speeds = []
        for _ in range(options.rounds):
            began = time.perf_counter()
            leg()
            speeds.append(count / (time.perf_counter() - began))
        middle = statistics.median(speeds)
        lines.append(f"{name}: {middle:,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})")
    speeds = [row["images_per_second"] for row in history[1:]]
    lines.append(
        f"training {config.network.name}, batch {config.training.batch_size}, "
        f"{config.training.precision}: {statistics.median(speeds):,.0f} "
        f"({min(speeds):,.0f} to {max(speeds):,.0f})"
    )
    print("\n".join(lines))
    name = f"throughput-{Path(options.data).name}.txt"
    (Path(__file__).parent / "results" / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
