"""The page of the four scenarios follows its numbers, and its datasets are fair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from residua.data.open import open_dataset
from residua.studies.claims.scenarios import (
    SCENARIOS,
    STRATEGIES,
    Results,
    Scenario,
    build_page,
    digits,
    patches,
    write_images,
)

GOOD, BAD = [0.90, 0.91, 0.92], [0.70, 0.72, 0.71]
Accuracies = Callable[[Scenario, str], Sequence[float]]


def results(accuracies: Accuracies) -> list[Results]:
    return [
        Results(
            scenario,
            {strategy: accuracies(scenario, strategy) for strategy in STRATEGIES},
            ["features"] * len(accuracies(scenario, "auto")),
            100,
        )
        for scenario in SCENARIOS
    ]


def test_advice_that_is_best_everywhere_is_reported() -> None:
    page = build_page(results(lambda s, name: GOOD if name == s.advised else BAD), "10s")
    assert "worse than another fixed strategy in 0 of 4 scenarios" in page.findings[0]
    assert "better than all of them in 4 (" in page.findings[0]
    for scenario in SCENARIOS:
        assert any(
            line.lower().startswith(scenario.name)
            and (
                f"{scenario.advised} is 20.00 points higher" in line
                or f"20.00 points lower than {scenario.advised}" in line
            )
            for line in page.findings
        )


def test_advice_that_is_beaten_is_reported() -> None:
    page = build_page(results(lambda s, name: GOOD if name == "scratch" else BAD), "10s")
    beaten = "in 3 (small and similar, small and different, large and similar) of 4"
    assert beaten in page.findings[0]
    assert "better than all of them in 1 (large and different)" in page.findings[0]
    assert any("auto is 20.00 points below it" in line for line in page.sections[1].text)


def test_nothing_is_claimed_from_equal_accuracies_or_one_seed() -> None:
    equal = build_page(results(lambda s, name: GOOD), "10s")
    assert (
        "in 0 of 4 scenarios, and significantly better than all of them in 0."
        in (equal.findings[0])
    )
    assert any("auto is equal to it" in line for line in equal.sections[1].text)
    step = build_page(  # one image of 100 in every seed
        results(lambda s, name: [0.89, 0.90, 0.91] if name == "scratch" else GOOD), "10s"
    )
    for page in (equal, step):
        assert sum("no significant difference" in line for line in page.findings) == 4
    single = build_page(results(lambda s, name: [0.9]), "10s")
    assert "nothing is claimed" in single.findings[0]


def test_no_test_image_is_trained_on(tmp_path: Path) -> None:
    for few in (10, 0):
        folder = write_images(tmp_path / str(few), digits()[5:7], few, seed=1, first=5)
        entries = open_dataset(folder).entries
        splits = {split: [e for e in entries if e.split == split] for split in ("train", "test")}
        assert {entry.label for entry in splits["train"]} == {0, 1}
        names = {s: {Path(entry.path).parts[-2:] for entry in splits[s]} for s in splits}
        assert not names["train"] & names["test"]
        assert (len(splits["train"]) == 20) == bool(few)
        assert len(splits["test"]) > 100


def test_patches_are_cut_without_gaps_or_overlaps() -> None:
    first = patches()[0]
    grey = np.asarray(Image.fromarray(load_sample_images().images[0]).convert("L"))
    columns = grey.shape[1] // 16
    assert np.array_equal(first[columns + 2], grey[16:32, 32:48])
