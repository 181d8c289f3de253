"""`residua look`: the summary of a data set and the sample images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.command_line import residua
from references.images import write_colours


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes with 12 images of 24 x 20 px each, and a file that is no image."""
    write_colours(tmp_path / "data", {"red <b>": 0, "猫头鹰": 1}, 12, (20, 24), seed=1)
    (tmp_path / "data" / "red <b>" / "broken.png").write_bytes(b"<html>")
    return tmp_path / "data"


@pytest.mark.slow
def test_look_summarises_the_data_and_writes_grids(data: Path) -> None:
    whole = min(data.glob("red*/0*.png")).read_bytes()
    (data / "red <b>" / "cut.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
    result = residua("look", "data", cwd=data.parent)
    assert result.status == 0, result.stderr
    for line in (
        "width: 24 to 24 px, median 24",
        "height: 20 to 20 px, median 20",
        "formats: PNG 24",
        "colour modes: RGB 24",
    ):
        assert line in result.stdout
    for name in ("broken", "cut"):
        assert f"unreadable: red <b>/{name}.png: " in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "written to looks/data: a grid of images for each class, and training-batch.png"
    )
    grids = sorted((data.parent / "looks" / "data").iterdir())
    assert [grid.name for grid in grids] == [
        "class-000-red_b_.png",
        "class-001-_.png",
        "training-batch.png",
    ]
    red = np.asarray(Image.open(grids[0]))
    assert red.shape[0] > 2 * 64  # 12 tiles in two rows
    assert red[red.min(-1) < 255][:, 0].mean() > 150  # the tiles, on white


@pytest.mark.slow
def test_look_leaves_the_data_alone(data: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*"))
    residua("look", "data", cwd=data.parent)
    assert sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*")) == before
    result = residua("look", "data", "--out", "data/looks", cwd=data.parent)
    assert result.status == 1
    assert not (data / "looks").exists()


def test_the_training_batch_is_as_the_network_receives_it(data: Path) -> None:
    words = ["--size", "10", "--channels", "1", "--out", "small", "--batch-size", "4"]
    residua("look", "data", *words, cwd=data.parent)
    batch = Image.open(data.parent / "small" / "training-batch.png")
    assert batch.mode == "L"
    tile = 10 * 7  # px: the least whole factor that reaches 64
    assert batch.size == (4 * (tile + 2) + 2, tile + 2 + 2)


@pytest.mark.slow
def test_the_split_and_the_augmentation_that_train_would_use_are_stated(data: Path) -> None:
    probe = residua("look", "data", "--transfer", "features", cwd=data.parent)
    assert "a linear probe on the images of the grids, without augmentation" in probe.stdout
    assert probe.stdout.splitlines()[-1].endswith("a grid of images for each class")
    assert not (data.parent / "looks" / "data" / "training-batch.png").exists()
    auto = residua("look", "data", cwd=data.parent).stdout
    assert "before fine-tuning, hold out 20 % of the images for validation" in auto
    assert "fine-tune with augmentation, as in training-batch.png" in auto
    scratch = residua("look", "data", "--weights", "none", cwd=data.parent).stdout
    assert "linear probe" not in scratch
    assert (data.parent / "looks" / "data" / "training-batch.png").exists()
