"""Cross-validation against scikit-learn's own, without leaks, and an honest estimate from it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references.clouds import clouds
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from residua.errors import ResiduaError
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureRows
from residua.inference.logistic import class_weights, fit_logistic, folds_of
from residua.transfer import cross_validation
from residua.transfer.cross_validation import (
    C_VALUES,
    LayerScore,
    ProbeScores,
    Targets,
    best_layer,
    measured_gain,
    neighbours,
    race,
    score_layers,
)


def cross_validate(
    features: np.ndarray, labels: np.ndarray, classes: int, folds: np.ndarray
) -> ProbeScores:
    """The race of one layer."""
    return race([features], Targets(labels, classes), folds)[0]


@pytest.mark.parametrize(("rows", "width"), [(60, 15), (50, 120)])
def test_cross_validation_is_that_of_scikit_learn(rows: int, width: int) -> None:
    features, labels = clouds(rows, width, 3, distance=0.3)
    folds = folds_of(labels, [str(n) for n in range(rows)], 1)
    scores = cross_validate(features, labels, 3, folds)
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    assert len(C_VALUES) == scores.loss.shape[1]
    assert scores.correct.shape == scores.loss.shape == (rows, len(C_VALUES))
    for index in range(scores.best + 1):
        probabilities = np.zeros((rows, 3))
        for fold in np.unique(folds):
            head = LogisticRegression(C=C_VALUES[index], tol=1e-9, max_iter=50_000)
            head.fit(standard[folds != fold], labels[folds != fold])
            probabilities[folds == fold] = head.predict_proba(standard[folds == fold])
        losses = -np.log(probabilities[np.arange(rows), labels])
        assert scores.loss[:, index].mean() == pytest.approx(losses.mean(), rel=0.1)
        assert (scores.correct[:, index] == (probabilities.argmax(axis=1) == labels)).mean() > 0.9
    assert scores.best == scores.loss.mean(axis=0).argmin()
    assert scores.accuracy == scores.correct[:, scores.best].mean()


def test_rows_of_little_weight_neither_train_nor_select() -> None:
    features, labels = clouds(400, 6, 2, distance=1.5)
    wrong = np.arange(400) % 3 == 0
    labels[wrong] = 1 - labels[wrong]
    labels[wrong & (np.arange(400) < 300)] = 0  # and most of them as one class
    weights = np.where(wrong, 1e-4, 1.0)
    folds = folds_of(labels, [str(n) for n in range(400)], 1)
    plain, weighted = (
        race([features], Targets(labels, 2, weights=given), folds)[0] for given in (None, weights)
    )
    of_the_others = [probes.correct[~wrong, probes.best].mean() for probes in (plain, weighted)]
    assert of_the_others[1] > of_the_others[0] + 0.02
    assert weighted.loss[wrong].max() < 0.01


def test_balanced_probes_are_selected_by_balanced_losses() -> None:
    """Each class counts as much as every other, in the fit and in what selects C."""
    features, labels = clouds(400, 6, 2, distance=0.5)
    few = (labels == 0) | (np.cumsum(labels == 1) <= 20)
    features, labels = features[few], labels[few]
    weights = class_weights(labels)
    assert weights.mean() == pytest.approx(1)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    folds = folds_of(labels, [str(n) for n in range(len(labels))], 1)
    scores = race([features], Targets(labels, 2, balanced=True), folds)[0]
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    losses = np.zeros(len(labels))
    for fold in np.unique(folds):
        head = LogisticRegression(
            C=C_VALUES[scores.best], tol=1e-9, max_iter=50_000, class_weight="balanced"
        )
        head.fit(standard[folds != fold], labels[folds != fold])
        left = np.flatnonzero(folds == fold)
        losses[left] = -head.predict_log_proba(standard[left])[np.arange(len(left)), labels[left]]
    of_classes = [losses[labels == label].mean() for label in (0, 1)]
    assert scores.loss[:, scores.best].mean() == pytest.approx(np.mean(of_classes), rel=0.1)
    assert abs(of_classes[0] - of_classes[1]) > 0.1 * np.mean(of_classes)


def test_a_class_of_one_image_does_not_influence_c() -> None:
    features, labels = clouds(61, 8, 2)
    labels[60] = 2
    folds = folds_of(labels, [str(n) for n in range(61)], 0)
    scores = cross_validate(features, labels, 3, folds)
    assert not scores.correct[60].any()
    assert np.ptp(scores.loss[60]) == 0


def test_a_class_of_one_image_is_not_evaluated() -> None:
    features, labels = clouds(40, 4, 2)
    features = np.concatenate([features, features[:1] + 1])
    labels = np.concatenate([labels, [2]])
    scores = cross_validate(features, labels, 3, folds_of(labels, [str(n) for n in range(41)], 0))
    assert scores.evaluated.tolist() == [True] * 40 + [False]


def test_a_duplicate_image_does_not_leak() -> None:
    random = np.random.default_rng(3)
    noise = np.repeat(random.normal(size=(100, 300)).astype(np.float32), 2, axis=0)
    labels = np.repeat(random.integers(0, 2, 100), 2)
    contents = [str(n // 2) for n in range(200)]
    folds = folds_of(labels, contents, 0)
    careless = folds_of(labels, [str(n) for n in range(200)], 0)
    for accuracy in (
        lambda folds: cross_validate(noise, labels, 2, folds).correct.mean(axis=0).max(),
        lambda folds: neighbours(noise, labels, folds, 1).mean(),
    ):
        assert accuracy(careless) > 0.85  # the duplicate leaks
        assert accuracy(folds) < 0.65


def test_a_duplicate_in_another_class_is_left_out_with_it() -> None:
    features, labels = clouds(60, 10, 2, distance=2.0)
    contents = [str(n) for n in range(60)]
    both = np.concatenate([features, features[:20]])
    mixed = np.concatenate([labels, 1 - labels[:20]])
    folds = folds_of(mixed, contents + contents[:20], 0)
    assert (folds[:20] == folds[60:]).all()
    scores = cross_validate(both, mixed, 2, folds)
    pairs = scores.correct[:20].astype(int) + scores.correct[60:]
    assert (pairs == 1).all()  # one prediction, correct for one of its labels


def test_separable_classes_are_found_by_probes_and_neighbours() -> None:
    features, labels = clouds(2_100, 12, 5, distance=4.0)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    folds = folds_of(labels, [str(n) for n in range(len(labels))], 0)
    assert neighbours(features, labels, folds).mean() > 0.98  # of more than one block
    assert cross_validate(features[:500], labels[:500], 5, folds[:500]).accuracy > 0.98


def test_neighbours_are_the_nearest_of_other_folds() -> None:
    features, labels = clouds(50, 6, 3, distance=0.5)
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


@pytest.mark.slow
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
        head = fit_logistic(features, labels, 3, C_VALUES[-1])
        folds = folds_of(labels, [str(n) for n in range(rows)], seed)
        scores = cross_validate(
            features, labels, 3, folds
        )  # some training sets may be of one class
    assert np.isfinite(head.weight).all()
    assert np.isfinite(head.bias).all()
    assert np.isfinite(scores.loss).all()


@pytest.mark.slow
def test_a_race_selects_what_cross_validating_each_layer_would() -> None:
    """Weakly regularised probes of noise cannot win any more, so they are not tried."""
    good, labels = clouds(300, 12, 3, distance=0.6)
    noise = np.random.default_rng(0).normal(size=(300, 40)).astype(np.float32)
    folds = folds_of(labels, [str(n) for n in range(300)], 1)
    alone = cross_validate(good, labels, 3, folds)
    reported: list[tuple[int, int]] = []
    bad = np.concatenate([noise, good[:, :4]], axis=1)
    pair = race([bad, good], Targets(labels, 3), folds, report=lambda *done: reported.append(done))
    assert np.array_equal(pair[1].correct, alone.correct)
    assert np.allclose(pair[1].loss, alone.loss)
    whole = cross_validate(bad, labels, 3, folds)
    lowest = [float(scores.loss.mean(axis=0).min()) for scores in (pair[0], whole)]
    assert pair[0].abandoned
    assert not pair[1].abandoned
    assert not whole.abandoned
    assert np.array_equal(pair[0].loss[:, -1], pair[0].loss[:, -2])  # neither was computed
    assert lowest[0] >= lowest[1] > alone.loss.mean(axis=0).min()
    assert reported == [(number, len(C_VALUES)) for number in range(1, len(C_VALUES) + 1)]


def test_after_the_deadline_no_larger_c_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it takes no time; what was fitted until then is the result."""
    features, labels = clouds(120, 12, 3, distance=1.0)
    folds, targets = folds_of(labels, [str(n) for n in range(120)], 1), Targets(labels, 3)
    (whole,) = race([features], targets, folds)
    (quick,) = race([features], targets, folds, deadline=0.0)
    assert np.array_equal(quick.loss, whole.loss)
    monkeypatch.setattr(cross_validation, "_SHORT", 0.0)
    (ended,) = race([features], targets, folds, deadline=0.0)
    assert ended.abandoned
    assert ended.c == C_VALUES[0]
    assert np.array_equal(ended.correct[:, 0], whole.correct[:, 0])
    monkeypatch.setattr(cross_validation, "C_VALUES", C_VALUES[:1])
    (last,) = race([features], targets, folds, deadline=0.0)
    assert not last.abandoned  # there is no larger C


