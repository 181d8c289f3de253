"""`residua predict` marks what is below --min-probability, in rows and in the image grid."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.command_line import residua as command

RED = (0xC4, 0x32, 0x0A)  # of the dashed frame around an unknown image


@pytest.mark.slow
def test_images_below_a_probability_are_unknown_in_csv_and_grid(
    shapes: Path, write_run: Callable[..., object], tmp_path: Path
) -> None:
    write_run(shapes)
    files = sorted(str(file) for file in shapes.glob("*/00[0-2].png"))

    def predicted(*options: str) -> tuple[list[dict[str, str]], bool]:
        """The rows, and whether the grid has a frame."""
        form = ("--format", "csv", "--grid", "grid.png")
        done = command("predict", "run", *files, *form, *options, cwd=tmp_path)
        assert done.status == 0, done.stderr
        with Image.open(tmp_path / "grid.png") as grid:
            is_red = (np.asarray(grid.convert("RGB")) == RED).all(axis=2)
        return list(csv.DictReader(io.StringIO(done.stdout))), is_red.sum() > 100

    before, is_framed = predicted()
    assert not is_framed
    assert {row["unknown"] for row in before} == {""}
    chances = sorted(float(row["probability1"]) for row in before)
    limit = f"{(chances[2] + chances[3]) / 2:.6g}"
    rows, is_framed = predicted("--min-probability", limit)
    assert is_framed
    for row, earlier in zip(rows, before, strict=True):
        is_below = float(row["probability1"]) < float(limit)
        assert row == earlier | {"unknown": f"probability is below {limit}" if is_below else ""}
    assert sum(row["unknown"] != "" for row in rows) == 3
    refused = command("predict", "run", *files, "--min-probability", "83", cwd=tmp_path)
    assert refused.status == 2
    assert "--min-probability" in refused.stderr
