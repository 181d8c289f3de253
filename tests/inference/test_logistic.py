"""The head against scikit-learn's own, and the folds of its cross-validation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references.clouds import Floats, Labels, clouds
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from residua.errors import ResiduaError
from residua.inference.logistic import LinearHead, class_weights, fit_logistic, folds_of


def reference(features: Floats, labels: Labels, c: float) -> Pipeline:
    head = LogisticRegression(C=c, tol=1e-9, max_iter=50_000)
    return make_pipeline(StandardScaler(), head).fit(features.astype(np.float64), labels)


def logits_of(head: LinearHead, features: Floats) -> npt.NDArray[np.float64]:
    return features.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias


def test_many_classes_of_one_image_are_fitted_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    features, _ = clouds(8, 20, 2)
    head = fit_logistic(features, np.arange(8), 8, 1.0)
    assert logits_of(head, features).argmax(axis=1).tolist() == list(range(8))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("rows", "width", "classes"), [(40, 150, 3), (300, 20, 4), (30, 90, 2), (150, 10, 2)]
)
@pytest.mark.parametrize("c", [1e-4, 1.0])
def test_the_head_is_that_of_scikit_learn(rows: int, width: int, classes: int, c: float) -> None:
    features, labels = clouds(rows + 50, width, classes)
    head = fit_logistic(features[:rows], labels[:rows], classes, c)
    ours = logits_of(head, features)  # 50 rows that were not fitted, too
    theirs = reference(features[:rows], labels[:rows], c).decision_function(features)
    if classes == 2:
        ours = ours[:, 1] - ours[:, 0]
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert head.weight.shape == (classes, width)
    np.testing.assert_allclose(ours, theirs, atol=1e-2 * np.abs(theirs).max())


@pytest.mark.parametrize("balanced", [False, True])
def test_weights_of_rows_multiply_those_of_their_classes(balanced: bool) -> None:
    features, labels = clouds(300, 6, 3, distance=0.5)
    weights = np.random.default_rng(0).exponential(1, 300)
    weights[labels == 0] *= 20
    ours = logits_of(
        fit_logistic(features, labels, 3, 0.1, balanced=balanced, weights=weights), features
    )
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    factors = compute_sample_weight("balanced" if balanced else None, labels)
    model = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000)
    theirs = model.fit(standard, labels, weights * factors).decision_function(standard)
    np.testing.assert_allclose(ours, theirs, atol=1e-2 * np.abs(theirs).max())
    plain = logits_of(fit_logistic(features, labels, 3, 0.1, balanced=balanced), features)
    assert np.abs(plain - ours).max() > 0.1 * np.abs(theirs).max()


def test_constant_columns_and_units_do_not_matter() -> None:
    features, labels = clouds(60, 8, 3)
    plain = logits_of(fit_logistic(features, labels, 3, 0.1), features)
    other = np.column_stack([features * 1000 - 7, np.full(60, 3.7)]).astype(np.float32)
    head = fit_logistic(other, labels, 3, 0.1)
    np.testing.assert_allclose(logits_of(head, other), plain, atol=2e-2)
    np.testing.assert_allclose(head.weight[:, -1], 0, atol=1e-6)


@pytest.mark.parametrize("width", [5, 80])
def test_a_class_without_images_is_never_predicted(width: int) -> None:
    features, labels = clouds(60, width, 3)
    labels = np.array([0, 2, 4])[labels]
    head = fit_logistic(features, labels, 6, 0.1)
    far = features * np.float32(50) - np.float32(100)
    for rows in (features, far):
        assert set(logits_of(head, rows).argmax(axis=1)) <= {0, 2, 4}
    present = logits_of(head, features)[:, [0, 2, 4]]
    theirs = reference(features, labels, 0.1).decision_function(features)
    np.testing.assert_allclose(present, theirs, atol=2e-2)


def test_one_class_or_broken_features_are_refused_with_a_reason() -> None:
    features, labels = clouds(20, 5, 2)
    with pytest.raises(ResiduaError, match=r"of 1 class: .* at least two"):
        fit_logistic(features, np.zeros(20, np.int64), 2, 1.0)
    features[7, 3] = np.nan
    with pytest.raises(ResiduaError, match=r"1 of 20 images .* number 7"):
        fit_logistic(features, labels, 2, 1.0)


def test_class_weights_give_every_class_the_same_weight() -> None:
    labels = np.array([0] * 30 + [2] * 10)
    weights = class_weights(labels)
    assert weights.mean() == pytest.approx(1)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 2].sum())


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


def test_a_feature_that_is_almost_constant_cannot_outweigh_the_others() -> None:
    """It is large in a new image, as a feature after a ReLU that few training images activate."""
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = generator.normal(size=(200, 50)).astype(np.float32)
    features[:, :5] += labels[:, None]
    features[:, 49] = 1e-5 * (labels + 0.1 * generator.normal(size=200))
    head = fit_logistic(features, labels, 2, 1.0)
    new = np.zeros((1, 50), np.float32)
    new[0, :5], new[0, 49] = 1.5, -0.1
    assert (new @ head.weight.T + head.bias).argmax() == 1
