"""The page of a comparison states what its numbers allow, and what limits them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from residua.comparison.page import ComparedRun, RunFacts, comparison_page
from residua.comparison.pairing import ImageResult, RunPredictions, pair_runs
from residua.config.schema import Config
from residua.data.split import Member
from residua.runs.folder import RunFolder


def run(
    folder: Path, name: str, correct: list[bool], split: str = "test", copies: int = 1
) -> ComparedRun:
    """A finished run with one epoch. copies: images that follow one another and form a group."""
    (folder / name).mkdir()
    (folder / name / "report.html").touch()
    results = [
        ImageResult(Member(str(i), "x", "test", str(i), group=group), "x", right)
        for i, right in enumerate(correct)
        for group in [str(i // copies) if copies > 1 else ""]
    ]
    predictions = RunPredictions(name, {split: results}, frozenset())
    facts = RunFacts(
        name=name,
        path=str(folder / name),
        network="cifar_resnet20",
        split=split,
        accuracy=float(np.mean(correct)),
        interval=predictions.interval,
        images=len(correct),
        parameters=270_810,
        multiply_adds=10_064_512,
        file_bytes=1_100_000,
        epochs=1,
        images_per_second=100.0,
        seconds=2.0,
        device="cpu, 1 thread",
    )
    history = [{"epoch": 1.0, "loss": 1.0, "accuracy": 0.5}]
    return ComparedRun(RunFolder(folder / name), Config(), predictions, history, ("x", "y"), facts)


def findings(*runs: ComparedRun) -> list[str]:
    first, *others = [run.predictions for run in runs]
    pairs = pair_runs(first, others)
    return list(comparison_page(runs, pairs, {}).findings)


@pytest.fixture
def two(tmp_path: Path) -> tuple[ComparedRun, ComparedRun]:
    return run(tmp_path, "a", [True, True, False]), run(tmp_path, "b", [True, False, False])


def test_a_difference_is_stated_with_its_interval(two: tuple[ComparedRun, ComparedRun]) -> None:
    first, *rest = findings(*two)
    assert "Test accuracy on the same 3 images: no significant difference between a and b" in first
    assert "95 % CI" in first
    assert any("not the training seed" in sentence for sentence in rest)
    assert "a and b have the same settings." in rest


def test_too_few_shared_images_are_no_comparison(
    two: tuple[ComparedRun, ComparedRun], tmp_path: Path
) -> None:
    single = run(tmp_path, "c", [True])
    assert findings(two[0], single)[0] == (
        "a and c are not compared: 1 common test image outside both training sets, 2 needed."
    )


def test_a_better_run_is_named_with_both_kinds_of_images_and_the_p_value(tmp_path: Path) -> None:
    """scipy.stats.binomtest(3, 15).pvalue = 0.03515625."""
    first = [True] * 85 + [False] * 15
    second = [True] * 82 + [False] * 3 + [True] * 12 + [False] * 3
    sentence = findings(run(tmp_path, "a", first), run(tmp_path, "b", second))[0]
    assert "b is better than a by 9.00 points" in sentence
    assert "12 errors of a are correct in b, 3 the other way round (p = 0.035)" in sentence


def test_an_interval_without_0_beside_a_test_that_is_not_significant_is_explained(
    tmp_path: Path,
) -> None:
    """5 of 100 gained and none lost: p = 2 / 2^5 = 0.0625, Agresti and Min from +0.29 points."""
    first = run(tmp_path, "a", [True] * 90 + [False] * 10)
    second = run(tmp_path, "b", [True] * 95 + [False] * 5)
    sentence = findings(first, second)[0]
    assert "no significant difference" in sentence
    assert "95 % CI +0.29 to +9.51" in sentence
    assert "p = 0.062; the test decides, the interval is approximate" in sentence


def test_a_p_value_is_never_rounded_to_the_level_that_decides(tmp_path: Path) -> None:
    """scipy.stats.binomtest(10, 32).pvalue = 0.0501."""
    first = run(tmp_path, "a", [True] * 10 + [False] * 22 + [True] * 8)
    second = run(tmp_path, "b", [False] * 10 + [True] * 22 + [True] * 8)
    assert "p = 0.0501" in findings(first, second)[0]


def test_p_values_of_several_runs_are_adjusted(tmp_path: Path) -> None:
    """p = 0.035 of one comparison is no evidence if it is the better of two."""
    runs = [
        run(tmp_path, "a", [True] * 85 + [False] * 15),
        run(tmp_path, "b", [True] * 82 + [False] * 3 + [True] * 12 + [False] * 3),
        run(tmp_path, "c", [True] * 85 + [False] * 15),
    ]
    sentences = findings(*runs)
    assert "no significant difference between a and b" in sentences[0]
    assert "p = 0.07" in sentences[0]
    assert any("adjusted for 2 comparisons (Holm)" in sentence for sentence in sentences)


def test_few_images_can_show_no_difference(two: tuple[ComparedRun, ComparedRun]) -> None:
    assert "no difference would be significant on so few images" in findings(*two)[0]


def test_groups_are_stated_with_their_test(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "a", [True, False] * 20, copies=4),
        run(tmp_path, "b", [True] * 40, copies=4),
    ]
    sentence = findings(*runs)[0]
    assert "accuracy on the same 40 images in 10 groups: b is better than a by 50.0" in sentence
    assert "(p = 0.002, sign-flip permutation test in which each group counts once)" in sentence
    alone = [run(tmp_path, name, [True, False], copies=2) for name in "cd"]
    assert findings(*alone)[0] == (
        "c and d are not compared: 2 common test images in 1 group outside both training sets, "
        "2 needed."
    )


def test_excluded_images_and_optimistic_accuracies_are_stated(tmp_path: Path) -> None:
    runs = [run(tmp_path, name, [True, False], "validation") for name in "ab"]
    pair = replace(
        pair_runs(runs[0].predictions, [runs[1].predictions])[0],
        trained_on=(2, 0),
        trained_by=(("b",), ()),
        relabelled=1,
    )
    text = " ".join(comparison_page(runs, [pair], {}).findings)
    assert "2 of the 2 images that a was evaluated on are training images of b: excluded" in text
    assert "1 image of another class in a than in b: excluded." in text
    assert "validation images were used for model selection" in text


def test_one_image_is_singular_and_validation_images_are_no_test_images(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "a", [True] * 9 + [False], "validation"),
        run(tmp_path, "b", [True] * 10, "validation"),
    ]
    pair = pair_runs(runs[0].predictions, [runs[1].predictions])[0]
    pair = replace(pair, trained_on=(1, 0), trained_by=(("b",), ()))
    first, *rest = comparison_page(runs, [pair], {}).findings
    assert "1 image is correct in b only, 0 in a only" in first
    assert any("1 of the 10 images that a was evaluated on is a training" in row for row in rest)
    few = [run(tmp_path, name, [True], "validation") for name in "cd"]
    assert "1 common validation image outside both training sets" in findings(*few)[0]


def test_other_classes_machines_and_unfinished_runs_are_stated(
    two: tuple[ComparedRun, ComparedRun],
) -> None:
    first, second = two
    (second.folder.path / "report.html").unlink()
    facts = replace(second.facts, device="gpu, 8 threads")
    text = " ".join(findings(first, replace(second, classes=("x",), facts=facts, history=[])))
    assert "different classes (2 and 1)" in text
    assert "different machines or threads: do not compare speeds" in text
    assert "b has no history.csv" in text
    assert "b is unfinished" in text


def test_settings_that_differ_are_listed(two: tuple[ComparedRun, ComparedRun]) -> None:
    pairs = pair_runs(two[0].predictions, [two[1].predictions])
    settings = {"training.seed": (0, 1), "network.stage": (None, 2)}
    page = comparison_page(two, pairs, settings)
    assert "a and b differ in training.seed and network.stage only." in page.findings
    table = next(table for table in page.tables if table.name == "settings")
    assert list(table.rows) == [["training.seed", "0", "1"], ["network.stage", "null", "2"]]
    many = {f"data.x{k}": (0, k) for k in range(1, 6)}
    assert "a and b differ in 5 settings." in comparison_page(two, pairs, many).findings


def test_no_difference_has_no_sign_and_values_that_no_run_has_no_line(tmp_path: Path) -> None:
    runs = [
        replace(made, facts=replace(made.facts, images_per_second=None, seconds=None))
        for made in (run(tmp_path, name, [True, True, False]) for name in "ab")
    ]
    pairs = pair_runs(runs[0].predictions, [runs[1].predictions])
    page = comparison_page(runs, pairs, {})
    assert "(b minus a: 0.00 points, " in page.findings[0]
    shown = [line[0] for line in page.tables[0].lines]
    assert "epochs" in shown
    assert not {"images/s", "seconds"} & set(shown)
    assert {"images/s", "seconds"} <= set(page.tables[0].columns)  # the CSV has all columns