def test_a_layer_of_far_lower_accuracy_is_given_up_early() -> None:
    """Its accuracy with strong regularisation shows that; the other layer is unaffected."""
    good, labels = clouds(200, 12, 8, distance=1.5)
    folds, targets = folds_of(labels, [str(n) for n in range(200)], 1), Targets(labels, 8)
    bad, best = race([good[:, :1], good], targets, folds, threads=2)
    alone = cross_validate(good, labels, 8, folds)
    assert bad.abandoned
    assert np.array_equal(bad.correct[:, 1], bad.correct[:, -1])
    assert np.array_equal(bad.loss[:, 2], bad.loss[:, -1])  # none of these was computed
    assert np.array_equal(best.correct, alone.correct)
    assert np.array_equal(best.loss, alone.loss)


@pytest.mark.slow
def test_layers_are_scored_on_the_same_folds_and_the_best_is_chosen() -> None:
    good, labels = clouds(90, 12, 3, distance=1.5)
    noise = np.random.default_rng(0).normal(size=(90, 20)).astype(np.float32)
    layers = [FeatureLayer(2, 1), FeatureLayer(1, 4)]
    rows = FeatureRows(np.arange(90), {layers[0]: good, layers[1]: noise}, 90, 1.0)
    contents = [str(n) for n in range(90)]
    scores, estimated = score_layers(rows, Targets(labels, 3, contents=contents, seed=1))
    assert [score.layer for score in scores] == sorted(layers)
    best = best_layer(scores)
    assert (best.layer, best.dimension) == (layers[0], 12)
    alone = cross_validate(good, labels, 3, folds_of(labels, contents, 1))
    assert np.array_equal(best.probes.correct, alone.correct)
    assert (best.result.stage, best.result.c) == (2, C_VALUES[alone.best])
    assert best.result.accuracy == alone.accuracy
    assert estimated is not None
    assert abs(estimated.accuracy - alone.accuracy) < 0.05


