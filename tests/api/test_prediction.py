"""Predictions from Python, row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from residua.api.prediction import predictions
from residua.system.console import Console


def test_the_names_of_all_images_are_known_before_the_first_prediction(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    files = [str(tmp_path / f"{name}.png") for name in "abc"]
    for file in files:
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file)
    names: list[str] = []
    rows = predictions(
        str(write_weights(tmp_path / "net.safetensors", 5)),
        files,
        top=1,
        model=None,
        classes=[f"class {number}" for number in range(10)],
        preprocessing=None,
        coverage=None,
        allow_private=False,
        grid=None,
        check=True,
        console=Console(quiet=True),
        progress=None,
        announce=names.extend,
    )
    assert next(rows).file == files[0]
    assert names == files
