"""A single output is the probability of the second of two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import residua
from residua.errors import ResiduaError
from residua.networks.zoo.catalogue import build
from residua.weights.load import read_file

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*not recorded in the file:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*it has a single output:UserWarning"),
]

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
COLOURS = {"mean": [0.0] * 3, "std": [255.0] * 3}


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as BCEWithLogitsLoss trains it."""
    file = tmp_path_factory.mktemp("binary") / "binary.pth"
    torch.save(build("cifar_resnet20", classes=1, seed=3).state_dict(), file)
    return file


def test_one_output_is_read_as_a_sigmoid(binary: Path) -> None:
    network = build("cifar_resnet20", classes=1, seed=3)
    network.load_state_dict(torch.load(binary, weights_only=True))
    transform = residua.transform(binary, preprocessing=COLOURS)
    with torch.inference_mode():
        chance = float(network.eval()(transform(IMAGE)[None]).sigmoid())
    options = {"classes": ["cat", "dog"], "preprocessing": COLOURS}
    (row,) = residua.predict(binary, IMAGE, **options)
    assert dict(row.top) == {"dog": pytest.approx(chance), "cat": pytest.approx(1 - chance)}
    assert abs(chance - 0.5) > 0.01
    with pytest.warns(UserWarning, match="a single output, which is read as the probability"):
        residua.predict(binary, IMAGE, preprocessing=COLOURS)


def test_one_name_is_not_enough(binary: Path) -> None:
    with pytest.raises(ResiduaError, match="has a sigmoid output for two classes, but 1"):
        residua.predict(binary, IMAGE, classes=["dog"])
    assert residua.features(binary, IMAGE).values.shape == (1, 64)
    assert read_file(binary).metadata.network.classes == 2
