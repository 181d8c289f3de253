"""The README's commands run as they stand there, and its figures stand in the files it names."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from residua.weights.published.imagenet import SOURCES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def commands() -> list[str]:
    """Lines of code blocks that start with `residua`, without their comments."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", README, re.M | re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith("residua ")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the README's reader has: a folder of photos, and new images to name."""
    generator = np.random.default_rng(0)
    for name, colour in (("puffin", 0), ("toucan", 2)):
        for number in range(15):
            pixels = generator.integers(0, 60, (12, 12, 3), dtype=np.uint8)
            pixels[..., colour] += 150
            file = tmp_path / "photos" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    (tmp_path / "holiday").mkdir()
    Image.fromarray(pixels).save(tmp_path / "holiday" / "beach.jpg")
    Image.fromarray(pixels).save(tmp_path / "new.jpg")
    _write_weights(tmp_path)
    return tmp_path


def _write_weights(folder: Path) -> None:
    """A file of Keras, and published weights as an earlier download left them in the cache."""
    from references import keras_networks, torch_networks

    model = keras_networks.build("keras_mobilenet", 1000, 224)
    keras_networks.randomise(model, seed=0)
    model.save_weights(folder / "keras.weights.h5")
    source = SOURCES["resnet50"]
    cached = folder / "cache" / "weights" / source.file
    cached.parent.mkdir(parents=True)
    torch.save(torch_networks.state_dict("resnet50"), cached)
    record = {
        "address": source.address,
        "published": source.digest,
        "size": cached.stat().st_size,
        "digest": f"sha256:{hashlib.sha256(cached.read_bytes()).hexdigest()}",
        "commit": "",
        "etag": "",
    }
    cached.with_name(f"{cached.name}.json").write_text(json.dumps(record))


def test_every_command_of_the_readme_works(place: Path) -> None:
    found = commands()
    assert {line.split()[1] for line in found} >= {
        "train",
        "resume",
        "evaluate",
        "predict",
        "models",
        "look",
        "features",
        "weights",
    }
    environment = {**os.environ, "RESIDUA_CACHE": str(place / "cache")}
    for line in found:
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_python_example_of_the_readme_works(place: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_figures_stand_in_the_files_that_are_named() -> None:
    rows = re.findall(r"^\|(.+)\|\s*\[`(.+?)`\]\((benchmarks/results/.+?)\)\s*\|$", README, re.M)
    assert len(rows) >= 4
    for cells, name, link in rows:
        measured = (ROOT / link).read_text("utf-8")
        assert Path(link).name == name
        figures = re.findall(r"\*\*(.+?)\*\*", cells)
        assert figures, cells
        for figure in figures:
            assert figure in measured, f"{figure} is not in {link}"
