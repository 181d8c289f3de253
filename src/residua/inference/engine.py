"""A network on uint8 images -> an engine that runs it: PyTorch, or OpenVINO where that is faster.

OpenVINO runs EfficientNet-Lite0 on a CPU 1.4 times as fast as PyTorch in float32, and ResNet-50
1.15 times (benchmarks/results/engines.txt). It is used where its package is installed, where the
work outweighs the conversion, and where its outputs agree with float32 PyTorch on images of the
user's own; later processes compare some of these again.

Legend: B batch, S side of the images, C channels, D width of an output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from residua.data.dataset import Pixels
from residua.inference import openvino

Floats = npt.NDArray[np.float32]

# Multiply-adds below which converting and comparing, over a second, cost more than they save: 500
# photos in EfficientNet-Lite0, in bf16 1,200 (benchmarks/results/engines.txt).
WORTH = {"fp32": 2e11, "bf16": 4.5e11}
# That PyTorch runs at once on a CPU. More are no faster, and the first contact with the memory of
# their maps can take longer than their computation.
CHUNK_PIXELS = 16 * 224 * 224
SAMPLE = 8  # images that the engines are compared on
PROOF = 4  # of these, which are stored
TOLERANCE = {"fp32": 1e-3, "bf16": 0.15}  # relative difference; bf16 PyTorch itself is at .07


class Engine(Protocol):
    """Runs a network. name: what runs it, and in which precision."""

    name: str

    def run(self, pixels: Pixels) -> list[Floats]:
        """uint8 [B, S, S, C] in RGB order -> float32 [B, D] of each output."""


@dataclass(frozen=True)
class Job:
    """A network, and what an engine for it depends on: functions, as most jobs need only some.

    network: uint8 [B, S, S, C] on the device -> outputs [B, D]; PyTorch in `precision`.
    plain: the same as a module in float32 on the CPU, of layers that can be converted.
    precision: "fp32" or "bf16". key: names weights and outputs, for the cache.
    multiply_adds: for an image.
    """

    network: Callable[[Tensor], Sequence[Tensor]]
    plain: Callable[[], nn.Module]
    precision: str
    device: torch.device
    key: Callable[[], str]
    multiply_adds: Callable[[], int]


class TorchEngine:
    """PyTorch; see Engine."""

    def __init__(self, job: Job) -> None:
        self.job, self.name = job, f"PyTorch ({job.precision})"

    @torch.inference_mode()
    def run(self, pixels: Pixels) -> list[Floats]:
        """See Engine."""
        size = len(pixels)
        if self.job.device.type == "cpu":
            size = max(1, CHUNK_PIXELS // (pixels.shape[1] * pixels.shape[2]))
        chunks = (pixels[start : start + size] for start in range(0, len(pixels), size))
        return [np.concatenate(rows) for rows in zip(*map(self._run, chunks), strict=True)]

    def _run(self, pixels: Pixels) -> list[Floats]:
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.job.device)
        # on a GPU, cuDNN rounds float32 inputs to TF32 by default
        with torch.backends.cudnn.flags(allow_tf32=False):
            return [output.float().cpu().numpy() for output in self.job.network(images)]


def engine_for(job: Job, pixels: Pixels, images: int) -> tuple[Engine, str]:
    """The fastest engine whose outputs are right; and why OpenVINO was refused, else "".

    pixels: uint8 [B, S, S, C], images of the user's; the engines are compared on the first SAMPLE.
    images: that the engine will run on.
    """
    sample = pixels[:SAMPLE]
    if job.device.type != "cpu" or not len(sample) or not openvino.is_installed():
        return TorchEngine(job), ""
    # whatever is cached: figures must not depend on it
    if images * job.multiply_adds() < WORTH[job.precision]:
        return TorchEngine(job), ""
    try:
        engine = openvino.OpenVinoEngine(job.plain, sample[:2], job.precision, job.key())
        if (proof := engine.proof()) is not None:
            proved, expected = proof
            if largest_difference(engine.run(proved), expected) <= TOLERANCE[job.precision]:
                return engine, ""
        outputs = engine.run(sample)
    except openvino.FAILURES as error:
        return TorchEngine(job), f"OpenVINO failed: {' '.join(str(error).split())[:200]}"
    reference = _reference(job, sample)
    difference = largest_difference(outputs, reference)
    if not difference <= TOLERANCE[job.precision]:  # not a number is refused too
        reason = f"OpenVINO refused: its outputs differ by {difference:.2%} from PyTorch's"
        return TorchEngine(job), reason
    engine.store_proof(sample[:PROOF], [rows[:PROOF] for rows in reference])
    return engine, ""


def largest_difference(outputs: Sequence[Floats], reference: Sequence[Floats]) -> float:
    """The largest relative difference of an output, by its norm over the batch."""
    return max(
        float(np.linalg.norm(output - expected) / max(float(np.linalg.norm(expected)), 1e-12))
        for output, expected in zip(outputs, reference, strict=True)
    )


def _reference(job: Job, sample: Pixels) -> list[Floats]:
    """The outputs of float32 PyTorch, of unfused layers."""
    with torch.inference_mode():
        outputs = job.plain()(torch.from_numpy(np.array(sample)))  # a mapped file cannot be written
    return [output.numpy() for output in outputs]
