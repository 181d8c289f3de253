"""A finished run's weights give calibrated probabilities, prediction sets and unknown images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.command_line import residua as command
from references.images import write_shapes

import residua
from residua.data.prepare import prepare
from residua.data.prepared import Prepared
from residua.errors import ResiduaError
from residua.evaluation.calibrate import FittedProbe, HeldOut, calibrate
from residua.evaluation.predictor import predictor_of
from residua.evaluation.score import CROSS_VALIDATION, EvaluationSet, evaluation_of, score_images
from residua.inference.logistic import fit_logistic
from residua.inference.outputs import MAX_HEAD_FEATURES, classifier_of, featured_classifier
from residua.report.text import cautions
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.weights.load import read_file

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
QUIET, CPU = Console(quiet=True), torch.device("cpu")
SHARPER = 6.0  # factor of the logits that makes probabilities overconfident


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("many"), 60)


@pytest.fixture
def overconfident(
    many: Path, write_run: Callable[..., RunFolder]
) -> tuple[RunFolder, Prepared, HeldOut]:
    """A run whose linear head is sharper than it should be, and predictions for images that the
    head was not fitted on, a third of them with a random label."""
    run = write_run(many, data__test_fraction=0.0, data__val_fraction=0.0)
    prepared = prepare(run.config, QUIET, recorded=run.read_split())
    weights, train = read_file(run.weights), prepared.splits["train"]
    _, features = featured_classifier(weights, CPU, 0)(prepared.pixels[train])
    labels = prepared.labels[train].copy()
    wrong = np.random.default_rng(0).random(len(labels)) < 1 / 3
    labels[wrong] = np.random.default_rng(1).integers(0, 3, wrong.sum())
    half = np.arange(len(train)) % 2 == 0
    head = fit_logistic(features[half], prepared.labels[train][half], 3, 1.0)
    tensors = dict(weights.tensors)
    tensors["head.weight"] = torch.from_numpy(SHARPER * head.weight)
    tensors["head.bias"] = torch.from_numpy(SHARPER * head.bias)
    run.write_weights("best.safetensors", tensors, weights.metadata)
    logits = SHARPER * (features @ head.weight.T + head.bias)

    def fit_head(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fitted = fit_logistic(x, y, int(y.max()) + 1, 1.0)
        return fitted.weight, fitted.bias

    known = features[~half], labels[~half], np.arange(int((~half).sum()))
    held_out = HeldOut("cross-validation", logits[~half], *known, FittedProbe(*known, fit_head))
    return run, prepared, held_out


@pytest.mark.slow
def test_the_temperature_becomes_part_of_the_weights(
    overconfident: tuple[RunFolder, Prepared, HeldOut],
) -> None:
    run, prepared, held_out = overconfident
    before = classifier_of(read_file(run.weights), CPU, 0)(prepared.pixels[:20])
    uncertainty = calibrate(run, prepared, held_out, QUIET).metadata.uncertainty
    assert uncertainty is not None
    assert uncertainty.temperature > 2
    weights = read_file(run.weights)
    after = classifier_of(weights, CPU, 0)(prepared.pixels[:20])
    np.testing.assert_allclose(after * uncertainty.temperature, before, rtol=1e-3, atol=1e-3)
    stored = weights.metadata.uncertainty
    assert stored is not None
    assert (stored.temperature, stored.source) == (uncertainty.temperature, "cross-validation")
    samples = np.arange(len(held_out.labels))
    images = dataclasses.replace(
        EvaluationSet.of(prepared, samples, CROSS_VALIDATION), labels=held_out.labels, groups=()
    )
    logits = held_out.logits / np.float32(stored.temperature)
    evaluation = evaluation_of(logits, images, run.classes)
    reliability = dataclasses.replace(evaluation, uncertainty=stored).reliability
    assert reliability is not None
    assert reliability.cross_fitted
    assert reliability.after.error < reliability.before.error / 2
    assert reliability.sets is not None
    low, high = reliability.sets.interval
    assert low <= 0.9 <= high + 0.05


@pytest.mark.slow
def test_finished_weights_stay_as_they_are(
    overconfident: tuple[RunFolder, Prepared, HeldOut],
) -> None:
    run, prepared, held_out = overconfident
    calibrate(run, prepared, held_out, QUIET)
    content = run.weights.read_bytes()
    calibrate(run, prepared, held_out, QUIET)  # as `resume` of a finished run does
    assert run.weights.read_bytes() == content


@pytest.mark.slow
def test_noise_is_unknown_and_known_images_are_not(
    overconfident: tuple[RunFolder, Prepared, HeldOut],
) -> None:
    run, prepared, held_out = overconfident
    calibrate(run, prepared, held_out, QUIET)
    predict = predictor_of(read_file(run.weights), CPU, 0)
    known = predict(prepared.pixels[:60])
    assert np.mean([output.unknown is not None for output in known]) < 0.15
    noise = np.random.default_rng(0).integers(0, 256, (20, *prepared.pixels.shape[1:]), np.uint8)
    strange = predict(noise)
    assert np.mean([output.unknown is not None for output in strange]) > 0.8
    (row,) = [strange[0].prediction("noise.png", 1, run.classes)]
    if row.unknown is not None:
        assert row.to_json()["unknown"] == row.unknown


@pytest.mark.slow
def test_false_alarms_are_counted_on_images_that_did_not_choose_the_detector(
    overconfident: tuple[RunFolder, Prepared, HeldOut],
) -> None:
    run, prepared, held_out = overconfident
    calibrate(run, prepared, held_out, QUIET)
    weights, samples = read_file(run.weights), np.arange(70)  # more than a batch
    images = EvaluationSet.of(prepared, samples, "test")
    known = score_images(weights, images, CPU, QUIET)
    reasons = [output.unknown for output in predictor_of(weights, CPU, 0)(prepared.pixels[:70])]
    assert known.unknown is not None
    assert known.unknown.tolist() == [reason is not None for reason in reasons]
    assert known.false_alarms is not None
    assert known.to_json()["false_alarms"]["reported"] == known.unknown.sum()
    assert not cautions(known, None)
    noise = np.random.default_rng(0).integers(0, 256, prepared.pixels.shape, np.uint8)
    others = score_images(weights, dataclasses.replace(images, pixels=noise), CPU, QUIET)
    (sentence,) = [line for line in cautions(others, None) if "unknown" in line]
    assert sentence.endswith("They may differ from the training images.")
    chosen = dataclasses.replace(images, split="validation")
    assert score_images(weights, chosen, CPU, QUIET).false_alarms is None


@pytest.mark.slow
def test_an_explanation_states_that_an_image_is_unknown(
    overconfident: tuple[RunFolder, Prepared, HeldOut], tmp_path: Path
) -> None:
    run, prepared, held_out = overconfident
    calibrate(run, prepared, held_out, QUIET)
    random = np.random.default_rng(0)
    for number in range(6):
        noise = random.integers(0, 256, prepared.pixels.shape[1:], np.uint8)
        pixels = noise if number % 2 else prepared.pixels[number]
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    files = [str(tmp_path / f"{number}.png") for number in range(6)]
    expected = [row.unknown for row in residua.predict(run.path, files)]
    assert None in expected
    assert [row.unknown for row in residua.explain(run.path, files)] == expected
    printed = command("explain", str(run.path), *files, cwd=tmp_path).stdout.splitlines()
    for line, reason in zip(printed, expected, strict=False):
        assert line.endswith(f"; unknown: {reason}" if reason else "%")
    assert any("unknown" in line for line in printed)


@pytest.mark.slow
def test_prediction_sets_grow_with_their_coverage(
    overconfident: tuple[RunFolder, Prepared, HeldOut],
) -> None:
    run, prepared, held_out = overconfident
    calibrate(run, prepared, held_out, QUIET)
    weights = read_file(run.weights)
    sizes = []
    for coverage in (0.5, 0.8, 0.95):
        outputs = predictor_of(weights, CPU, 0, coverage)(prepared.pixels[:60])
        rows = [output.prediction("x", 1, run.classes) for output in outputs]
        assert all(row.set and row.set[0] == row.top[0][0] for row in rows)
        sizes.append(sum(len(row.set or ()) for row in rows))
    assert sizes[0] <= sizes[1] <= sizes[2]
    assert sizes[0] < sizes[2]
    for coverage in (0.0, 1.0, 0.9999):
        with pytest.raises(ResiduaError, match="coverage"):
            predictor_of(weights, CPU, 0, coverage)


@pytest.mark.slow
def test_a_network_is_calibrated_on_its_validation_set(
    many: Path, write_run: Callable[..., RunFolder]
) -> None:
    run = write_run(many, data__val_fraction=0.3)
    prepared = prepare(run.config, QUIET, recorded=run.read_split())
    uncertainty = calibrate(run, prepared, None, QUIET).metadata.uncertainty
    assert uncertainty is not None
    assert (uncertainty.source, uncertainty.images) == ("validation", 54)
    assert uncertainty.unknown is not None
    assert read_file(run.weights).metadata.golden is not None


@pytest.mark.slow
def test_a_head_that_reads_very_many_features_is_calibrated_too(
    many: Path, write_run: Callable[..., RunFolder]
) -> None:
    wide = {"network__stage": 2, "network__pool_size": 16}
    run = write_run(many, data__val_fraction=0.3, **wide)
    prepared = prepare(run.config, QUIET, recorded=run.read_split())
    calibrate(run, prepared, None, QUIET)
    weights = read_file(run.weights)
    assert weights.tensors["head.weight"].shape[1] > MAX_HEAD_FEATURES
    assert len(predictor_of(weights, CPU, 0)(prepared.pixels[:3])) == 3


def test_without_held_out_images_only_golden_images_are_stored(
    many: Path, write_run: Callable[..., RunFolder]
) -> None:
    run = write_run(many, data__val_fraction=0.0, data__test_fraction=0.0)
    prepared = prepare(run.config, QUIET, recorded=run.read_split())
    before = read_file(run.weights).tensors
    assert calibrate(run, prepared, None, QUIET).metadata.uncertainty is None
    weights = read_file(run.weights)
    assert weights.metadata.golden is not None
    assert all(torch.equal(weights.tensors[name], before[name]) for name in before)
    with pytest.raises(ResiduaError, match="has no prediction sets"):
        predictor_of(weights, CPU, 0, 0.9)
    (output,) = predictor_of(weights, CPU, 0)(prepared.pixels[:1])
    assert (output.members, output.unknown) == (None, None)


@pytest.mark.slow
def test_images_of_a_group_count_as_one(
    overconfident: tuple[RunFolder, Prepared, HeldOut],
) -> None:
    run, prepared, held_out = overconfident
    groups = np.arange(len(held_out.labels)) // 30
    uncertainty = calibrate(
        run, prepared, dataclasses.replace(held_out, groups=groups), QUIET
    ).metadata.uncertainty
    assert uncertainty is not None
    assert uncertainty.sets is not None
    assert uncertainty.sets.highest_coverage == pytest.approx(3 / 4)
    (output,) = predictor_of(read_file(run.weights), CPU, 0)(prepared.pixels[:1])
    assert output.members is None  # 0.9 is not possible, and was not requested
