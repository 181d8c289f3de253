"""The linear head against scikit-learn's own, its folds, and what must not leak between them."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from residua.transfer.folds import folds_of
from residua.transfer.probing import neighbours
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from residua.errors import ResiduaError
from residua.transfer.cross_validation import STRENGTHS, probe, race
from residua.transfer.logistic import Linear, class_weights, fit

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def features_of(
    rows: int, width: int, classes: int, distance: float = 1.0, seed: int = 0
) -> tuple[Floats, Labels]:
    """Normal clouds whose columns differ in scale, offset and correlation; all classes present."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = distance * random.normal(size=(classes, width))
    mixing = np.eye(width) + random.normal(size=(width, width)) / np.sqrt(width)
    values = (centres[labels] + random.normal(size=(rows, width))) @ mixing
    scaled = values * np.geomspace(0.01, 30, width) + np.linspace(-5, 50, width)
    return scaled.astype(np.float32), labels


def reference(features: Floats, labels: Labels, strength: float) -> Pipeline:
    head = LogisticRegression(C=strength, tol=1e-9, max_iter=50_000)
    return make_pipeline(StandardScaler(), head).fit(features.astype(np.float64), labels)


def logits_of(head: Linear, features: Floats) -> npt.NDArray[np.float64]:
    return features.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias


@pytest.mark.parametrize(
    ("rows", "width", "classes"), [(40, 150, 3), (300, 20, 4), (30, 90, 2), (150, 10, 2)]
)
@pytest.mark.parametrize("strength", [STRENGTHS[0], 1e-2, 1.0])
def test_a_head_is_that_of_scikit_learn(
    rows: int, width: int, classes: int, strength: float
) -> None:
    features, labels = features_of(rows + 50, width, classes)
    head = fit(features[:rows], labels[:rows], classes, strength)
    ours = logits_of(head, features)  # 50 rows that were not fitted, too
    theirs = reference(features[:rows], labels[:rows], strength).decision_function(features)
    if classes == 2:
        ours = ours[:, 1] - ours[:, 0]
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert head.weight.shape == (classes, width)
    np.testing.assert_allclose(ours, theirs, atol=1e-2 * np.abs(theirs).max())


def test_a_constant_column_and_units_change_nothing() -> None:
    features, labels = features_of(60, 8, 3)
    plain = logits_of(fit(features, labels, 3, 0.1), features)
    other = np.column_stack([features * 1000 - 7, np.full(60, 3.7)]).astype(np.float32)
    head = fit(other, labels, 3, 0.1)
    np.testing.assert_allclose(logits_of(head, other), plain, atol=2e-2)
    np.testing.assert_allclose(head.weight[:, -1], 0, atol=1e-6)


@pytest.mark.parametrize("width", [5, 80])
def test_a_class_without_images_is_never_the_answer(width: int) -> None:
    features, labels = features_of(60, width, 3)
    labels = np.array([0, 2, 4])[labels]
    head = fit(features, labels, 6, 0.1)
    far = features * np.float32(50) - np.float32(100)
    for rows in (features, far):
        assert set(logits_of(head, rows).argmax(axis=1)) <= {0, 2, 4}
    kept = logits_of(head, features)[:, [0, 2, 4]]
    theirs = reference(features, labels, 0.1).decision_function(features)
    np.testing.assert_allclose(kept, theirs, atol=2e-2)


def test_a_class_of_one_image_does_not_choose_the_strength() -> None:
    features, labels = features_of(61, 8, 2)
    labels[60] = 2
    folds = folds_of(labels, [str(n) for n in range(61)], 0)
    found = probe(features, labels, 3, folds)
    assert not found.right[60].any()
    assert np.ptp(found.loss[60]) == 0


def test_one_class_or_broken_features_are_explained() -> None:
    features, labels = features_of(20, 5, 2)
    with pytest.raises(ResiduaError, match=r"of 1 class: .* at least two"):
        fit(features, np.zeros(20, np.int64), 2, 1.0)
    features[7, 3] = np.nan
    folds = folds_of(labels, [str(n) for n in range(20)], 0)
    for what in (lambda: fit(features, labels, 2, 1.0), lambda: probe(features, labels, 2, folds)):
        with pytest.raises(ResiduaError, match=r"1 of 20 images .* number 7"):
            what()


