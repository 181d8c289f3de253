"""The script of --example needs no residua, and predicts what `residua predict` does."""

from __future__ import annotations

import dataclasses
import itertools
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from references.command_line import residua

from residua.config.schema import Preprocessing
from residua.data.image import read_image
from residua.exports import formats
from residua.exports.example import script
from residua.runs.folder import RunFolder
from residua.weights.load import read_file

LIMIT = 10**6


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of several shapes and colour modes, one of them rotated by its EXIF data."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (45, 31, 4), np.uint8)
    image = Image.fromarray(pixels)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    image.convert("RGB").save(folder / "rotated.jpg", exif=rotated)
    image.save(folder / "transparent.png")
    image.convert("RGB").rotate(90, expand=True).save(folder / "wide.png")
    image.convert("L").save(folder / "grey.png")
    image.convert("P").save(folder / "palette.gif")
    image.convert("RGB").resize((16, 16)).save(folder / "small.png")
    return [str(file) for file in sorted(folder.iterdir())]


def run_script(
    text: str, folder: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    (folder / "script.py").write_text(text)
    monkeypatch.setattr(sys, "argv", ["script.py", *files])
    return runpy.run_path(str(folder / "script.py"))


@pytest.mark.slow
def test_the_script_prints_the_predictions_of_residua_or_what_is_wrong(
    run: RunFolder,
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = residua("export", str(run.path), "--example").stdout
    assert len(text.splitlines()) <= 45
    assert "residua." not in text
    assert "import residua" not in text
    run_script(text, tmp_path, files, monkeypatch)
    printed = capsys.readouterr().out
    expected = residua("predict", str(run.path), *files).stdout.replace("<0.1", "0.0")
    assert [line.split() for line in printed.splitlines()] == [
        line.split() for line in expected.splitlines()
    ]
    with pytest.raises(SystemExit, match=r"^usage: python .+ IMAGE\.\.\.$"):
        run_script(text, tmp_path, [], monkeypatch)
    missing, no_image = str(tmp_path / "missing.png"), str(tmp_path / "script.py")
    for file in (missing, no_image):
        with pytest.raises(SystemExit, match=f"^{re.escape(file)}: cannot be read: "):
            run_script(text, tmp_path, [*files, file], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, 1])
def test_the_script_resizes_as_residua_does(
    channels: int,
    run: RunFolder,
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_run: Callable[..., RunFolder],
) -> None:
    run = write_run(Path(run.config.data.path), f"run{channels}", preprocessing__channels=channels)
    weights = read_file(run.weights)
    classifier = formats.Classifier(weights, "fp32")
    file = tmp_path / "model.onnx"
    size = weights.metadata.preprocessing.size
    example = torch.zeros(2, size, size, channels, dtype=torch.uint8)
    text = '{"classes": ["a", "b", "c"]}'
    with formats.quiet_exporters():
        formats.FORMATS["onnx"].exporters["TorchScript"](classifier, example, text, file)
    deep = np.random.default_rng(1).integers(0, 5000, (20, 30)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    files = [*files, str(tmp_path / "deep.png")]
    for resize, interpolation in itertools.product(
        ("crop", "squash", "pad"), ("nearest", "bilinear", "antialias", "bicubic")
    ):
        rule: Preprocessing = dataclasses.replace(
            weights.metadata.preprocessing,
            resize=resize,
            interpolation=interpolation,
            crop=0.875,
            value_range=(0.0, 4095.0),
        )
        names = run_script(script(file, rule), tmp_path, files, monkeypatch)
        expected = [read_image(Path(name), rule, LIMIT) for name in files]
        np.testing.assert_array_equal(names["images"], np.stack(expected), f"{rule}")
