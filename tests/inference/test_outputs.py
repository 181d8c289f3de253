"""Logits do not depend on the engine; near ties are decided by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from residua.inference import engine
from residua.inference.outputs import Classifier, FromPixels, classifier_of, featured_classifier
from residua.weights.load import Weights, read_file
from residua.weights.network import build_network

pytestmark = pytest.mark.slow  # OpenVINO takes seconds to convert a network
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights, and a cache in which they are converted once."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(autouse=True)
def _own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(folder))
    monkeypatch.setitem(engine.WORTH, "fp32", 1)


@pytest.fixture(scope="module")
def weights(folder: Path, write_weights: Callable[..., Path]) -> Weights:
    return read_file(write_weights(folder / "weights.safetensors", 7))


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)


def exact(weights: Weights, pixels: np.ndarray) -> np.ndarray:
    network = FromPixels(
        build_network(weights, CPU), weights.metadata.preprocessing, features=False
    )
    with torch.inference_mode():
        return network(torch.from_numpy(pixels))[0].numpy()


def test_both_engines_give_the_logits_of_the_network(weights: Weights, pixels: np.ndarray) -> None:
    expected = exact(weights, pixels)
    for images in (0, len(pixels)):
        classify = classifier_of(weights, CPU, images)
        np.testing.assert_allclose(classify(pixels), expected, rtol=1e-4, atol=1e-5)
        assert classify(pixels[:0]).shape[0] == 0


def test_features_are_those_that_the_head_reads(weights: Weights, pixels: np.ndarray) -> None:
    network = build_network(weights, CPU)
    for images in (0, len(pixels)):
        logits, features = featured_classifier(weights, CPU, images)(pixels)
        head = network.head(torch.from_numpy(features)).detach().numpy()
        np.testing.assert_allclose(head, logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits, exact(weights, pixels), rtol=1e-4, atol=1e-5)


def test_near_ties_are_decided_by_pytorch(weights: Weights, pixels: np.ndarray) -> None:
    classify = classifier_of(weights, CPU, len(pixels))
    classifier: Classifier = classify.__self__  # type: ignore[attr-defined]
    classify(pixels)
    assert classifier.engine is not None
    assert classifier.engine.name.startswith("OpenVINO")
    logits = exact(weights, pixels)
    width = logits.shape[1]

    class Tied:
        """Everything is as likely as everything else."""

        name = "OpenVINO"

        def run(self, pixels: np.ndarray) -> list[np.ndarray]:
            return [np.ones((len(pixels), width), np.float32)]

    classifier.engine = Tied()
    np.testing.assert_allclose(classify(pixels), logits, rtol=1e-4, atol=1e-5)
