"""Metrics against independent computations: textbook values, plain loops, SciPy, scikit-learn."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.errors import ResiduaError
from residua.evaluation.metrics import compute_metrics
from residua.uncertainty.intervals import wilson_interval
from residua.uncertainty.softmax import log_softmax, softmax


def random_case(
    images: int, classes: int, outputs: int | None = None, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[str]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(size=(images, outputs or classes)).astype(np.float32)
    logits[np.arange(images), labels] += 1.5
    return logits, labels, [f"class {k}" for k in range(classes)]


def test_wilson_intervals_are_those_of_the_textbook() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    for correct, total, expected in (
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ):
        assert wilson_interval(correct / total, total) == pytest.approx(expected, abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_bounds_solve_their_equation(total: int, share: float, confidence: float) -> None:
    """Each bound p is where |correct - n p| = z sqrt(n p (1 - p))."""
    from scipy.stats import norm

    correct = round(share * total)
    z = norm.ppf(0.5 + confidence / 2)
    low, high = wilson_interval(correct / total, total, confidence)
    assert 0 <= low <= correct / total <= high <= 1
    for bound in {low, high} - {0.0, 1.0}:
        difference = (correct - total * bound) ** 2
        assert difference == pytest.approx(z * z * total * bound * (1 - bound), rel=1e-6)


def test_wilson_bounds_at_0_and_1_are_exact_and_nonsense_is_refused() -> None:
    assert wilson_interval(1.0, 10)[1] == 1.0
    assert wilson_interval(0.0, 10)[0] == 0.0
    with pytest.raises(ResiduaError, match="no images"):
        wilson_interval(0.0, 0)
    with pytest.raises(ValueError, match="out of range"):
        wilson_interval(1.1, 10)


def test_metrics_equal_plain_loops_and_scikit_learn() -> None:
    from sklearn.metrics import classification_report, roc_auc_score

    logits, labels, classes = random_case(400, 8)
    metrics = compute_metrics(logits, labels, classes)
    predicted = [row.index(max(row)) for row in logits.tolist()]
    hits = sum(p == t for p, t in zip(predicted, labels, strict=True))
    assert metrics.accuracy == hits / 400
    assert metrics.correct == hits
    assert metrics.interval == wilson_interval(hits / 400, 400)
    best = [sorted(range(8), key=row.__getitem__)[3:] for row in logits.tolist()]
    assert metrics.top5 == sum(t in five for five, t in zip(best, labels, strict=True)) / 400
    losses = [
        math.log(sum(map(math.exp, row))) - row[t]
        for row, t in zip(logits.tolist(), labels, strict=True)
    ]
    assert metrics.loss == pytest.approx(math.fsum(losses) / 400, rel=1e-12)
    report = classification_report(labels, predicted, target_names=classes, output_dict=True)
    for row in metrics.per_class:
        expected = report[row.name]
        assert (row.precision, row.recall, row.f1, row.support) == pytest.approx(
            tuple(expected[key] for key in ("precision", "recall", "f1-score", "support"))
        )
    for truth in range(8):
        for guess in range(8):
            number = sum(t == truth and p == guess for p, t in zip(predicted, labels, strict=True))
            assert metrics.confusion[truth, guess] == number
    macro = metrics.to_json()["macro"]
    assert isinstance(macro, dict)
    assert macro["f1"] == pytest.approx(report["macro avg"]["f1-score"])
    chances = softmax(logits)
    for number, row in enumerate(metrics.per_class):
        is_other = labels != number
        assert row.auroc == pytest.approx(roc_auc_score(~is_other, chances[:, number]))
        rejected = sum(predicted[i] != number for i in np.flatnonzero(is_other))
        assert row.specificity == pytest.approx(rejected / is_other.sum())
    assert macro["auroc"] == pytest.approx(roc_auc_score(labels, chances, multi_class="ovr"))


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize("area", [0.7, 0.95])
def test_intervals_of_the_area_under_the_roc_curve_cover_it(area: float, copies: int) -> None:
    """Of 30 images of a class and 200 others, each perhaps with four copies."""
    random, labels = np.random.default_rng(0), np.repeat([0, 1], [200, 30])
    shift = NormalDist().inv_cdf(area) * math.sqrt(2)
    groups = np.arange(230).astype(str).repeat(copies).tolist()
    inside = 0
    for _ in range(400):
        logits = np.zeros((230, 2))
        logits[:, 1] = random.normal(size=230) + shift * labels
        logits = logits.repeat(copies, axis=0)
        row = compute_metrics(logits, labels.repeat(copies), ("a", "b"), groups).per_class[1]
        assert row.auroc_interval is not None
        inside += row.auroc_interval[0] <= area <= row.auroc_interval[1]
    assert 0.93 <= inside / 400 <= 0.995


def predictions_of(
    confusion: np.ndarray, labels: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Logits of predictions drawn from the rows of a confusion matrix of shares."""
    chosen = (random.random(len(labels))[:, None] > confusion.cumsum(1)[labels]).sum(1)
    return np.eye(len(confusion), dtype=np.float32)[chosen.clip(0, len(confusion) - 1)]


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize(("counts", "accuracy"), [((40, 40, 40), 0.85), ((90, 40, 20, 10), 0.9)])
def test_intervals_cover_also_with_few_images_of_a_class_and_with_near_copies(
    counts: tuple[int, ...], accuracy: float, copies: int
) -> None:
    """Each image has `copies` near-copies with the same prediction, in one group."""
    random = np.random.default_rng(copies)
    number = len(counts)
    confusion = np.full((number, number), (1 - accuracy) / (number - 1))
    np.fill_diagonal(confusion, accuracy)
    joint = confusion * np.array(counts)[:, None] / sum(counts)
    f1 = np.mean(2 * np.diag(joint) / (joint.sum(0) + joint.sum(1)))
    labels = np.repeat(np.arange(number), counts)
    covered, naive = np.zeros(4), 0
    for _ in range(250):
        logits = np.repeat(predictions_of(confusion, labels, random), copies, axis=0)
        groups = [str(at) for at in range(len(labels)) for _ in range(copies)]
        every = np.repeat(labels, copies)
        metrics = compute_metrics(logits, every, "abcd"[:number], groups)
        intervals = (metrics.interval, metrics.balanced_interval, metrics.macro_f1_interval)
        for at, (truth, (low, high)) in enumerate(
            zip((accuracy, accuracy, f1), intervals, strict=True)
        ):
            covered[at] += low <= truth <= high
        recall = metrics.per_class[0].recall_interval
        assert recall is not None
        covered[3] += recall[0] <= accuracy <= recall[1]
        low, high = wilson_interval(metrics.accuracy, len(every))
        naive += low <= accuracy <= high
    assert metrics.groups == len(labels)
    assert (covered / 250 > 0.91).all(), covered / 250
    assert (covered / 250 < 0.998).any()
    assert (naive / 250 < 0.75) == (copies == 5)  # copies counted as images are too optimistic


