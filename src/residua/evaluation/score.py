"""Weights and decoded images with known classes -> scores, and a prediction for each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from residua.data.batches import DecodedImages, plain_batches
from residua.data.dataset import Pixels
from residua.data.random import Integers
from residua.evaluation.metrics import Scores, summarize
from residua.system.console import Console
from residua.weights.load import Weights
from residua.weights.network import Logits, build_network, predict_logits

BATCH = 64


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The judged part and what came out; arrays run over its readable images.

    split: "test", "validation" or "all" (a data set without parts). pixels: uint8 [N, S, S, C].
    labels: int64 [N]. logits: float32 [N, K].
    """

    split: str
    scores: Scores
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: Integers
    logits: Logits
    pixels: Pixels
    unreadable: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, object]:
        """The object that `residua evaluate --json` prints."""
        found = self.scores.to_json()
        keys = ("accuracy", "interval", "top5", "loss", "images")
        rest = {key: value for key, value in found.items() if key not in (*keys, "per_class")}
        head = {key: found[key] for key in keys}
        return {**head, "part": self.split, "per_class": found["per_class"], **rest}

    def rows(self) -> list[tuple[str, str, str, float, bool]]:
        """predictions.csv: path, class, predicted, probability, right."""
        chances = softmax(self.logits)
        best = chances.argmax(1)
        return [
            (path, self.classes[label], name_of(self.classes, top), float(row[top]), top == label)
            for path, label, top, row in zip(self.paths, self.labels, best, chances, strict=True)
        ]


def judge(
    weights: Weights,
    pixels: Pixels,
    members: Integers,
    labels: Integers,
    paths: Sequence[str],
    part: str,
    device: torch.device,
    console: Console,
    *,
    unreadable: Sequence[tuple[str, str]] = (),
) -> Evaluation:
    """Evaluate weights on decoded images: rows `members` of uint8 [N, S, S, C], in float32.

    labels and paths belong to the members. Raises ResiduaError.
    """
    network, preprocessing = build_network(weights, device), weights.metadata.preprocessing
    batches = plain_batches(DecodedImages(pixels, device), members, preprocessing, BATCH)
    outputs: list[Logits] = []
    with console.bar("evaluating") as move:
        for logits in predict_logits(network, batches):
            outputs.append(logits)
            move(len(outputs) * BATCH, len(members), "")
    logits, classes = np.concatenate(outputs), weights.metadata.classes
    return Evaluation(
        split=part,
        scores=summarize(logits, labels, classes),
        classes=classes,
        paths=tuple(paths),
        labels=labels,
        logits=logits,
        pixels=pixels if len(members) == len(pixels) else pixels[members],
        unreadable=tuple(unreadable),
    )


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """float [N, K] -> probabilities [N, K], in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def name_of(classes: tuple[str, ...], output: int) -> str:
    """The name of an output; a head may be wider than the classes (tutorial 0's 1,000-way one)."""
    return classes[output] if output < len(classes) else f"output {output}"
