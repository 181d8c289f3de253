"""The page of a study says what its tables say, and loads nothing from elsewhere."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from residua.studies.page import settings_sentence
from residua.studies.study import StudyOptions


@pytest.mark.slow
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


@pytest.mark.slow
def test_figures_are_images(done: Path) -> None:
    for name in ("curves", "losses", "accuracies"):
        with Image.open(done / "figures" / f"{name}.png") as image:
            assert image.size[0] > 800
        assert ET.parse(done / "figures" / f"{name}.svg").getroot().tag.endswith("svg")


def test_changes_of_the_papers_settings_are_listed() -> None:
    paper = StudyOptions(paper=True)
    assert settings_sentence(paper, True).endswith("are those of the paper (--paper).")
    shorter = StudyOptions(paper=True, settings={"training.epochs": 41})
    expected = "except: training.epochs = 41 (learning-rate milestones at the same fractions"
    assert expected in settings_sentence(shorter, True)
    assert "milestones" not in settings_sentence(shorter, False)
    steps = {"training.epochs": 41, "optimization.steps": [[5, 0.1]]}
    assert "milestones" not in settings_sentence(StudyOptions(paper=True, settings=steps), True)


def test_default_settings_are_stated_to_suit_a_small_machine() -> None:
    budget = settings_sentence(StudyOptions(budget="20m"), True)
    assert budget.startswith("Default settings suit a small machine")
    assert "as many epochs as fit into 20m" in budget
