"""Predictions from Python, row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from residua.api.prediction import predictions, reading_of
from residua.runs.sources import open_source
from residua.system.console import Console


def test_the_names_of_all_images_are_known_before_the_first_prediction(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    files = [str(tmp_path / f"{name}.png") for name in "abc"]
    for file in files:
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file)
    names: list[str] = []
    source = str(write_weights(tmp_path / "net.safetensors", 5))
    classes, console = [f"class {number}" for number in range(10)], Console(quiet=True)
    weights, run = open_source(source, None, classes, None, console)
    rows = predictions(
        weights,
        reading_of(weights, run, None),
        files,
        top=1,
        coverage=None,
        min_probability=0.0,
        device=torch.device("cpu"),
        grid=None,
        console=console,
        progress=None,
        announce=names.extend,
    )
    assert next(rows).file == files[0]
    assert names == files
