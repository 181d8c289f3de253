"""The page of a study says what its tables say, and loads nothing from elsewhere."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def test_the_page_agrees_with_its_tables_and_needs_no_other_file(
    done: Path, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    text = (done / "index.html").read_text()
    (pair,) = rows_of(done / "differences.csv")
    assert "Two &lt;orders&gt;" in text
    assert "http:" not in text.replace("http://www.w3.org", "")
    assert "https:" not in text
    assert ("Test accuracy: no significant difference" in text) == (pair["significant"] == "no")
    assert ("points higher than a" in text or "points lower than a" in text) == (
        pair["significant"] == "yes"
    )
    assert "Error of others" in text
    assert "Time to equal accuracy" in text
    assert text.count("data:image/svg+xml;base64,") == 3


def test_figures_are_images(done: Path) -> None:
    for name in ("curves", "losses", "accuracies"):
        with Image.open(done / "figures" / f"{name}.png") as image:
            assert image.size[0] > 800
        assert ET.parse(done / "figures" / f"{name}.svg").getroot().tag.endswith("svg")