def test_of_equal_layers_the_later_stage_is_chosen() -> None:
    one = np.ones((4, 6))
    probes = ProbeScores(one > 0, one, np.ones(4, bool), False, np.zeros((4, 2), np.float32))
    scores = [LayerScore(FeatureLayer(stage, 1), 8, probes, 1.0) for stage in (1, 3, 2)]
    assert best_layer(scores).layer.stage == 3


def test_near_duplicates_do_not_narrow_the_interval() -> None:
    """Five copies of each image: about the interval of the images alone."""
    features, labels = clouds(60, 6, 3, distance=1.0)
    layer = FeatureLayer(1, 1)
    contents = [str(number) for number in range(60)]
    _, alone = score_layers(
        FeatureRows(np.arange(60), {layer: features}, 60, 0.0),
        Targets(labels, 3, contents=contents, seed=1),
    )
    rows = FeatureRows(np.arange(300), {layer: np.repeat(features, 5, axis=0)}, 300, 0.0)
    five = [content for content in contents for _ in range(5)]
    _, copies = score_layers(rows, Targets(np.repeat(labels, 5), 3, contents=five, seed=1))
    assert alone is not None
    assert copies is not None
    widths = [high - low for low, high in (alone.interval, copies.interval)]
    assert 0.8 * widths[0] < widths[1] < 1.3 * widths[0]


