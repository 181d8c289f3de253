"""How many images should choose the stage of a frozen network and the strength of its head?

    OMP_NUM_THREADS=1 python benchmarks/choosing.py [../shared/data] [--resnet50 RUN]

Again and again a fifth of the images is laid aside. Some of the others choose by
cross-validation, as `--transfer features` does; then the head is fitted on all of the others, and
what was laid aside tells its accuracy. The networks are ResNets for CIFAR-10 with published
weights, at 32 px, and the run of benchmarks/features.py pretrain, a ResNet-50 at 64 px. Writes
results/choosing.txt.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from small_data import WEIGHTS, Cached, features

from residua.inference.logistic import fit_logistic, folds_of
from residua.system.device import environment
from residua.transfer.cross_validation import C_VALUES, Targets, race

RESULTS = Path(__file__).parent / "results" / "choosing.txt"
DRAWS = 5
MOST = (500, 1_000, 2_000, 5_000)


def draw(cached: Cached, seed: int) -> list[tuple[int, str, float, float]]:
    """For each number of images that choose: it, the choice, the accuracy, seconds to choose."""
    order = np.random.default_rng(seed).permutation(len(cached.labels))
    aside, others = np.split(order, [len(order) // 5])
    classes, found = int(cached.labels.max()) + 1, []
    for most in MOST:
        some = others[:most]
        labels = cached.labels[some]
        began = time.perf_counter()
        folds = folds_of(labels, [str(each) for each in some], seed)
        probes = race([each[some] for each in cached.stages], Targets(labels, classes), folds)
        seconds = time.perf_counter() - began
        losses = np.stack([each.loss.mean(axis=0) for each in probes])
        stage, strength = divmod(int(losses.argmin()), len(C_VALUES))
        rows = cached.stages[stage]
        head = fit_logistic(rows[others], cached.labels[others], classes, C_VALUES[strength])
        answers = (rows[aside] @ head.weight.T + head.bias).argmax(axis=1)
        accuracy = float((answers == cached.labels[aside]).mean())
        found.append((len(some), f"{stage + 1}:{C_VALUES[strength]:g}", accuracy, seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    runs = Path("/tmp/residua-features/sources/resnet50")
    parser.add_argument("--resnet50", type=Path, default=runs)
    options = parser.parse_args()
    resnet56 = options.data / "cifar_resnet_weights" / WEIGHTS["resnet56"]
    facts = environment(torch.device("cpu"))
    lines = [
        "# images that choose stage and strength by cross-validation -> accuracy of the head",
        "# fitted on four fifths of all, on the fifth laid aside; difference: to the most images",
        f"# that chose in the same of {DRAWS} draws; choices: stage:strength",
        f"# {datetime.date.today()}; {facts['device_name']}, {os.cpu_count()} cores, 1 thread; "
        f"residua {facts['residua']}, torch {facts['torch']}, Python {platform.python_version()}",
        "data      network   choose   accuracy   difference (each draw), points   seconds  choices",
    ]
    for data, name, weights in (
        ("flowers5", "resnet56", resnet56),
        ("flowers5", "resnet50", options.resnet50 / "best.safetensors"),
        ("mnist", "resnet56", resnet56),
    ):
        cached = features(weights, str(options.data / data))
        draws = [draw(cached, seed) for seed in range(DRAWS)]
        for place in range(len(MOST)):
            own = [each[place] for each in draws]
            less = [100 * (each[place][2] - each[-1][2]) for each in draws]
            lines.append(
                f"{data:<10}{name:<10}{own[0][0]:>6}{np.mean([each[2] for each in own]):>11.4f}"
                f"{np.mean(less):>+10.2f} ({', '.join(f'{each:+.2f}' for each in less)})"
                f"{np.mean([each[3] for each in own]):>8.1f}  {' '.join(each[1] for each in own)}"
            )
            print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
