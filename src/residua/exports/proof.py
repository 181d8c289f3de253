"""An exported file and images -> the differences of its outputs from those of PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.errors import ResiduaError
from residua.exports.images import Images
from residua.exports.worker import BATCHES, SECONDS
from residua.inference.engine import Floats
from residua.system.console import printable
from residua.system.files import check_space
from residua.system.words import percent
from residua.uncertainty.softmax import softmax
from residua.weights.load import exported_metadata

# Largest difference of a probability. float32 differs by rounding alone, at most about 1e-5.
LARGEST_DIFFERENCE = {"fp32": 0.001, "fp16": 0.02, "int8": 1.0}
# int8 rounds so coarsely that single probabilities may differ: what counts are the decisions.
LOWEST_AGREEMENT = {"fp32": 0.0, "fp16": 0.98, "int8": 0.9}
LARGEST_LOSS = {"fp32": 0.0, "fp16": 0.01, "int8": 0.02}  # of accuracy; one image is always allowed
# Share of images that are unknown to the file alone or to PyTorch alone; one is always allowed.
# Known images are unknown in 5 % of cases, so more would be another detector.
LARGEST_UNKNOWN_DIFFERENCE = 0.01


@dataclass(frozen=True, eq=False)
class Expected:
    """Outputs of PyTorch. logits: float32 [N, K]. unknown: bool [N], None without a detector."""

    logits: Floats
    unknown: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Proof:
    """The comparison of an exported file with PyTorch on the same images.

    runtime: that ran the file, in a process of its own. images, origin: how many, and which.
    omitted: images that would have taken too long.
    difference: largest difference of a probability, at every batch size.
    agreement: share of images with the same most likely class.
    accuracy, exported_accuracy: of PyTorch and of the file; None without labels.
    unknown_difference: share of images that are unknown to one of both; None if the file does not
    detect unknown images.
    problem: why the file is not usable; "" if it is.
    """

    runtime: str
    images: int
    origin: str
    difference: float
    agreement: float
    accuracy: float | None
    exported_accuracy: float | None
    unknown_difference: float | None
    problem: str = ""
    omitted: int = 0

    def text(self) -> str:
        """Lines for the user."""
        batches = ", ".join(map(str, sorted(BATCHES)))
        omitted = (
            f" ({self.omitted:,} more would take over {SECONDS[max(BATCHES)]:g} s: this runtime is "
            "slow here)"
            if self.omitted
            else ""
        )
        lines = [
            f"checked in {self.runtime} on {self.images:,} {self.origin} at batch {batches}"
            f"{omitted}: "
            f"largest probability difference {self.difference:.2g}, "
            f"same top-1 class {percent(self.agreement, 2)}"
        ]
        if self.accuracy is not None and self.exported_accuracy is not None:
            lost = 100 * (self.accuracy - self.exported_accuracy)
            lines.append(
                f"accuracy: PyTorch {self.accuracy:.4f}, exported {self.exported_accuracy:.4f} "
                f"({0.0 - lost:+.2f} points)"
            )
        if self.unknown_difference is not None:
            same = 1 - self.unknown_difference
            lines.append(f"unknown images: same decision for {percent(same, 2)}")
        return "\n".join(lines)

    @property
    def detector_problem(self) -> str:
        """Why the file must not detect unknown images, in a clause; "" if it may."""
        different, bound = self.unknown_difference or 0.0, LARGEST_UNKNOWN_DIFFERENCE
        if different <= max(bound, 1.01 / self.images):
            return ""
        return (
            f"its decision differs from PyTorch's for {percent(different, 1)} of {self.images:,} "
            f"{self.origin}, the limit is {percent(bound)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def compare(file: Path, images: Images, expected: Expected, precision: str) -> Proof:
    """Run the file in a fresh process and compare it with PyTorch's outputs of `images.padded()`.

    Raises ResiduaError if the file cannot be loaded or run.
    """
    outputs = _run(file, images)
    uncertainty = exported_metadata(file, json.loads(str(outputs["description"]))).uncertainty
    if uncertainty is not None and uncertainty.unknown is not None:
        features, logits = outputs["features32"], outputs["logits32"]
        outputs["unknown"] = uncertainty.unknown.is_unknown(features, logits)
    return proof_of(outputs, images, expected, precision)


def proof_of(
    outputs: Mapping[str, npt.NDArray[Any]], images: Images, expected: Expected, precision: str
) -> Proof:
    """Compare the outputs of `worker.outputs_of` with those of PyTorch. Raises ResiduaError.

    outputs: with `unknown`, bool [N], if the file detects unknown images.
    """
    reference = softmax(expected.logits)
    difference = 0.0
    for batch in BATCHES:
        logits, probabilities = outputs[f"logits{batch}"], outputs[f"probabilities{batch}"]
        wanted = reference[: len(logits)]
        if logits.shape != wanted.shape or probabilities.shape != wanted.shape:
            raise ResiduaError(
                f"its outputs have shapes {logits.shape} and {probabilities.shape}, expected "
                f"{wanted.shape}"
            )
        for found in (softmax(logits), probabilities):
            # np.maximum keeps a NaN
            difference = float(np.maximum(difference, np.abs(found - wanted).max()))
    exported_best = outputs["logits32"].argmax(1)[: len(images.pixels)]
    count = len(exported_best)
    best, labels = expected.logits[:count].argmax(1), images.labels
    unknown, exported_unknown = expected.unknown, outputs.get("unknown")
    proof = Proof(
        str(outputs["runtime"]),
        count,
        images.origin,
        difference,
        float((best == exported_best).mean()),
        None if labels is None else float((best == labels[:count]).mean()),
        None if labels is None else float((exported_best == labels[:count]).mean()),
        None
        if unknown is None or exported_unknown is None
        else float((unknown[:count] != exported_unknown[:count]).mean()),
    )
    omitted = len(images.pixels) - count
    return replace(proof, problem=_problem(proof, precision), omitted=omitted)


def _problem(proof: Proof, precision: str) -> str:
    """The first bound that is exceeded, in a sentence; "" if there is none."""
    bound = LARGEST_DIFFERENCE[precision]
    if not proof.difference <= bound:  # also if it is not a number
        return f"a probability differs by {proof.difference:.2g}, the limit is {bound:g}"
    lowest = LOWEST_AGREEMENT[precision]
    if proof.agreement < lowest:
        same = percent(proof.agreement, 1)
        return f"the top-1 class is the same for {same}, at least {percent(lowest)} needed"
    if proof.accuracy is not None and proof.exported_accuracy is not None:
        lost = proof.accuracy - proof.exported_accuracy
        if lost > max(LARGEST_LOSS[precision], 1.01 / proof.images):
            return f"{100 * lost:.1f} points of accuracy are lost, the limit is " + (
                f"{100 * LARGEST_LOSS[precision]:g}"
            )
    return ""


def _run(file: Path, images: Images) -> dict[str, npt.NDArray[Any]]:
    """The outputs of the worker. Raises ResiduaError with the last line of its error."""
    with tempfile.TemporaryDirectory(prefix="residua-export-") as folder:
        pixels, outputs = Path(folder, "pixels.npy"), Path(folder, "outputs.npz")
        content = images.padded()
        check_space(pixels.parent, content.nbytes)
        np.save(pixels, content)
        words = [sys.executable, "-P", "-m", "residua.exports.worker"]
        done = subprocess.run(
            [*words, file, pixels, outputs], capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            check_space(pixels.parent, content.nbytes)
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ResiduaError(f"it cannot be run: {printable(lines[-1][:300])}")
        with np.load(outputs) as arrays:
            return {name: arrays[name] for name in arrays.files}
