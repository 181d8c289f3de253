"""Weights and decoded images with known classes -> scores, and a prediction for each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from residua.weights.network import Logits, logits_of, network_from

BATCH = 64
SETTLED = 32  # close decisions that are computed exactly at a time
SAFETY = 4.0  # a decision stands if it is so many of the largest error apart; 2 could flip it


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
    quick: Logits | None = None,
) -> Evaluation:
    """Judge weights on decoded images: rows `members` of uint8 [N, S, S, C].

    labels and paths belong to the members. quick: [N, K], logits that were computed in less than
    float32 already; then only close decisions are computed again, see `_settled`.
    """
    network, metadata = network_from(weights, device), weights.metadata
    images = DecodedImages(pixels, device)

    def exactly(samples: Integers, move: Callable[[int, int, str], None]) -> Logits:
        found: list[Logits] = []
        for logits in logits_of(
            network, plain_batches(images, samples, metadata.preprocessing, BATCH)
        ):
            found.append(logits)
            move(len(found) * BATCH, len(samples), "")
        return np.concatenate(found)

    with console.bar("judging") as move:
        if quick is None:
            everything = exactly(members, move)
        else:
            everything = _settled(quick, lambda rows: exactly(members[rows], move))
    return Evaluation(
        split=part,
        scores=summarize(everything, labels, metadata.classes),
        classes=metadata.classes,
        paths=tuple(paths),
        labels=labels,
        logits=everything,
        pixels=pixels if len(members) == len(pixels) else pixels[members],
        unreadable=tuple(unreadable),
    )


def _settled(quick: Logits, exactly: Callable[[Integers], Logits]) -> Logits:
    """Quick logits [N, K], with those replaced whose decision exact ones might change.

    Rows are computed exactly from the closest decision on, until the next is decided by far more
    than the largest error seen in any row so far; so the accuracy is that of exact logits. The
    other rows keep their quick logits, whose loss and chances are as good as their precision.
    """
    best = np.partition(quick, -2, axis=1)[:, -2:]
    margins = best[:, 1] - best[:, 0]
    order, logits, done, error = np.argsort(margins), quick.copy(), 0, np.inf
    while done < len(order) and margins[order[done]] <= SAFETY * error:
        rows = order[done : done + SETTLED]
        logits[rows] = exactly(rows)
        seen = float(np.abs(logits[rows] - quick[rows]).max())
        error = max(error, seen) if done else seen
        done += len(rows)
    return logits


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """float [N, K] -> probabilities [N, K], in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def name_of(classes: tuple[str, ...], output: int) -> str:
    """The name of an output; a head may be wider than the classes (tutorial 0's 1,000-way one)."""
    return classes[output] if output < len(classes) else f"output {output}"
