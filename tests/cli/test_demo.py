"""`residua demo`: the digits that it writes are held out, one of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import residua
from residua.cli.demo import SCALE, SETTINGS, _write_held_out, name_photos
from residua.system.console import Console


@pytest.mark.slow
def test_the_written_digits_are_held_out_images_one_of_each_class(tmp_path: Path) -> None:
    settings = {**SETTINGS, "training.max_images": 50, "network.name": "cifar_resnet20"}
    run = residua.train("digits", epochs=1, out=tmp_path / "run", settings=settings, quiet=True)
    files = _write_held_out(run)
    assert list(files) == list("0123456789")
    assert all(file == run.path / "held-out" / f"{label}.png" for label, file in files.items())
    test_images = {
        int(Path(member.path).stem) for member in run.folder.read_split() if member.split == "test"
    }
    digits = load_digits()
    for label, file in files.items():
        pixels = np.asarray(Image.open(file))
        assert pixels.shape == (8 * SCALE, 8 * SCALE)
        small = pixels[::SCALE, ::SCALE] / 255
        distances = np.abs(digits.images / 16 - small).sum((1, 2))
        nearest = int(distances.argmin())
        assert distances[nearest] < 0.2
        assert str(digits.target[nearest]) == label
        assert nearest in test_images


@pytest.mark.slow
def test_two_photos_are_named_without_a_network() -> None:
    china, flower = name_photos(Console(quiet=True))
    assert "palace" in china.top[0][0]
    assert any("daisy" in name for name, _ in flower.top)
