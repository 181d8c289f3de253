"""Each trouble of a file is found, with its image, and ordinary folders give no findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from references.scenes import scene, write_scenes

from residua.audits.files import check_files
from residua.audits.finding import Finding
from residua.audits.images import read
from residua.config.schema import Data
from residua.system.console import Console


def findings(folder: Path) -> dict[str, Finding]:
    images = read(Data(str(folder)), 0, Console(quiet=True))
    return {finding.kind: finding for finding in check_files(images)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "data")


def save(image: Image.Image, file: Path, **options: object) -> None:
    image.save(file, **options)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


TROUBLES = {
    "wrong-suffix": lambda file: save(scene(90), file.with_suffix(".jpg"), format="PNG"),
    "tiny": lambda file: save(scene(90).resize((5, 9)), file),
    "extreme-shape": lambda file: save(scene(90).resize((900, 40)), file),
    "constant": lambda file: save(Image.new("RGB", (96, 96), "red"), file),
    "exposure": lambda file: save(scene(90).point(lambda value: value // 12), file),
    "blurred": lambda file: save(scene(90).filter(ImageFilter.GaussianBlur(7)), file),
    "exif-rotated": lambda file: save(scene(90), file.with_suffix(".jpg"), exif=_exif(6)),
    "colour-modes": lambda file: save(scene(90).convert("L"), file),
    "animated": lambda file: save(
        scene(90), file.with_suffix(".gif"), save_all=True, append_images=[scene(91)]
    ),
    "unreadable": lambda file: file.write_bytes(scene(90).tobytes()[:100]),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_trouble_is_found_with_its_image(kind: str, folder: Path) -> None:
    TROUBLES[kind](folder / "class0" / "trouble.png")
    finding = findings(folder)[kind]
    assert finding.count == 1
    assert [example.path.split(".")[0] for example in finding.examples] == ["class0/trouble"]


def test_ordinary_images_give_no_findings(folder: Path) -> None:
    assert findings(folder) == {}


def test_large_images_among_small_ones_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residua.audits.files.GIANT", 400_000)
    save(scene(90).resize((800, 600)), folder / "class0" / "large.png")
    assert findings(folder)["giant"].examples[0].path == "class0/large.png"


def test_empty_folders_alike_names_and_small_classes_are_found(folder: Path) -> None:
    (folder / "empty").mkdir()
    save(scene(90), (folder / "Class 0").mkdir() or folder / "Class 0" / "a.png")
    found = findings(folder)
    assert "empty/ contains no images" in found["structure"].title
    assert "'Class 0', 'class0'" in found["alike-class-names"].title
    assert "Class 0 (1)" in found["small-classes"].title


def test_a_class_in_the_training_set_alone_is_found(tmp_path: Path) -> None:
    write_scenes(tmp_path / "train", classes=3, count=6)
    write_scenes(tmp_path / "test", classes=2, count=5)
    assert (
        "'class2' has images in the train set alone"
        in findings(tmp_path)["class-in-one-split"].title
    )


def test_exclusions_are_proposed_for_images_without_content(folder: Path) -> None:
    TROUBLES["constant"](folder / "class1" / "red.png")
    finding = findings(folder)["constant"]
    (fix,) = finding.fixes
    assert (fix.path, fix.action) == ("class1/red.png", "exclude")
    assert finding.action == "Exclude it."
    TROUBLES["constant"](folder / "class1" / "red too.png")
    assert findings(folder)["constant"].action == "Exclude them."


@pytest.mark.slow
def test_array_data_sets_are_measured() -> None:
    images = read(Data("digits"), 0, Console(quiet=True))
    assert len(images.measured) == 1797
    assert check_files(images) == []
    assert images.measured[0].contrast == pytest.approx(
        float(np.asarray(images.pixels(0), np.float64).std()), rel=1e-3
    )
