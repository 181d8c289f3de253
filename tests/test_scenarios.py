"""The page of the four scenarios says what its numbers say, and its images are fair."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from residua.data.open import open_dataset
from residua.errors import ResiduaError
from residua.studies.claims import scenarios
from residua.studies.plan import Asked
from residua.studies.run_study import conduct
from residua.system.console import Console

TESTED = dict.fromkeys(scenarios.TUTORIAL, 100)
GOOD, BAD = [0.90, 0.91, 0.92], [0.70, 0.72, 0.71]


def found(best: dict[str, str]) -> dict[str, dict[str, list[float]]]:
    return {
        scenario: {name: GOOD if name == way else BAD for name in scenarios.STRATEGIES}
        for scenario, way in best.items()
    }


def test_words_follow_the_numbers() -> None:
    advice = {scenario: way for scenario, (_, _, way) in scenarios.TUTORIAL.items()}
    chosen = {scenario: ["features"] * 3 for scenario in advice}
    page = scenarios.page_of(found(advice), chosen, TESTED, "10s")
    assert "worse than another fixed way in 0" in page.findings[0]
    assert "better than all of them in 4 (" in page.findings[0]
    for scenario, way in advice.items():
        assert any(
            line.lower().startswith(scenario)
            and (
                f"{way} is 20.00 points higher" in line or f"20.00 points lower than {way}" in line
            )
            for line in page.findings
        )

    page = scenarios.page_of(found(dict.fromkeys(advice, "scratch")), chosen, TESTED, "10s")
    assert "in 3 (small and similar, small and different, large and similar)" in page.findings[0]
    assert "better than all of them in 1 (large and different)" in page.findings[0]
    assert any("auto is 20.00 points below it" in line for line in page.sections[1].text)

    equal = {each: dict.fromkeys(scenarios.STRATEGIES, GOOD) for each in advice}
    page = scenarios.page_of(equal, chosen, TESTED, "10s")
    assert "in 0, and better than all of them in 0." in page.findings[0]
    assert sum("no difference seen" in line for line in page.findings) == 4
    assert any("auto is equal to it" in line for line in page.sections[1].text)

    step = {each: {**rows, "scratch": [0.89, 0.90, 0.91]} for each, rows in equal.items()}
    page = scenarios.page_of(step, chosen, TESTED, "10s")  # one image of 100 in every seed
    assert sum("no difference seen" in line for line in page.findings) == 4

    single = {each: {name: [0.9] for name in rows} for each, rows in equal.items()}
    page = scenarios.page_of(single, chosen, TESTED, "10s")
    assert "nothing is claimed" in page.findings[0]


def test_no_image_of_the_test_part_is_learnt_from(tmp_path: Path) -> None:
    for few in (10, 0):
        place = scenarios._data(tmp_path / str(few), scenarios._digits(), range(5, 10), few, seed=1)
        source = open_dataset(place)
        parts = {part: [e for e in source.entries if e.split == part] for part in ("train", "test")}
        assert {entry.label for entry in parts["train"]} == set(range(5))
        names = {part: {Path(e.path).parts[-2:] for e in each} for part, each in parts.items()}
        assert not names["train"] & names["test"]
        assert (len(parts["train"]) == 50) == bool(few)
        assert len(parts["test"]) > 300


def test_patches_are_cut_without_gaps_or_overlaps() -> None:
    import numpy as np
    from sklearn.datasets import load_sample_images

    first = scenarios._patches()[0]
    grey = np.asarray(Image.fromarray(load_sample_images().images[0]).convert("L"))
    columns = grey.shape[1] // 16
    assert np.array_equal(first[columns + 2], grey[16:32, 32:48])


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    for asked in (Asked("elsewhere", 3), Asked("digits", 3, given={"training.epochs": 3})):
        with pytest.raises(ResiduaError, match="makes its own images"):
            conduct("transfer-scenarios", asked, str(tmp_path / "out"), quiet)
    with pytest.raises(ResiduaError, match="trains no runs"):
        conduct("softmax", Asked("elsewhere", 3), str(tmp_path / "out"), quiet)
    assert not (tmp_path / "out").exists()


def test_a_budget_that_is_none_claims_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "own"
    asked = Asked("digits", 1, budget="10x")
    with pytest.raises(ResiduaError, match="10x"):
        conduct("transfer-scenarios", asked, str(out), Console(quiet=True))
    assert not out.exists()


def test_a_computed_study_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = conduct("softmax", Asked("digits", 3), None, Console(quiet=True))
    assert page == Path("studies/softmax/index.html")
    assert page.exists()


def test_a_computed_study_overwrites_nothing_but_itself(tmp_path: Path) -> None:
    quiet, asked = Console(quiet=True), Asked("digits", 3)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    with pytest.raises(ResiduaError, match="holds something else"):
        conduct("softmax", asked, str(tmp_path / "site"), quiet)
    assert (tmp_path / "site" / "index.html").read_text() == "mine"
    for _ in range(2):
        conduct("softmax", asked, str(tmp_path / "softmax"), quiet)
    with pytest.raises(ResiduaError, match="study 'softmax', not 'identity'"):
        conduct("identity", asked, str(tmp_path / "softmax"), quiet)
