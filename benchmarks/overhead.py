"""residua's training loop against a bare forward-backward-step loop on the same work.

    python benchmarks/overhead.py

ResNet-32 at batch 128 on cached 32x32 images. The bare loop has the same network, dtype, layout,
optimizer, batch and threads, its batches ready in memory, no augmentation, no log, no bar. The loop
of residua runs as in `residua train`: default augmentation (flip and crop), metering, log, history,
signals, and state and weights files when they are due; its time is the whole epoch's. There is no
part to validate on. Both take turns in one process; medians of the rounds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from residua.cli import TUNABLES
from residua.config import auto
from residua.config.auto import Chooser
from residua.config.parse import with_settings
from residua.config.schema import Config
from residua.data.batches import DecodedImages, TrainingBatches
from residua.networks.zoo.catalogue import build
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.system.device import autocast, environment
from residua.training.loop import fit
from residua.training.optimization import optimizer_for
from residua.training.progress import Task
from residua.weights.native import Metadata
from residua.weights.network import on_device

BATCH, STEPS = 128, 24


def settings() -> Config:
    given = {
        "network.name": "cifar_resnet32",
        "network.classes": 10,
        "preprocessing.size": 32,
        "preprocessing.channels": 3,
        "preprocessing.mean": [120.0] * 3,
        "preprocessing.std": [60.0] * 3,
        "training.epochs": 2,
        "training.batch_size": BATCH,
        "training.device": "cpu",
        "training.precision": "bf16",
        "training.precise_bn_images": 0,
    }
    chooser = Chooser(with_settings(Config(), given))
    auto.choose_training(chooser, [BATCH * STEPS // 10] * 10)
    auto.choose_augmentation(chooser)
    return chooser.config


def bare(config: Config, batches: TrainingBatches) -> float:
    """Images a second of STEPS steps, after a few that warm up."""
    network = on_device(build("cifar_resnet32", classes=10, seed=0), torch.device("cpu")).train()
    optimizer = optimizer_for(network, config.optimization)
    made = [batches.batch(0, step) for step in range(STEPS)]
    ready = [(batch.images, batch.labels) for batch in made]
    for turn in range(2):
        began = time.perf_counter()
        for images, labels in ready:
            with autocast(images.device, "bf16"):
                logits = network(images)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if turn:
            return BATCH * STEPS / (time.perf_counter() - began)
    raise AssertionError


def ours(config: Config, batches: TrainingBatches) -> float:
    """The same of residua's loop: from the end of its first epoch to the end of its second."""
    network = on_device(build("cifar_resnet32", classes=10, seed=0), torch.device("cpu"))
    metadata = Metadata({}, tuple("0123456789"), config.preprocessing, {})
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        task = Task(batches, {}, [BATCH * STEPS // 10] * 10, metadata)
        progress = fit(network, task, config, run, Console(quiet=True))
    first, second = progress.history
    return BATCH * STEPS / (second["seconds"] - first["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if "GLIBC_TUNABLES" not in os.environ:  # as the command line does for both
        environment_ = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment_)
    config = settings()
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH * STEPS, 32, 32, 3), np.uint8)
    batches = TrainingBatches(
        DecodedImages(pixels, torch.device("cpu")),
        np.arange(BATCH * STEPS) % 10,
        np.arange(BATCH * STEPS),
        classes=10,
        batch_size=BATCH,
        seed=0,
        preprocessing=config.preprocessing,
        augmentation=config.augmentation,
    )
    facts = environment(torch.device("cpu"))
    lines = [
        "# residua's loop against a bare loop: ResNet-32, batch 128, 32x32, bf16, channels_last, "
        f"SGD; {options.rounds} rounds of {STEPS} steps, in turns",
        f"# {datetime.date.today()}; {facts['device_name']}, {os.cpu_count()} cores, "
        f"{facts['threads']} threads; residua {facts['residua']}, torch {facts['torch']}; "
        f"augmentation: flip {config.augmentation.flip}, "
        f"crop_padding {config.augmentation.crop_padding}",
    ]
    ratios = []
    for number in range(options.rounds):
        plain, full = bare(config, batches), ours(config, batches)
        ratios.append(plain / full)
        lines.append(
            f"round {number + 1}: bare {plain:.0f} images/s, residua {full:.0f} images/s, "
            f"time ratio {ratios[-1]:.3f}"
        )
        print(lines[-1], flush=True)
    lines.append(
        f"median time ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}): overhead "
        f"{100 * (statistics.median(ratios) - 1):.1f} %"
    )
    print(lines[-1])
    (Path(__file__).parent / "results" / "overhead-resnet32-batch128-bf16.txt").write_text(
        "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
