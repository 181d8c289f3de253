"""Decoded images are scored in float32, in their order, whatever rows they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from residua.data.augmentation import normalise
from residua.errors import ResiduaError
from residua.evaluation.metrics import compute_metrics
from residua.evaluation.score import Evaluation, EvaluationSet, class_name, score_images
from residua.system.console import Console
from residua.uncertainty.softmax import softmax
from residua.weights.load import Weights, read_file
from residua.weights.network import build_network

CLASSES = tuple("abcdefghij")
CPU = torch.device("cpu")


@pytest.fixture
def weights(write_weights: Callable[..., Path], tmp_path: Path) -> Weights:
    return read_file(write_weights(tmp_path / "net.safetensors", 5)).with_classes(CLASSES)


def score(weights: Weights, samples: np.ndarray, pixels: np.ndarray) -> Evaluation:
    images = EvaluationSet(
        "test",
        pixels,
        samples,
        samples % 10,
        [f"{sample}.png" for sample in samples],
        [None] * len(samples),
        unreadable=[("x.png", "is empty")],
    )
    return score_images(weights, images, CPU, Console(quiet=True))


def test_the_logits_of_the_rows_are_those_of_the_network_in_float32(weights: Weights) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 16, 16, 3), np.uint8)
    samples = np.array([3, 70, 71, 0, *range(5, 70)])  # more than one batch, in their own order
    evaluation = score(weights, samples, pixels)
    network = build_network(weights, CPU)
    images = normalise(torch.from_numpy(pixels[samples]), weights.metadata.preprocessing)
    with torch.inference_mode():
        expected = network(images).numpy()
    assert evaluation.logits.dtype == np.float32
    np.testing.assert_allclose(evaluation.logits, expected, atol=1e-5)
    np.testing.assert_array_equal(evaluation.pixels, pixels[samples])
    metrics = compute_metrics(evaluation.logits, samples % 10, CLASSES)
    assert evaluation.metrics.to_json() == metrics.to_json()
    assert evaluation.scores is evaluation.metrics  # the name in version 0.1.0
    assert evaluation.paths[:2] == ("3.png", "70.png")
    assert evaluation.unreadable == (("x.png", "is empty"),)


def test_rows_and_json_hold_predictions_and_metrics(weights: Weights) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 16, 16, 3), np.uint8)
    evaluation = score(weights, np.arange(20), pixels)
    probabilities = softmax(evaluation.logits)
    for index, (path, label, predicted, probability, correct) in enumerate(evaluation.rows()):
        best = int(evaluation.logits[index].argmax())
        assert (path, label, predicted) == (f"{index}.png", CLASSES[index % 10], CLASSES[best])
        assert probability == probabilities[index, best]
        assert correct == (best == index % 10)
    plain = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert list(plain)[:6] == ["accuracy", "interval", "top5", "loss", "images", "split"]
    assert (plain["images"], plain["split"]) == (20, "test")
    assert evaluation.metrics.to_json().items() <= plain.items()


def test_an_output_beyond_the_classes_has_a_number_for_a_name(weights: Weights) -> None:
    assert (class_name(("a", "b"), 1), class_name(("a", "b"), 7)) == ("b", "output 7")
    metadata = dataclasses.replace(weights.metadata, classes=("a", "b"))
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    samples = np.arange(2)
    images = EvaluationSet("all", pixels, samples, samples, ["a.png", "b.png"], [None, None])
    outputs_beyond = dataclasses.replace(weights, metadata=metadata)
    evaluation = score_images(outputs_beyond, images, CPU, Console(quiet=True))
    names = {row[2] for row in evaluation.rows()}
    outside = sum(name.startswith("output ") for name in names) * 2
    assert evaluation.metrics.outside == outside


def test_outputs_that_are_not_finite_are_refused_or_counted(weights: Weights) -> None:
    pixels = np.zeros((4, 16, 16, 3), np.uint8)
    tensors = dict(weights.tensors)
    tensors["head.weight"] = torch.full_like(tensors["head.weight"], 3e38)
    tensors["head.bias"] = torch.full_like(tensors["head.bias"], -3e38)
    broken = dataclasses.replace(weights, tensors=tensors)
    with pytest.raises(ResiduaError, match="outputs are not finite"):
        score(broken, np.arange(4), pixels)
    logits = np.zeros((2, 10), np.float32)
    logits[0, 3] = np.nan
    evaluation = dataclasses.replace(
        score(weights, np.arange(2), pixels), logits=logits, labels=np.array([0, 0])
    )
    (_, _, first, _, right), (_, _, second, _, _) = evaluation.rows()
    assert (first, right, second) == ("not finite", False, "a")
    assert repr(evaluation).startswith("Evaluation(test: accuracy ")
    assert len(repr(evaluation)) < 100
