"""Test accuracy and seconds of the default of `residua train`, and of every fixed strategy.

    python benchmarks/default.py run FOLDER NAME=DATA ... --budget 1m --seeds 1
    python benchmarks/default.py table FOLDER --untouched NAME ...   # results/default.txt
    python benchmarks/default.py seeds FOLDER NAME=DATA ... --seeds 3  # results/default-seeds.txt

Each run is a process of its own with a cold cache and the same time budget, evaluated on a test set
that was never used for selection: the data set's own, or a fifth of it. `run` skips what FOLDER has
already; one thread. `seeds` runs the default, with its own time limit and --threads, and the linear
probe alone, `--effort quick`, for some seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from residua.system.device import environment

SEEDS_RESULT = Path(__file__).parent / "results" / "default-seeds.txt"
RESULT = Path(__file__).parent / "results" / "default.txt"
STRATEGIES = {
    "default": (),
    "features": ("--weights", "imagenet", "--transfer", "features"),
    "partial": ("--weights", "imagenet", "--transfer", "partial"),
    "full": ("--weights", "imagenet", "--transfer", "full"),
    "scratch": ("--weights", "none"),
}


def run(folder: Path, data: dict[str, str], budget: str, seeds: int, strategies: list[str]) -> None:
    for seed in range(seeds):
        for name, path in data.items():
            for strategy, words in STRATEGIES.items():
                if strategy not in strategies:
                    continue
                row = folder / f"{name}-{strategy}-{seed}.json"
                if not row.exists():
                    measured = one(folder / "run", path, budget, seed, words)
                    row.write_text(json.dumps({"data": name, "strategy": strategy} | measured))
                    print(row.stem, measured, flush=True)


def one(
    out: Path, data: str, budget: str, seed: int, words: tuple[str, ...], threads: int = 1
) -> dict[str, object]:
    """Accuracy, images, seconds to the first result, and in all."""
    cache = out.with_name("cache")
    for place in (out, cache):
        shutil.rmtree(place, ignore_errors=True)
    has_test = (Path(data) / "test").is_dir() or "mnist" in data
    test = () if has_test else ("--test-fraction", "0.2")
    command = [sys.executable, "-m", "residua", "train", data, *words, *test]
    limit = ("--budget", budget) if budget else ()
    command += [*limit, "--seed", str(seed), "--split-seed", str(seed)]
    began, first = time.monotonic(), None
    with subprocess.Popen(
        [*command, "--out", str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"RESIDUA_CACHE": str(cache), "OMP_NUM_THREADS": str(threads)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if first is None and "accuracy" in line:
                first = time.monotonic() - began
    seconds = time.monotonic() - began
    scores = json.loads((out / "evaluations" / "test" / "scores.json").read_text())
    transfer = out / "transfer.json"
    chosen = json.loads(transfer.read_text()).get("chosen") if transfer.exists() else None
    return {
        "seed": seed,
        "accuracy": scores["accuracy"],
        "images": scores["images"],
        "first": first,
        "seconds": seconds,
        "chosen": chosen,
    }


def table(folder: Path, budget: str, untouched: list[str]) -> None:
    rows = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    facts = environment(torch.device("cpu"))
    lines = [
        f"residua train DATA --budget {budget}: test accuracy; in brackets seconds from command",
        "to saved report, one thread, cold cache. default: chosen by measurement; first: seconds",
        "to its first result; regret: best fixed strategy less the default, points. *: a data set",
        "that was first run after the rules were frozen.",
        f"{facts['device_name']}, Python {facts['python']}, torch {facts['torch']}, "
        f"{datetime.now(UTC).date().isoformat()}; seeds: {1 + max(row['seed'] for row in rows)}",
        "",
        f"{'data':12}"
        + "".join(f"{name:>18}" for name in STRATEGIES)
        + f"{'first':>8}{'chosen':>10}"
        f"{'regret':>8}",
    ]
    regrets = []
    for name in dict.fromkeys(row["data"] for row in rows):
        cells, means = [], {}
        for strategy in STRATEGIES:
            own = [r for r in rows if (r["data"], r["strategy"]) == (name, strategy)]
            if not own:
                cells.append("-".rjust(18))
                continue
            means[strategy] = statistics.mean(r["accuracy"] for r in own)
            seconds = statistics.mean(r["seconds"] for r in own)
            cells.append(f"{means[strategy]:.4f} ({seconds:.0f})".rjust(18))
        own = [r for r in rows if (r["data"], r["strategy"]) == (name, "default")]
        if len(means) < 2 or "default" not in means:
            continue
        best = max(value for strategy, value in means.items() if strategy != "default")
        regrets.append(100 * (best - means["default"]))
        first = statistics.mean(r["first"] or r["seconds"] for r in own)
        chosen = "/".join(sorted({str(r["chosen"]) for r in own}))
        star = "*" if name in untouched else ""
        lines.append(
            f"{name + star:12}" + "".join(cells) + f"{first:8.0f}{chosen:>10}{regrets[-1]:8.2f}"
        )
    lines += ["", f"mean regret {statistics.mean(regrets):.2f}, largest {max(regrets):.2f} points"]
    RESULT.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def seeds_table(folder: Path, threads: int) -> None:
    rows = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    facts = environment(torch.device("cpu"))
    lines = [
        "residua train DATA: mean and standard deviation of the test accuracy, on a test set that",
        "was never used for selection; mean seconds to the first result and to the saved report.",
        f"Default settings and effort; {threads} thread(s), cold cache. probe: --effort quick.",
        f"{facts['device_name']}, Python {facts['python']}, torch {facts['torch']}, "
        f"{datetime.now(UTC).date().isoformat()}",
        "",
        f"{'data':12}{'test images':>12}{'probe':>20}{'accuracy':>20}{'first':>8}{'report':>8}"
        f"{'seeds':>7}  chosen",
    ]
    for name in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == name]
        accuracies = [row["accuracy"] for row in own]
        probes = [row["probe"]["accuracy"] for row in own]
        first = statistics.mean(row["first"] or row["seconds"] for row in own)
        seconds = statistics.mean(row["seconds"] for row in own)
        chosen = "/".join(sorted({str(row["chosen"]) for row in own}))
        lines.append(
            f"{name:12}{own[0]['images']:>12,}{spread_of(probes):>20}{spread_of(accuracies):>20}"
            f"{first:8.0f}{seconds:8.0f}"
            f"{len(own):>7}  {chosen}"
        )
    SEEDS_RESULT.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def spread_of(values: list[float]) -> str:
    """Mean and standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} +- {spread:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("run", "table", "seeds"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", nargs="*", help="NAME=DATA")
    parser.add_argument("--budget", default="1m")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    parser.add_argument("--untouched", nargs="*", default=[])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.action == "run":
        data = dict(d.split("=", 1) for d in given.data)
        run(given.folder, data, given.budget, given.seeds, given.strategies)
    elif given.action == "seeds":
        for seed in range(given.seeds):
            for name, path in (d.split("=", 1) for d in given.data):
                row = given.folder / f"{name}-{seed}.json"
                if not row.exists():
                    folder, threads = given.folder / "run", given.threads
                    probe = one(folder, path, "", seed, ("--effort", "quick"), threads)
                    measured = one(folder, path, "", seed, (), threads)
                    row.write_text(json.dumps({"data": name, "probe": probe} | measured))
                    print(row.stem, measured, flush=True)
        seeds_table(given.folder, given.threads)
    else:
        table(given.folder, given.budget, given.untouched)


if __name__ == "__main__":
    main()