@pytest.mark.parametrize(("rows", "width"), [(60, 15), (50, 120)])
def test_cross_validation_is_that_of_scikit_learn(rows: int, width: int) -> None:
    features, labels = features_of(rows, width, 3, distance=0.3)
    folds = folds_of(labels, [str(n) for n in range(rows)], 1)
    found = probe(features, labels, 3, folds)
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    assert found.strengths == STRENGTHS
    assert found.right.shape == found.loss.shape == (rows, len(STRENGTHS))
    for index in range(found.best + 1):
        chances = np.zeros((rows, 3))
        for fold in np.unique(folds):
            head = LogisticRegression(C=STRENGTHS[index], tol=1e-9, max_iter=50_000)
            head.fit(standard[folds != fold], labels[folds != fold])
            chances[folds == fold] = head.predict_proba(standard[folds == fold])
        losses = -np.log(chances[np.arange(rows), labels])
        assert found.loss[:, index].mean() == pytest.approx(losses.mean(), rel=0.1)
        assert (found.right[:, index] == (chances.argmax(axis=1) == labels)).mean() > 0.9
    assert found.best == found.loss.mean(axis=0).argmin()
    assert found.accuracy == found.right[:, found.best].mean()


def test_balanced_heads_are_chosen_by_balanced_losses() -> None:
    """Each class counts as much as every other, in the fit and in what chooses the strength."""
    features, labels = features_of(400, 6, 2, distance=0.5)
    kept = (labels == 0) | (np.cumsum(labels == 1) <= 20)
    features, labels = features[kept], labels[kept]
    weights = class_weights(labels)
    assert weights.mean() == pytest.approx(1)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    folds = folds_of(labels, [str(n) for n in range(len(labels))], 1)
    found = probe(features, labels, 2, folds, balanced=True)
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    losses = np.zeros(len(labels))
    for fold in np.unique(folds):
        head = LogisticRegression(
            C=STRENGTHS[found.best], tol=1e-9, max_iter=50_000, class_weight="balanced"
        )
        head.fit(standard[folds != fold], labels[folds != fold])
        left = np.flatnonzero(folds == fold)
        losses[left] = -head.predict_log_proba(standard[left])[np.arange(len(left)), labels[left]]
    of_classes = [losses[labels == label].mean() for label in (0, 1)]
    assert found.loss[:, found.best].mean() == pytest.approx(np.mean(of_classes), rel=0.1)
    assert abs(of_classes[0] - of_classes[1]) > 0.1 * np.mean(of_classes)


