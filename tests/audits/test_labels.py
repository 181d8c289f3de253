"""Planted label errors rank first, clean labels give no findings, overlaps and outliers are named.

Features are drawn around one point per class.
"""

from __future__ import annotations

import numpy as np
import pytest

from residua.audits.finding import Finding
from residua.audits.images import main_axes
from residua.audits.labels import LabelIssues, Predictions, check_labels, find_issues, predict

CLASSES = 4
COUNT = 60  # images of a class


def drawn(seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(CLASSES, 32)) * 3
    labels = np.repeat(np.arange(CLASSES), COUNT)
    features = centres[labels] + spread * generator.normal(size=(len(labels), 32))
    return features.astype(np.float32), labels.astype(np.int64)


def kinds(features: np.ndarray, labels: np.ndarray) -> dict[str, list[str]]:
    groups = np.arange(len(labels))
    predictions = predict(main_axes(features), labels, groups, CLASSES)
    names = [f"class{n}" for n in range(CLASSES)]
    paths = [str(n) for n in range(len(labels))]
    found = check_labels(predictions, labels, names, paths, groups)
    return {f.kind: [e.path for e in f.examples] for f in found}


@pytest.mark.parametrize("seed", range(3))
def test_planted_errors_are_found_and_relabelled(seed: int) -> None:
    features, true = drawn(seed)
    labels = true.copy()
    wrong = np.random.default_rng(seed).choice(len(labels), 20, replace=False)
    labels[wrong] = (labels[wrong] + 1) % CLASSES
    predictions = predict(main_axes(features), labels, np.arange(len(labels)), CLASSES)
    issues = find_issues(predictions, labels)
    assert set(issues.flagged.tolist()) <= set(wrong.tolist())
    assert len(issues.flagged) >= 15  # their number is estimated
    assert set(np.argsort(issues.score)[:20]) == set(wrong.tolist())
    assert (issues.suggested[wrong] == true[wrong]).all()
    assert issues.interval[0] <= 20 <= issues.interval[1]


def test_copies_do_not_make_the_number_of_errors_more_certain() -> None:
    """Four copies of each image are no more evidence than one: the interval is twice as wide."""
    features, labels = drawn()
    labels[::12] = (labels[::12] + 1) % CLASSES
    groups = np.repeat(np.arange(len(labels)), 4)
    features, labels = np.repeat(features, 4, axis=0), np.repeat(labels, 4)
    predictions = predict(main_axes(features), labels, groups, CLASSES)
    low, high = find_issues(predictions, labels).interval
    wide_low, wide_high = find_issues(predictions, labels, groups=groups).interval
    assert wide_high - wide_low == pytest.approx(2 * (high - low), rel=0.1)


def test_clean_labels_give_no_findings() -> None:
    assert kinds(*drawn()) == {}


def test_an_image_is_not_predicted_by_its_own_copies() -> None:
    """Three copies with the same wrong label: each is still predicted by the other images."""
    features, labels = drawn()
    features[1:3], groups = features[0], np.arange(len(labels))
    groups[:3] = 0
    labels[:3] = 2
    predictions = predict(main_axes(features), labels, groups, CLASSES)
    assert predictions.probabilities[:3].argmax(axis=1).tolist() == [0, 0, 0]
    assert predictions.neighbours[:3].argmax(axis=1).tolist() == [0, 0, 0]


def overlaps(same: dict[str, str]) -> list[Finding]:
    """The findings on overlapping classes, where some have the features of another."""
    features, labels = drawn()
    names = ["cat", "kitten", "dog", "fox"]
    for name, other in same.items():
        features[labels == names.index(name)] = features[labels == names.index(other)]
    features += np.random.default_rng(5).normal(size=features.shape).astype(np.float32)
    groups = np.arange(len(labels))
    paths = [str(n) for n in range(len(labels))]
    found = check_labels(
        predict(main_axes(features), labels, groups, CLASSES), labels, names, paths, groups
    )
    return [f for f in found if f.kind == "overlapping-classes"]


def test_labels_of_a_class_that_the_features_do_not_show_are_not_called_wrong() -> None:
    """Flaws too small for the features, as on a tile: each image is surely predicted as the class
    without flaws, and yet its label is right."""
    labels = np.repeat([0, 1, 2], [150, 60, 30])
    generator = np.random.default_rng(0)
    shown = np.where(labels == 2, 0, labels)  # the features show class 0
    shown[:6] = 1  # wrong labels of class 0
    others = generator.uniform(0.001, 0.2, len(labels))
    probabilities = np.repeat(others[:, None], 3, axis=1)
    probabilities[np.arange(len(labels)), shown] = 1 - 2 * others
    predictions = Predictions(probabilities, probabilities, np.ones(len(labels), np.float32))
    paths, groups = [str(n) for n in range(len(labels))], np.arange(len(labels))
    found = {f.kind: f for f in check_labels(predictions, labels, list("abc"), paths, groups)}
    assert found["unchecked-labels"].title.endswith("of 1 class: c (30 of 30)")
    assert found["label-errors"].severity == "warning"
    assert {int(fix.path) for fix in found["label-errors"].fixes} <= set(range(6))
    # half of the 60 labels of b are contradicted, which is not most, however many copies there are
    probabilities[160:190] = 0.9, 0.05, 0.05
    alike = np.where((labels == 1) & (probabilities[:, 1] > 0.5), 150, groups)
    found = {f.kind: f for f in check_labels(predictions, labels, list("abc"), paths, alike)}
    assert found["unchecked-labels"].title.endswith("of 1 class: c (30 of 30)")


def split_detail(text: str) -> list[str]:
    return text.split(": ")


def test_classes_that_overlap_are_named() -> None:
    (overlap,) = overlaps({"kitten": "cat"})
    assert overlap.title.startswith("cat and kitten overlap")
    assert overlap.details == ()


