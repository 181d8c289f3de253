"""`residua explain` writes a figure and a row per image, or a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.command_line import residua as command

import residua
from residua.errors import ResiduaError
from residua.runs.folder import RunFolder


@pytest.mark.slow
def test_a_row_and_a_heat_map_for_each_image(run: RunFolder, tmp_path: Path) -> None:
    data = Path(run.config.data.path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    files = [str(data / "class0"), str(tmp_path / "broken.png")]
    done = command(
        "explain", str(run.path), *files, "--class", "class1", "--out", "e.png", cwd=tmp_path
    )
    *rows, broken, out = done.stdout.splitlines()
    assert (len(rows), out) == (20, "e.png")
    assert all("class1" in row for row in rows)
    assert "broken.png" in broken
    assert "error" in broken
    with Image.open(tmp_path / "e.png") as image:
        assert image.width > 400
    again = command("explain", str(run.path), files[0], "--out", "e.png", cwd=tmp_path)
    assert again.status == 0  # a figure of residua may be replaced

    photo = data / "class0" / "000.png"
    before = photo.read_bytes()
    assert command("explain", str(run.path), str(photo), "--out", str(photo)).status == 1
    assert photo.read_bytes() == before


def test_the_predicted_class_is_explained_unless_one_is_named(run: RunFolder) -> None:
    photo = next(Path(run.config.data.path).glob("class0/*.png"))
    (row,) = residua.explain(run.path, photo)
    ((name, probability),) = residua.predict(run.path, photo, top=1)[0].top
    assert row.class_name == name
    assert row.probability == pytest.approx(probability, abs=1e-4)
    assert row.heat.shape == row.pixels.shape[:2]
    assert row.heat.dtype == np.float32
    with pytest.raises(ResiduaError, match=r"has no class 'clas1'.*Did you mean class"):
        residua.explain(run.path, photo, class_name="clas1")
