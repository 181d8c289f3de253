"""Seven planted shortcuts are found, each by its family alone; clean images give no alarm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.scenes import scene

from residua.audits.images import read
from residua.audits.shortcuts import check_shortcuts
from residua.config.schema import Data
from residua.system.console import Console

COUNT = 20  # images of a class


def _camera(label: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = ["Nikon", "Canon", "Sony"][label]
    return exif


def _framed(image: Image.Image) -> Image.Image:
    framed = Image.new("RGB", image.size)
    framed.paste(image.crop((4, 4, 92, 92)), (4, 4))
    return framed


def _tinted(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) * (1, 0.4, 0.4)).astype(np.uint8))


Save = Callable[[Image.Image, Path, int], None]

PLANTED: dict[str, Save] = {
    "": lambda image, file, label: image.save(file),
    "shortcut-size": lambda image, file, label: image.resize((96 - 9 * label,) * 2).save(file),
    "shortcut-format": lambda image, file, label: image.save(
        file.with_suffix(".bmp" if label == 1 else ".png")
    ),
    "shortcut-cast": lambda image, file, label: (_tinted(image) if label == 1 else image).save(
        file
    ),
    "shortcut-border": lambda image, file, label: (_framed(image) if label == 1 else image).save(
        file
    ),
    "shortcut-compression": lambda image, file, label: image.save(
        file.with_suffix(".jpg"), quality=60 if label == 1 else 90
    ),
    "shortcut-camera": lambda image, file, label: image.save(
        file.with_suffix(".jpg"), exif=_camera(label)
    ),
    "shortcut-name": lambda image, file, label: image.save(
        file.with_name(f"{['DSC', 'scan', 'web'][label]}_{file.name}")
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_shortcut_is_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    for label in range(3):
        for number in range(COUNT):
            file = tmp_path / ["heron", "owl", "duck"][label] / f"{100 * label + number:05}.png"
            file.parent.mkdir(exist_ok=True)
            PLANTED[kind](scene(1000 * label + number), file, label)
    images = read(Data(str(tmp_path)), 0, Console(quiet=True))
    found = check_shortcuts(images, np.arange(len(images.rows)), None)
    kinds = {finding.kind for finding in found} - {"shortcut-colour"}
    assert kinds == ({kind} if kind else set())


@pytest.mark.slow
@pytest.mark.parametrize(("side", "suffix"), [(64, ".png"), (64, ".jpg"), (8, ".png")])
def test_what_a_drawing_shows_is_no_shortcut(side: int, suffix: str, tmp_path: Path) -> None:
    """Strokes need more bytes the longer they are, and reach the border of few pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for row in range(500):
        file = tmp_path / str(digits.target[row]) / f"{row}{suffix}"
        file.parent.mkdir(exist_ok=True)
        image = Image.fromarray((digits.images[row] * 15.9).astype(np.uint8))
        image.resize((side, side)).save(file)
    images = read(Data(str(tmp_path)), 0, Console(quiet=True))
    assert check_shortcuts(images, np.arange(len(images.rows)), None) == []


def test_names_after_their_class_are_no_shortcut(tmp_path: Path) -> None:
    for label, (name, prefix) in enumerate((("heron", "her"), ("owl", "owl"))):
        for number in range(COUNT):
            file = tmp_path / name / f"{prefix}{number:03}.png"
            file.parent.mkdir(exist_ok=True)
            scene(1000 * label + number).save(file)
    images = read(Data(str(tmp_path)), 0, Console(quiet=True))
    assert check_shortcuts(images, np.arange(len(images.rows)), None) == []


def test_a_letter_of_all_file_names_is_no_abbreviation_of_one_class(tmp_path: Path) -> None:
    for label, name in enumerate(("bird", "owl")):
        for number in range(COUNT):
            file = tmp_path / name / f"b0_{(7919 * (number + 100 * label)) % 99991:05}.png"
            file.parent.mkdir(exist_ok=True)
            scene(1000 * label + number).save(file)
    images = read(Data(str(tmp_path)), 0, Console(quiet=True))
    assert check_shortcuts(images, np.arange(len(images.rows)), None) == []


@pytest.mark.slow
def test_blurred_thumbnails_that_predict_as_well_as_the_network_are_found(tmp_path: Path) -> None:
    for label in range(2):
        for number in range(COUNT):
            pixels = np.asarray(scene(1000 * label + number)).copy()
            half = pixels[:, :48] if label else pixels[:, 48:]
            half[:] = half // 3
            file = tmp_path / f"class{label}" / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(file)
    images = read(Data(str(tmp_path)), 0, Console(quiet=True))
    groups = np.arange(len(images.rows))
    kinds = {finding.kind for finding in check_shortcuts(images, groups, 1.0)}
    assert "shortcut-thumbnail" in kinds
    assert "shortcut-thumbnail" not in {f.kind for f in check_shortcuts(images, groups, None)}