def test_pairs_of_classes_that_overlap_are_one_finding_the_most_confused_first() -> None:
    (overlap,) = overlaps({"kitten": "cat", "dog": "cat"})
    shares = {text: int(share.split()[0]) for text, share in map(split_detail, overlap.details)}
    assert set(shares) == {"cat and kitten", "cat and dog", "kitten and dog"}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert overlap.title.startswith(f"3 pairs of classes overlap, most of all {next(iter(shares))}")
    assert overlap.to_json()["details"] == list(overlap.details)


def test_an_image_unlike_all_others_is_an_outlier() -> None:
    features, labels = drawn(spread=0.5)
    features[7] = -features.mean(axis=0) + 20 * np.random.default_rng(1).normal(size=32)
    assert kinds(features, labels).get("outliers") == ["7"]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [2.0, 6.0, 10.0])  # from 100 % accuracy to 40 %
def test_errors_of_the_predictions_are_not_called_label_errors(spread: float) -> None:
    """All labels are right: images may be listed for review, but no label is said to be wrong."""
    for seed in range(3):
        features, labels = drawn(seed, spread)
        groups = np.arange(len(labels))
        predictions = predict(main_axes(features), labels, groups, CLASSES)
        names, paths = [f"class{n}" for n in range(CLASSES)], [str(n) for n in range(len(labels))]
        for finding in check_labels(predictions, labels, names, paths, groups):
            if finding.kind == "label-errors":
                assert finding.severity == "note"
                assert "errors of the predictions" in finding.title
                assert finding.fixes == ()


@pytest.mark.slow
def test_label_errors_are_found_beside_errors_of_the_predictions() -> None:
    for seed in range(3):
        features, true = drawn(seed, 4.0)
        random = np.random.default_rng(seed)
        wrong = random.choice(len(true), 36, replace=False)
        labels = true.copy()
        labels[wrong] = (true[wrong] + random.integers(1, CLASSES, len(wrong))) % CLASSES
        predictions = predict(main_axes(features), labels, np.arange(len(labels)), CLASSES)
        assert (predictions.combined.argmax(axis=1) != true).any()
        issues = find_issues(predictions, labels)
        assert issues.are_likely
        assert issues.interval[0] <= 36 <= issues.interval[1]


@pytest.mark.parametrize(
    ("given", "proposed"),
    [
        ((2, 2, 2), {"0": "class0", "1": "class0", "2": "class0"}),
        ((2, 0, 2), {"0": "class0", "2": "class0"}),  # contradicting copies
        ((2, 2, 3), {"2": "class2"}),  # none has the likeliest class: one of theirs is chosen
    ],
)
def test_copies_of_an_image_get_one_label(given: tuple[int, ...], proposed: dict[str, str]) -> None:
    labels = np.repeat(np.arange(CLASSES), COUNT)
    others = np.linspace(0.005, 0.13, len(labels))  # from sure to doubtful in each class
    probabilities = np.repeat(np.random.default_rng(0).permuted(others)[:, None], CLASSES, axis=1)
    probabilities[np.arange(len(labels)), labels] = 1 - 3 * probabilities[:, 0]
    probabilities[:3] = 0.97, 0.005, 0.015, 0.01
    labels[:3], alike = given, np.arange(len(labels))
    labels[100:110] = 3  # other wrong labels
    alike[:3] = 0
    predictions = Predictions(probabilities, probabilities, np.ones(len(labels), np.float32))
    names, paths = [f"class{n}" for n in range(CLASSES)], [str(n) for n in range(len(labels))]
    found = {f.kind: f for f in check_labels(predictions, labels, names, paths, alike)}
    fixes = {fix.path: fix.label for fix in found["label-errors"].fixes if int(fix.path) < 3}
    assert fixes == proposed


def test_labels_that_classes_are_mistaken_for_rank_first() -> None:
    """Two doubtful labels of equal probability: class 1 is often given as 2, never as 3."""
    labels = np.repeat(np.arange(CLASSES), COUNT)
    probabilities = np.full((len(labels), CLASSES), 0.01)
    probabilities[np.arange(len(labels)), labels] = 0.97
    mistaken = np.flatnonzero(labels == 1)
    labels[mistaken[:10]] = 2
    probabilities[mistaken[20]] = probabilities[mistaken[21]] = 0.02, 0.56, 0.21, 0.21
    labels[mistaken[20:22]] = 3, 2
    predictions = Predictions(probabilities, probabilities, np.ones(len(labels), np.float32))
    score = find_issues(predictions, labels).score
    assert score[mistaken[21]] < score[mistaken[20]]
    labels[mistaken[:10]] = [0, 2, 3] * 3 + [0]  # spread evenly, this is no evidence
    score = find_issues(predictions, labels).score
    assert score[mistaken[21]] == pytest.approx(score[mistaken[20]])


def test_the_margin_of_a_training_finds_what_predictions_do_not() -> None:
    """Two classes look alike to the features, but not to the network that was trained."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    chance = generator.uniform(0.4, 0.6, len(labels))
    probabilities = np.stack([chance, 1 - chance], axis=1)
    closeness = np.ones(len(labels), np.float32)
    predictions = Predictions(probabilities, probabilities, closeness)
    wrong = np.arange(5)
    margins = generator.normal(4, 1, len(labels))
    margins[wrong] = -1
    margins[90:] = np.nan  # not trained on

    def rank(issues: LabelIssues) -> float:
        return float(issues.score.argsort().argsort()[wrong].mean())

    with_margins = find_issues(predictions, labels, margins)
    assert np.isfinite(with_margins.score).all()
    assert rank(with_margins) < rank(find_issues(predictions, labels)) / 2
