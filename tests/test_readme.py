"""The README's commands run as they stand there, and its figures stand in the files it names."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def commands() -> list[str]:
    """Lines of code blocks that start with `residua`, without their comments."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", README, re.M | re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith("residua ")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the README's reader has: a folder of photos, and new pictures to name."""
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
    return tmp_path


def test_every_command_of_the_readme_works(place: Path) -> None:
    found = commands()
    assert {line.split()[1] for line in found} >= {
        "train",
        "resume",
        "evaluate",
        "predict",
        "models",
        "look",
    }
    for line in found:
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, cwd=place, capture_output=True, text=True)
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
