"""Of two sizes, the one with the lower cross-validated loss is used, in whatever follows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.lines import Lines

from residua.runs.folder import RunFolder
from residua.transfer import search
from residua.transfer.context import StrategyContext
from residua.transfer.larger_images import larger_size
from residua.weights.load import read_file

ContextOf = Callable[..., StrategyContext]
SIZES = 16, 21  # of the weights, and 9/7 of it
QUICK = {"training__epochs": 1, "optimization__learning_rate": 0.05}


def write_images(folder: Path, side: int, seed: int) -> Path:
    """Three classes that hardly differ, so that the probe errs and other strategies are tried."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(("a", "b", "c")):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.normal(120 + label, 40, (side, side, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_the_size_with_the_lower_loss_is_that_of_the_probe(
    weights: Path, context_of: ContextOf, tmp_path: Path
) -> None:
    chosen = set()
    for seed in range(4):
        data, console = write_images(tmp_path / f"data{seed}", 40, seed), Lines()
        folder = RunFolder(tmp_path / f"run{seed}")
        folder.path.mkdir()
        outcome = search.search(context_of(data, weights, "auto", console, **QUICK), folder)
        if outcome.prepared.config.transfer.strategy != "features":
            continue
        (line,) = re.findall(r"loss (\S+) at 16 px, (\S+) at 21 px", "\n".join(console.lines))
        losses = [float(loss) for loss in line]
        size = SIZES[int(np.argmin(losses))]
        assert outcome.prepared.config.preprocessing.size == size
        assert outcome.prepared.pixels.shape[1:3] == (size, size)
        assert read_file(folder.weights).metadata.preprocessing.size == size
        (choice,) = [c for c in outcome.prepared.choices if c.setting == "preprocessing.size"]
        assert choice.value == size
        result = outcome.result
        assert min(layer.loss for layer in result.layers) == pytest.approx(min(losses), abs=1e-4)
        assert outcome.cross_validated is not None
        assert result.cross_validation is not None
        assert result.cross_validation.errors == int((~outcome.cross_validated.correct).sum())
        chosen.add(size)
    assert chosen == set(SIZES)


def test_only_images_with_more_pixels_are_enlarged(
    weights: Path, context_of: ContextOf, tmp_path: Path
) -> None:
    for side, expected in ((21, 21), (20, None)):
        data = write_images(tmp_path / str(side), side, 0)
        assert larger_size(context_of(data, weights, "auto")) == expected


def test_an_explicit_size_stays(weights: Path, context_of: ContextOf, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 40, 0)
    assert larger_size(context_of(data, weights, "auto", preprocessing__size=16)) is None
