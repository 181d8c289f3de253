"""What int8 loses, by how it is calibrated and what stays in float32.

    python benchmarks/int8.py RUN...

ONNX files of each run's network, quantised on its training images, against PyTorch on its held-out
images: largest and mean difference of a probability, same top-1 class, accuracy lost.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from residua.data.dataset import Pixels
from residua.exports.classifier import INPUT, Classifier
from residua.exports.formats import FORMATS, quiet_exporters
from residua.exports.images import held_out_images, training_images
from residua.exports.quantisation import OPERATORS
from residua.inference.outputs import classifier_of
from residua.runs.folder import RunFolder
from residua.runs.sources import run_weights
from residua.system.console import Console
from residua.system.device import environment
from residua.uncertainty.softmax import softmax


def convolutions(file: Path) -> tuple[list[str], list[str]]:
    """Names of all convolutions and linear layers in order, and of the depthwise ones."""
    nodes = [node for node in onnx.load(file).graph.node if node.op_type in ("Conv", "Gemm")]
    groups = {
        node.name: attribute.i
        for node in nodes
        for attribute in node.attribute
        if attribute.name == "group"
    }
    return [node.name for node in nodes], [name for name, count in groups.items() if count > 1]


def quantise(source: Path, target: Path, pixels: Pixels, **changes: Any) -> None:
    """As residua.exports.quantisation, with changes."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.split(pixels, range(16, len(pixels), 16)))

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    settings: dict[str, Any] = {
        "quant_format": QuantFormat.QDQ,
        "op_types_to_quantize": OPERATORS,
        "per_channel": True,
        "reduce_range": True,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
    }
    quantize_static(str(source), str(target), Batches(), **(settings | changes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    options = parser.parse_args()
    from onnxruntime.quantization import CalibrationMethod as Method
    from onnxruntime.quantization.shape_inference import quant_pre_process

    facts = environment(torch.device("cpu"))
    print(f"# {datetime.datetime.now():%Y-%m-%d}; {facts['device_name']}; {facts['torch']}")
    for name in options.runs:
        run, quiet = RunFolder.existing(name), Console(quiet=True)
        weights = run_weights(run)
        held_out = held_out_images(weights, run, quiet)
        many = training_images(weights, run, quiet, 512).pixels
        few = many[np.linspace(0, len(many) - 1, min(256, len(many))).astype(int)]
        expected = classifier_of(weights, torch.device("cpu"), 0)(held_out.pixels)
        print(f"{name}: {weights.metadata.network.name}, {len(expected)} {held_out.origin}")
        with tempfile.TemporaryDirectory() as folder, quiet_exporters():
            plain, source = Path(folder, "plain.onnx"), Path(folder, "source.onnx")
            example = torch.from_numpy(few[:2])
            (write, *_) = FORMATS["onnx"].exporters.values()
            write(Classifier(weights, "fp32"), example, "{}", plain)
            quant_pre_process(str(plain), str(source), skip_symbolic_shape=True)
            layers, depthwise = convolutions(source)
            ends = [layers[0], layers[-1]]
            stretched = {"calibrate_method": Method.MinMax, "extra_options": {}}
            variants: dict[str, tuple[Pixels, dict[str, Any]]] = {
                "as it was (256 images, range)": (few, {}),
                "per tensor": (few, {"per_channel": False}),
                "8-bit kernels": (few, {"reduce_range": False}),
                "512 images": (many, {}),
                "32 images": (few[::8], {}),
                "averaged range": (
                    few,
                    stretched | {"extra_options": {"CalibMovingAverage": True}},
                ),
                "percentile 99.99, 64 images": (
                    few[::4],
                    {
                        "calibrate_method": Method.Percentile,
                        "extra_options": {"CalibPercentile": 99.99},
                    },
                ),
                "entropy, 64 images": (few[::4], {"calibrate_method": Method.Entropy}),
                "first and last in float": (few, {"nodes_to_exclude": ends}),
                "depthwise in float": (few, {"nodes_to_exclude": depthwise}),
                "depthwise, first and last in float": (
                    few,
                    {"nodes_to_exclude": depthwise + ends},
                ),
            }
            for title, (pixels, changes) in variants.items():
                target, began = Path(folder, "int8.onnx"), time.monotonic()
                quantise(source, target, pixels, **changes)
                took = time.monotonic() - began
                report(title, target, held_out, expected, took)


def report(title: str, file: Path, held_out: Any, expected: Any, took: float) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    began, count = time.monotonic(), len(expected)
    parts = [
        session.run(["logits"], {INPUT: held_out.pixels[at : at + 32]})[0]
        for at in range(0, count, 32)
    ]
    rate = count / (time.monotonic() - began)
    logits = np.concatenate(parts)
    gap = np.abs(softmax(logits) - softmax(expected)).max(1)
    relative = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
    agree = (logits.argmax(1) == expected.argmax(1)).mean()
    lost = (expected.argmax(1) == held_out.labels).mean() - (
        logits.argmax(1) == held_out.labels
    ).mean()
    print(
        f"  {title:36s} largest {gap.max():.3f} mean {gap.mean():.4f} logits {relative:.3f} "
        f"same top-1 {agree:.2%} lost {100 * lost:+.2f} points, {rate:.0f} images/s, "
        f"{file.stat().st_size / 2**20:.1f} MiB, made in {took:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