def test_without_any_error_an_interval_still_counts_the_images_of_each_class() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    metrics = compute_metrics(np.eye(2, dtype=np.float32)[labels], labels, "ab")
    assert metrics.interval == wilson_interval(1.0, 100)
    assert metrics.balanced_interval == pytest.approx(wilson_interval(1.0, 4 / (1 / 90 + 1 / 10)))
    assert metrics.per_class[1].recall_interval == wilson_interval(1.0, 10)


def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    logits, labels, classes = random_case(200, 5)
    metrics, predicted = compute_metrics(logits, labels, classes), logits.argmax(1)
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert metrics.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    for low, value, high in (
        (metrics.balanced_interval[0], metrics.balanced_accuracy, metrics.balanced_interval[1]),
        (metrics.macro_f1_interval[0], metrics.macro_f1, metrics.macro_f1_interval[1]),
    ):
        assert 0 < low < value < high < 1


def test_softmax_is_that_of_scipy_in_float64() -> None:
    import scipy.special

    logits = random_case(20, 7)[0] * 300  # exp would overflow float32 and float64
    for ours, theirs in (
        (softmax, scipy.special.softmax),
        (log_softmax, scipy.special.log_softmax),
    ):
        expected = theirs(logits.astype(np.float64), axis=1)
        np.testing.assert_allclose(ours(logits), expected, rtol=1e-13)
        np.testing.assert_array_equal(ours(logits[3]), ours(logits)[3])
    assert softmax(logits).dtype == np.float64


