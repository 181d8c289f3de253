"""Images per second of a network in PyTorch and in OpenVINO, as residua runs it and otherwise.

    python benchmarks/engines.py
    python benchmarks/engines.py --start    measures only the first table

EfficientNet-Lite0 and ResNet-50 (initialised at random: only the time counts) at 224 px in float32.
first 128: in a new process, in batches of 64 and as TorchEngine runs 64 images. Then, warm: PyTorch
and OpenVINO as residua runs them, and OpenVINO with all threads on a batch of 32, which take turns;
and milliseconds for a single image. --start: seconds from choosing an engine to the features of the
first 384, 832 and 1,600 images, in new processes with nothing cached. The table is
results/engines.txt.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conditions import conditions

from residua.cli import TUNABLES
from residua.config.schema import Preprocessing
from residua.inference import openvino
from residua.inference.engine import Engine, Job, TorchEngine
from residua.inference.feature_layers import FrozenStages
from residua.inference.outputs import FromPixels
from residua.networks.surgery.folding import fold_norms_, folded
from residua.networks.zoo.catalogue import build
from residua.system.openvino_import import openvino as package

RESULT = Path(__file__).parent / "results" / "engines.txt"
RULE = Preprocessing(224, 3, "crop", 0.875, "bicubic", "rgb", None, (0.0,) * 3, (1.0,) * 3)
NETWORKS, REPEATS, SECONDS = ("efficientnet_lite0", "resnet50"), 5, 1.0
CPU = torch.device("cpu")


def job_of(name: str) -> Job:
    network = build(name).eval()
    plain, fused = FromPixels(folded(network), RULE, False), fold_norms_(network, "fp32")
    return Job(FromPixels(fused, RULE, False), lambda: plain, "fp32", CPU, lambda: name, lambda: 0)


def rate(run: Callable[[np.ndarray], object], pixels: np.ndarray) -> float:
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        run(pixels)
        done += len(pixels)
    return done / (time.perf_counter() - began)


def first(name: str, kind: str) -> str:
    job, pixels = job_of(name), np.zeros((128, 224, 224, 3), np.uint8)
    engine = TorchEngine(job)
    run = engine._run if kind == "batches" else engine.run
    run(pixels[:1])
    began = time.perf_counter()
    for start in (0, 64):
        run(pixels[start : start + 64])
    return f"{128 / (time.perf_counter() - began):.1f}"


def warm(name: str) -> str:
    job, pixels = job_of(name), np.zeros((32, 224, 224, 3), np.uint8)
    streams = openvino.OpenVinoEngine(job.plain, pixels[:2], "fp32", name)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    core = package().Core()
    together = core.compile_model(core.read_model(openvino._path(name)), "CPU", settings)
    runs = {
        "PyTorch": TorchEngine(job).run,
        "OpenVINO": streams.run,
        "all threads on 32": lambda batch: together([batch]),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(REPEATS):
        for kind, run in runs.items():
            rates[kind].append(rate(run, pixels))
    single = {kind: 1000 / rate(runs[kind], pixels[:1]) for kind in list(runs)[1:]}
    figures = [f"{kind} {statistics.median(values):.0f}" for kind, values in rates.items()]
    return ", ".join([*figures, *(f"one image, {k}: {v:.1f} ms" for k, v in single.items())])


def cold(kind: str, precision: str) -> str:
    stages = FrozenStages(build(NETWORKS[0]).eval(), RULE, precision)
    job = stages.job(stages.layers(224, 3), NETWORKS[0])
    pixels = np.zeros((64, 224, 224, 3), np.uint8)
    began, seconds = time.perf_counter(), []
    engine: Engine = TorchEngine(job)
    if kind == "OpenVINO":
        engine = openvino.OpenVinoEngine(job.plain, pixels[:2], precision, job.key())
    for done in range(64, 1601, 64):
        engine.run(pixels)
        if done in (384, 832, 1600):
            seconds.append(time.perf_counter() - began)
    return "".join(f"{value:8.2f}" for value in seconds)


def in_new_process(*arguments: str) -> str:
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, *arguments],
            env=os.environ | {"GLIBC_TUNABLES": TUNABLES, "RESIDUA_CACHE": cache},
            capture_output=True,
            check=True,
            text=True,
        )
    return done.stdout.strip()


def starts() -> list[str]:
    lines = [
        f"seconds to the features of 384, 832 and 1,600 images, median of {REPEATS} new processes",
        conditions("openvino"),
        "",
    ]
    for precision in ("fp32", "bf16"):
        measured: dict[str, list[list[float]]] = {"PyTorch": [], "OpenVINO": []}
        for _ in range(REPEATS):
            for kind, rows in measured.items():
                rows.append([float(x) for x in in_new_process("--cold", kind, precision).split()])
        for kind, rows in measured.items():
            median = "".join(f"{value:8.2f}" for value in np.median(rows, axis=0))
            lines.append(f"{NETWORKS[0]}, {precision}, {kind}".ljust(38) + median)
    return lines


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        threads, name, kind = sys.argv[2:]
        torch.set_num_threads(int(threads))
        print(warm(name) if kind == "warm" else first(name, kind))
        return
    if sys.argv[1:2] == ["--cold"]:
        print(cold(*sys.argv[2:]))
        return
    if sys.argv[1:2] == ["--start"]:
        RESULT.write_text("\n".join([*starts(), "", RESULT.read_text("utf-8")]), "utf-8")
        return
    lines = [f"images/s, median of {REPEATS}; see engines.py", conditions("openvino"), ""]
    for threads in ("1", "2"):
        for name in NETWORKS:
            for kind in ("batches", "chunks", "warm"):
                output = in_new_process("--run", threads, name, kind)
                label = {
                    "batches": "first 128, in batches of 64",
                    "chunks": "first 128",
                    "warm": "",
                }
                head = f"{name}, {threads} thread(s)".ljust(34)
                lines.append(f"{head}{label[kind]} {output}")
                print(lines[-1], flush=True)
    RESULT.write_text("\n".join([*starts(), "", *lines]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
