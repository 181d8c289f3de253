"""Seconds from command to first result and to report, and `predict` against OpenVINO by hand.

    python benchmarks/first_result.py train PHOTOS ... [--repeats 5]
    python benchmarks/first_result.py predict MANY [--repeats 5]

train: `residua train PHOTOS --test-fraction 0.2 --effort quick` on class folders, with and without
OpenVINO, with cold caches.
predict: `residua predict imagenet` on 1,000 JPEG files of a folder, and the same with a ResNet-50
(initialised at random: only the time counts), against a script of OpenVINO and Pillow with two
threads that runs the same converted network in float32, as one would write it. The networks are
converted once before, as for the script.
Every run is a process of its own; the variants take turns. Each call adds its figures to the head
of results/first-result.txt.
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
from residua.config.schema import NetworkSpec
from residua.networks.zoo.catalogue import build_from
from residua.system.device import environment
from residua.weights.native import Metadata, to_bytes
from residua.weights.published.imagenet import RGB

RESULT = Path(__file__).parent / "results" / "first-result.txt"
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
        command += ["--effort", "quick"]
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


def random_resnet50(folder: Path) -> str:
    """The file of its weights."""
    spec = NetworkSpec("resnet50", 1000, 3, head="linear")
    classes = tuple(f"class {number}" for number in range(1000))
    content = to_bytes(build_from(spec, seed=0).state_dict(), Metadata(spec, classes, RGB, {}))
    file = folder / "resnet50.safetensors"
    file.write_bytes(content)
    return str(file)


def trained(photos: list[str], repeats: int, folder: Path) -> list[str]:
    measured: dict[str, list[float]] = {}
    for _ in range(repeats):
        for data in photos:
            for variant, code in (("with OpenVINO", MAIN), ("without", WITHOUT)):
                first, total = train(data, code, folder)
                name = f"train {Path(data).name} {variant}"
                measured.setdefault(f"{name}: to the first result", []).append(first)
                measured.setdefault(f"{name}: to the report", []).append(total)
    return [f"{name:50}{spread(values)}" for name, values in measured.items()]


def predicted(many: str, images: int, repeats: int, folder: Path) -> list[str]:
    files = sorted(map(str, Path(many).glob("*.jpg")))[:images]
    lines = []
    for name, weights in (("Lite0", "imagenet"), ("ResNet-50", random_resnet50(folder))):
        cache = folder / f"cache-{name}"
        own = [sys.executable, "-c", MAIN, "predict", weights, *files, "--format", "csv"]
        seconds_of(own, cache)
        (converted,) = cache.glob("engines/*.xml")
        script = folder / "by_hand.py"
        script.write_text(BY_HAND)
        manual = [sys.executable, str(script), str(converted), many, str(images)]
        seconds: dict[str, list[float]] = {"residua": [], "by hand": []}
        for _ in range(repeats):
            seconds["residua"].append(seconds_of(own, cache))
            seconds["by hand"].append(seconds_of(manual, cache))
        ratios = [b / a for a, b in zip(seconds["residua"], seconds["by hand"], strict=True)]
        for kind, values in seconds.items():
            lines.append(f"{f'predict {len(files):,} photos, {name}: {kind}':50}{spread(values)}")
        lines.append(f"{'  by hand / residua':50}{statistics.median(ratios):6.2f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("train", "predict"))
    parser.add_argument("data", nargs="+")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.action == "train":
            figures = trained(given.data, given.repeats, Path(name))
        else:
            figures = predicted(given.data[0], given.images, given.repeats, Path(name))
    facts = environment(torch.device("cpu"))
    capability = torch.backends.cpu.get_cpu_capability()
    lines = [
        f"seconds, median of {given.repeats} (range), the variants in turn; see first_result.py",
        f"{facts['device_name']} ({capability}), {facts['threads']} threads, Python "
        f"{facts['python']}, torch {facts['torch']}, {datetime.now(UTC).date().isoformat()}",
        "",
        *figures,
    ]
    print("\n".join(lines))
    before = RESULT.read_text("utf-8") if RESULT.exists() else ""
    RESULT.write_text("\n".join([*lines, "", before]), "utf-8")


if __name__ == "__main__":
    main()
