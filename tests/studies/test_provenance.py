"""The page states whose settings the rows have, and what the user changed."""

from __future__ import annotations

from residua.studies.provenance import settings_sentence
from residua.studies.study import StudyOptions


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
