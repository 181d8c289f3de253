"""Seconds from command to first result and to report, and `predict` against OpenVINO by hand.

    python benchmarks/first_answer.py PHOTOS MANY [--repeats 5]     # results/first-answer.txt

PHOTOS: class folders for `residua train PHOTOS --test-fraction 0.2`, with and without OpenVINO.
MANY: a folder of JPEG files for `residua predict imagenet MANY`, against a script of OpenVINO and
Pillow with two threads that runs the same converted network in float32, as one would write it.
Every run is a process of its own; the variants take turns; caches are cold for training. Before
`predict`, the network is converted once, as for the script.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from residua.cli import TUNABLES
from residua.system.device import environment

RESULT = Path(__file__).parent / "results" / "first-answer.txt"
# With the allocator's settings in the environment, the command does not restart itself, which would
# undo WITHOUT.
MAIN = "from residua.__main__ import main; main()"
WITHOUT = "import sys; sys.modules['openvino'] = None; " + MAIN
BY_HAND = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import openvino
from PIL import Image

def read(file):
    image = Image.open(file).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.BICUBIC)
    left, top = ((side - 224) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))

core = openvino.Core()
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
network = core.compile_model(core.read_model(sys.argv[1]), "CPU", settings)
files = sorted(Path(sys.argv[2]).glob("*.jpg"))[: int(sys.argv[3])]
with ThreadPoolExecutor(2) as pool:
    for start in range(0, len(files), 32):
        logits = network([np.stack(list(pool.map(read, files[start : start + 32])))])[0]
        for file, row in zip(files[start : start + 32], logits):
            print(file, row.argmax())
"""


def train(photos: str, code: str, folder: Path) -> tuple[float, float]:
    """Seconds to the first line with an accuracy, and to the end."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-c", code, "train", photos, "--test-fraction", "0.2"]
        began, first = time.monotonic(), 0.0
        with subprocess.Popen(
            [*command, "--out", f"{place}/run"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"RESIDUA_CACHE": f"{place}/cache", "GLIBC_TUNABLES": TUNABLES},
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if not first and "accuracy" in line:
                    first = time.monotonic() - began
        return first, time.monotonic() - began


def seconds_of(command: list[str], cache: Path) -> float:
    began = time.monotonic()
    environment = os.environ | {"RESIDUA_CACHE": str(cache)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.monotonic() - began


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("many")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "cache"
        files = sorted(map(str, Path(given.many).glob("*.jpg")))[: given.images]
        predict = [sys.executable, "-c", MAIN, "predict", "imagenet", *files, "--format", "csv"]
        subprocess.run(
            predict, check=True, capture_output=True, env=os.environ | {"RESIDUA_CACHE": str(cache)}
        )
        (converted,) = cache.glob("engines/*.xml")
        script = folder / "by_hand.py"
        script.write_text(BY_HAND)
        manual = [sys.executable, str(script), str(converted), given.many, str(given.images)]
        for _ in range(given.repeats):
            for variant, code in (("with OpenVINO", MAIN), ("without", WITHOUT)):
                first, total = train(given.photos, code, folder)
                measured.setdefault(f"train {variant}: to the first result", []).append(first)
                measured.setdefault(f"train {variant}: to the report", []).append(total)
            measured.setdefault("predict: residua", []).append(seconds_of(predict, cache))
            measured.setdefault("predict: by hand", []).append(seconds_of(manual, cache))
    facts = environment(torch.device("cpu"))
    ratios = [
        hand / own
        for hand, own in zip(
            measured["predict: by hand"], measured["predict: residua"], strict=True
        )
    ]
    lines = [
        f"seconds, median of {given.repeats} (range), the variants in turn; see first_answer.py",
        f"train: {Path(given.photos).name}, cold caches; predict: {len(files):,} JPEGs, float32",
        f"{facts['device_name']}, {facts['threads']} threads, Python {facts['python']}, torch "
        f"{facts['torch']}, {datetime.now(UTC).date().isoformat()}",
        "",
        *(f"{name:42}{spread(values)}" for name, values in measured.items()),
        "",
        f"predict by hand / residua: {statistics.median(ratios):.2f}",
    ]
    RESULT.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