def test_a_class_of_one_image_is_judged_by_no_head() -> None:
    features, labels = features_of(40, 4, 2)
    features = np.concatenate([features, features[:1] + 1])
    labels = np.concatenate([labels, [2]])
    found = probe(features, labels, 3, folds_of(labels, [str(n) for n in range(41)], 0))
    assert found.judged.tolist() == [True] * 40 + [False]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=2, max_size=120),
    st.integers(0, 2**32 - 1),
    st.randoms(use_true_random=False),
)
def test_folds_keep_equal_contents_together_in_any_order(
    pairs: list[tuple[int, int]], seed: int, random: object
) -> None:
    labels = np.array([label for label, _ in pairs], np.int64)
    contents = [f"content {content}" for _, content in pairs]
    folds = folds_of(labels, contents, seed)
    assert folds.dtype == np.int64
    assert len({(content, fold) for content, fold in zip(contents, folds, strict=True)}) == len(
        set(contents)
    )
    if len(set(contents)) > 1:
        assert len(np.unique(folds)) > 1
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    moved = folds_of(labels[order], [contents[place] for place in order], seed)
    np.testing.assert_array_equal(moved, folds[order])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_folds_have_each_class_in_proportion(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    folds = folds_of(labels, [str(n) for n in range(len(labels))], seed)
    table = np.zeros((folds.max() + 1, len(sizes)), np.int64)
    np.add.at(table, (folds, labels), 1)
    assert np.ptp(table, axis=0).max() <= 1
    assert np.ptp(table.sum(axis=1)) <= 1
    left = np.array(sizes) - table  # what each training set keeps of each class
    assert (left[:, np.array(sizes) > 1] > 0).all()


def test_folds_depend_on_the_seed_and_are_fewer_for_much_data() -> None:
    def folds(number: int, seed: int) -> Labels:
        return folds_of(np.arange(number) % 4, [str(n) for n in range(number)], seed)

    assert (folds(400, 0) != folds(400, 1)).any()
    counts = [len(np.unique(folds(number, 0))) for number in (400, 20_000)]
    assert counts[0] > counts[1] == 5


def test_a_twin_in_the_data_does_not_help() -> None:
    random = np.random.default_rng(3)
    noise = np.repeat(random.normal(size=(100, 300)).astype(np.float32), 2, axis=0)
    labels = np.repeat(random.integers(0, 2, 100), 2)
    contents = [str(n // 2) for n in range(200)]
    folds = folds_of(labels, contents, 0)
    careless = folds_of(labels, [str(n) for n in range(200)], 0)
    for judge in (
        lambda folds: probe(noise, labels, 2, folds).right.mean(axis=0).max(),
        lambda folds: neighbours(noise, labels, folds, 1).mean(),
    ):
        assert judge(careless) > 0.85  # what the twin would give away
        assert judge(folds) < 0.65


def test_a_twin_of_another_class_is_left_out_with_it() -> None:
    features, labels = features_of(60, 10, 2, distance=2.0)
    contents = [str(n) for n in range(60)]
    both = np.concatenate([features, features[:20]])
    mixed = np.concatenate([labels, 1 - labels[:20]])
    folds = folds_of(mixed, contents + contents[:20], 0)
    assert (folds[:20] == folds[60:]).all()
    found = probe(both, mixed, 2, folds)
    pairs = found.right[:20].astype(int) + found.right[60:]
    assert (pairs == 1).all()  # one image, one answer, right for one of its labels


def test_strong_features_and_neighbours_agree_with_the_truth() -> None:
    features, labels = features_of(2_500, 12, 5, distance=4.0)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    folds = folds_of(labels, [str(n) for n in range(len(labels))], 0)
    assert neighbours(features, labels, folds).mean() > 0.98  # of more than one block
    assert probe(features[:500], labels[:500], 5, folds[:500]).accuracy > 0.98


def test_neighbours_are_the_nearest_of_other_folds() -> None:
    features, labels = features_of(50, 6, 3, distance=0.5)
    folds = folds_of(labels, [str(n) for n in range(50)], 0)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = []
    for row in range(50):
        near = [(float(unit[row] @ unit[n]), n) for n in range(50) if folds[n] != folds[row]]
        votes = np.zeros(3)
        for similarity, n in sorted(near, reverse=True)[:10]:
            votes[labels[n]] += max(similarity, 0)
        expected.append(votes.argmax() == labels[row])
    np.testing.assert_array_equal(neighbours(features, labels, folds), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 1000))
def test_the_smallest_and_strangest_data_have_a_head_and_no_warning(
    rows: int, width: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    features = random.integers(0, 2, (rows, width)).astype(np.float32) * np.float32(1e3)
    labels = np.concatenate([[0, 1], random.integers(0, 3, rows - 2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = fit(features, labels, 3, STRENGTHS[-1])
        folds = folds_of(labels, [str(n) for n in range(rows)], seed)
        found = probe(features, labels, 3, folds)  # some training sets may be of one class
    assert np.isfinite(head.weight).all()
    assert np.isfinite(head.bias).all()
    assert np.isfinite(found.loss).all()


def test_a_race_ends_where_probing_each_alone_would_choose() -> None:
    """Rough heads on noise cannot win any more, so they are not tried."""
    good, labels = features_of(300, 12, 3, distance=0.6)
    noise = np.random.default_rng(0).normal(size=(300, 40)).astype(np.float32)
    folds = folds_of(labels, [str(n) for n in range(300)], 1)
    alone = probe(good, labels, 3, folds)
    told: list[tuple[int, int]] = []
    bad = np.concatenate([noise, good[:, :4]], axis=1)
    pair = race([bad, good], labels, 3, folds, report=lambda *done: told.append(done))
    assert np.array_equal(pair[1].right, alone.right)
    assert np.allclose(pair[1].loss, alone.loss)
    whole = probe(bad, labels, 3, folds)
    lowest = [float(each.loss.mean(axis=0).min()) for each in (pair[0], whole)]
    assert not pair[0].followed
    assert pair[1].followed
    assert whole.followed
    assert np.array_equal(pair[0].loss[:, -1], pair[0].loss[:, -2])  # neither was computed
    assert lowest[0] >= lowest[1] > alone.loss.mean(axis=0).min()
    assert told == [(number, len(STRENGTHS)) for number in range(1, len(STRENGTHS) + 1)]