def test_the_loss_neither_overflows_nor_drifts() -> None:
    logits = np.array([[1e4, -1e4], [3e38, 0]], np.float32)
    assert compute_metrics(logits, np.array([0, 0]), ["a", "b"]).loss == 0
    assert compute_metrics(logits[:1], np.array([1]), ["a", "b"]).loss == 2e4
    tiny = np.full((100_000, 2), 1e-4, np.float32)  # a float32 mean would drift
    assert compute_metrics(tiny, np.zeros(100_000, np.int64), ["a", "b"]).loss == pytest.approx(
        math.log(2), rel=1e-13
    )


def test_top5_needs_more_than_five_classes() -> None:
    logits, labels, classes = random_case(50, 5, outputs=1000)
    assert compute_metrics(logits, labels, classes).top5 is None
    logits, labels, classes = random_case(50, 6)
    assert compute_metrics(logits, labels, classes).top5 is not None
    # A constant network ranks by index, as argmax does: five of six classes are in its top five.
    constant = np.zeros((6, 6), np.float32)
    assert compute_metrics(constant, np.arange(6), classes).top5 == 5 / 6


def test_a_wider_head_may_predict_outside_the_classes() -> None:
    logits = np.zeros((4, 1000), np.float32)
    logits[[0, 1, 2, 3], [0, 1, 999, 500]] = 9
    metrics = compute_metrics(logits, np.array([0, 1, 2, 3]), ["a", "b", "c", "d"])
    assert metrics.accuracy == 0.5
    assert metrics.outside == 2
    assert metrics.confusion.sum() == 2
    assert [row.recall for row in metrics.per_class] == [1, 1, 0, 0]
    assert metrics.loss == pytest.approx(math.log(math.exp(9) + 999) - 4.5, rel=1e-6)


def test_undefined_metrics_are_none_and_the_json_is_valid() -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 0, 3]]
    metrics = compute_metrics(logits, np.array([0, 1, 0]), ["a", "b", "c", "d"])
    a, b, c, d = metrics.per_class
    assert (a.precision, a.recall, a.support) == (0.5, 0.5, 2)
    assert (b.precision, b.recall, b.f1, b.support) == (0, 0, 0, 1)
    assert (c.precision, c.recall, c.f1, c.support) == (None, None, None, 0)
    assert (d.precision, d.recall, d.f1) == (0, None, None)
    plain = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert plain["macro"]["recall"] == 0.25
    wanted = {"accuracy", "interval", "top5", "loss", "images", "per_class", "confusion"}
    assert wanted <= plain.keys()
    assert plain["per_class"][2] == {
        "class": "c", "precision": None, "recall": None, "f1": None, "support": 0,
        "recall_interval": None, "specificity": 1.0, "auroc": None, "auroc_interval": None,
    }  # fmt: skip


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_logits_are_wrong_predictions_and_the_json_is_valid(bad: float) -> None:
    logits = np.full((2, 6), bad, np.float32)
    logits[1] = [1, 0, 0, 0, 0, 0]
    metrics = compute_metrics(logits, np.array([0, 0]), [str(k) for k in range(6)])
    assert metrics.accuracy == (0.5 if np.isnan(bad) else 1)
    assert metrics.top5 == metrics.accuracy
    assert json.loads(json.dumps(metrics.to_json(), allow_nan=False))["loss"] is None


def test_an_empty_split_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ResiduaError, match="empty"):
        compute_metrics(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), ["a", "b", "c"])
    with pytest.raises(ValueError, match="classes"):
        compute_metrics(np.zeros((2, 2), np.float32), np.zeros(2, np.int64), ["a", "b", "c"])
    with pytest.raises(ValueError, match="labels"):
        compute_metrics(np.zeros((1, 2), np.float32), np.array([2]), ["a", "b"])