def test_classes_of_one_image_each_have_no_estimate() -> None:
    features, _ = clouds(4, 5, 2)
    rows = FeatureRows(np.arange(4), {FeatureLayer(1, 1): features}, 4, 1.0)
    _, estimated = score_layers(rows, Targets(np.arange(4), 4, contents=list("abcd")))
    assert estimated is None


def test_one_image_and_broken_features_are_refused_with_a_reason() -> None:
    features, labels = clouds(20, 5, 2)
    with pytest.raises(ResiduaError, match="at least two different images"):
        cross_validate(features, labels, 2, np.zeros(20, np.int64))
    features[7, 3] = np.nan
    with pytest.raises(ResiduaError, match=r"1 of 20 images .* number 7"):
        cross_validate(features, labels, 2, folds_of(labels, [str(n) for n in range(20)], 0))


@pytest.mark.parametrize("rows", [2, 3, 4, 5])
def test_very_few_images_of_a_class_have_an_estimate(rows: int) -> None:
    """Too few to measure what half of them would do."""
    features, labels = clouds(3 * rows, 5, 3, distance=1.0)
    of_layer = FeatureRows(np.arange(3 * rows), {FeatureLayer(1, 1): features}, 3 * rows, 1.0)
    contents = [str(n) for n in range(3 * rows)]
    _, estimated = score_layers(of_layer, Targets(labels, 3, contents=contents))
    assert estimated is not None
    assert 0 <= estimated.interval[0] < estimated.interval[1] <= 1


def test_what_few_rows_add_is_not_extrapolated() -> None:
    """Where one class of many can be halved, a changed prediction would count 30 times."""
    features, labels = clouds(300, 30, 100, distance=1.0)
    features, labels = np.concatenate([features, features[:1]]), np.append(labels, labels[0])
    targets = Targets(labels, 100, contents=[str(n) for n in range(301)])
    folds = folds_of(labels, targets.contents, 0)
    (probes,) = race([features], targets, folds)
    assert measured_gain(features, targets, folds, probes) == 0


def test_near_duplicates_are_halved_as_groups() -> None:
    """Half of the images of each group would be as good as all of them."""
    features, labels = clouds(320, 40, 40, distance=0.5)
    contents = [str(n) for n in range(320)]
    alone = Targets(labels, 40, contents=contents)
    (probes,) = race([features], alone, folds := folds_of(labels, contents, 0))
    gain = measured_gain(features, alone, folds, probes)
    four = np.repeat(np.arange(320), 4)
    copies = Targets(labels[four], 40, contents=[contents[n] for n in four.tolist()])
    folds = folds_of(copies.labels, copies.contents, 0)
    (probes,) = race([features[four]], copies, folds)
    assert gain > 0.005
    assert measured_gain(features[four], copies, folds, probes) > gain / 2


@pytest.mark.slow
def test_few_images_of_many_classes_are_underestimated_less() -> None:
    """A fifth of 8 images a class matters: the probes of the folds are worse than the head."""
    plain, estimated, truth = [], [], []
    for seed in range(3):
        random = np.random.default_rng(seed)
        centres = random.normal(size=(150, 60))
        labels, many = np.arange(1_200) % 150, np.arange(4_000) % 150
        features, new = (
            (centres[each] + 2.2 * random.normal(size=(len(each), 60))).astype(np.float32)
            for each in (labels, many)
        )
        rows = FeatureRows(np.arange(1_200), {FeatureLayer(1, 1): features}, 1_200, 1.0)
        targets = Targets(labels, 150, contents=[str(n) for n in range(1_200)], seed=seed)
        (score,), expected = score_layers(rows, targets)
        head = fit_logistic(features, labels, 150, score.probes.c)
        assert expected is not None
        plain.append(score.probes.accuracy)
        estimated.append(expected.accuracy)
        truth.append(((new @ head.weight.T + head.bias).argmax(axis=1) == many).mean())
    bias = np.mean(truth) - np.mean(plain)
    assert bias > 0.03
    assert abs(np.mean(truth) - np.mean(estimated)) < 0.6 * bias
