"""The model card of a run is valid and states what is known, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import yaml

from residua.evaluation.metrics import compute_metrics
from residua.evaluation.score import Evaluation
from residua.networks.analysis.cost import Counts
from residua.report.facts import ClassCount, DataFacts, ReportFacts
from residua.report.model_card import card_text
from residua.system.words import percent
from residua.transfer.result import CrossValidation, TransferResult
from residua.uncertainty.record import Uncertainty
from residua.uncertainty.unknown import UnknownDetector

CLASSES = ("owl", "| <b> `gull`")


def facts() -> ReportFacts:
    labels = np.repeat([0, 1], [40, 10])
    logits = np.eye(2, dtype=np.float32)[labels]
    logits[:5] = logits[:5, ::-1]
    metrics = compute_metrics(logits, labels, CLASSES)
    return ReportFacts(
        title="birds: 2",
        network="resnet18",
        cost=Counts(11_000_000, 1000, 0, 1_800_000_000, 0),
        input=(3, 224, 224),
        data=DataFacts(
            "/home/me/birds", "class folders", 250, [ClassCount(n, 90, 0, 35) for n in CLASSES]
        ),
        history=[],
        evaluation=Evaluation(
            "test",
            metrics,
            CLASSES,
            ("a.png",) * len(labels),
            labels,
            logits,
            np.zeros((len(labels), 4, 4, 3), np.uint8),
            (),
            baselines={"majority class": 0.8},
        ),
        choices=[],
        environment={},
        seconds=1.0,
        train_command="",
        predict_command="",
    )


def test_the_front_matter_is_what_hugging_face_reads() -> None:
    text = card_text(facts(), "seed: 0\n")
    _, front, _ = text.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["library_name"] == "residua"
    assert fields["pipeline_tag"] == "image-classification"
    assert "license" not in fields
    (model,) = fields["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["split"] == "test"
    accuracy, balanced, f1 = result["metrics"]
    assert (accuracy["type"], accuracy["value"]) == ("accuracy", 0.9)
    assert "95 % CI 0.78" in accuracy["name"]  # Wilson: 0.786 to 0.957
    assert balanced["value"] == 0.9375
    assert f1["type"] == "f1"
    try:
        from huggingface_hub import ModelCard
    except ImportError:
        return
    assert ModelCard(text).data.to_dict()["model-index"][0]["name"] == "birds: 2"


def test_limits_are_stated_and_names_are_text() -> None:
    text = card_text(facts(), "seed: 0\n")
    assert "1 of 2 classes has fewer than 20 evaluated images" in text
    assert "(10 images)" in text
    assert "majority class: 80.0 %" in text
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "/home/me" not in text  # a public page does not show the user's folders
    assert "optimistic" not in text
    chosen = facts()
    assert chosen.evaluation is not None
    selected = replace(
        chosen,
        evaluation=replace(
            chosen.evaluation, caveat="optimistic, because the validation set was used"
        ),
    )
    assert "optimistic, because the validation set" in card_text(selected, "")
    assert "none of the classes is still assigned to one of them" in text
    assert "Not evaluated" in card_text(replace(chosen, evaluation=None), "")


def test_one_image_and_an_interval_below_certainty_are_written_as_such() -> None:
    """20,000 of one class, one of them wrong: the upper bound 0.99999 is not 1.0000."""
    labels = np.zeros(20_001, np.int64)
    labels[-1] = 1
    logits = np.eye(2, dtype=np.float32)[labels]
    logits[0] = logits[0, ::-1]
    metrics = compute_metrics(logits, labels, CLASSES)
    chosen = facts()
    assert chosen.evaluation is not None
    evaluation = replace(chosen.evaluation, metrics=metrics)
    text = card_text(replace(chosen, evaluation=evaluation), "")
    assert "(1 image)" in text
    assert metrics.interval[1] > 0.99995
    assert "accuracy, test set (95 % CI 0.9997 to 0.9999)" in text


def test_it_states_where_the_weights_come_from_and_what_they_are_for() -> None:
    text = card_text(facts(), "")
    assert "trained from scratch" in text
    assert "## Intended use" in text
    started = replace(
        facts(),
        initial_weights="imagenet (Apache-2.0)",
        environment={"residua": "1.2.3", "date": "2026-01-02 03:04:05+00:00"},
    )
    text = card_text(started, "")
    assert "Weights at the start: imagenet (Apache-2.0)." in text
    assert "Trained on 2026-01-02 03:04:05+00:00 with residua 1.2.3." in text
    assert "scratch" not in text


def test_it_states_how_far_probabilities_carry() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    logits = (rng.normal(size=(300, 2)) + 2 * np.eye(2)[labels]).astype(np.float32)
    paths = tuple(f"{number}.png" for number in range(300))
    pixels = np.zeros((300, 4, 4, 3), np.uint8)
    metrics = compute_metrics(logits, labels, CLASSES)
    evaluation = Evaluation("validation", metrics, CLASSES, paths, labels, logits, pixels, ())
    evaluation = replace(evaluation, uncertainty=Uncertainty("validation", 300))
    detector = UnknownDetector("knn", 0.0, 0.05, 0.875, 3, 2, 1.0, {}, 40, 10)
    reliability = evaluation.reliability
    assert reliability is not None
    text = card_text(replace(facts(), evaluation=evaluation, unknown=detector), "")
    error, (low, high) = reliability.after.error, reliability.after.interval
    shown = [percent(value, 1) for value in (error, low, high)]
    assert (
        "calibration error (root mean square, debiased): {} (95 % CI {} to {})".format(*shown)
        in text
    )
    assert "Of the images of 3 classes that were left out in turn, 25 % (10 of 40) are" in text
    assert "(AUROC 0.875). On average, at most 5 % of images" in text
    assert "prediction sets at 90 % coverage: " in text
    assert "each fifth is evaluated with those of the other four" in text
    assert "still assigned" not in text
    few = replace(detector, left_out=1, tested=0, reported=0)
    text = card_text(replace(facts(), unknown=few), "")
    assert (
        "The share of images of 1 class that was left out in turn that is reported as unknown"
        in text
    )
    unmeasured = replace(detector, auroc=None, left_out=0)
    two = facts().data.classes[:2]
    for classes, reason in ((two, "with two classes"), (two * 2, "trained on all classes")):
        data = replace(facts().data, classes=classes)
        text = card_text(replace(facts(), unknown=unmeasured, data=data), "")
        (line,) = [row for row in text.splitlines() if reason in row]
        assert "was not measured" in line


def test_a_probe_without_time_for_all_images_states_how_many_it_has() -> None:
    total = facts().data.total("train")
    crossed = CrossValidation(0.9, (0.8, 0.95), total - 1, total - 1)
    fitted = TransferResult(images=total - 1, cross_validation=crossed)
    sentence = f"fit the linear probe on {total - 1} of the training images"
    assert sentence in card_text(replace(facts(), transfer=fitted), "")
    for other in (replace(fitted, images=total), replace(fitted, chosen="full")):
        assert sentence not in card_text(replace(facts(), transfer=other), "")


def test_an_accuracy_below_that_of_one_class_or_of_cross_validation_is_explained() -> None:
    low = facts()
    assert low.evaluation is not None
    assert low.cautions == []
    below = replace(low.evaluation, baselines={"majority class": 0.95})
    text = card_text(replace(low, evaluation=below), "seed: 0\n")
    assert "Always predicting the largest class has a higher accuracy, 95.0 %." in text
    assert "93.8 % (50.0 % if one class is always predicted)" in text  # balanced accuracy
    for lowest, is_above in ((0.96, True), (0.95, False)):  # the interval ends at 0.957
        probe = CrossValidation(0.98, (lowest, 0.99), 200, 200)
        text = card_text(replace(low, transfer=TransferResult(cross_validation=probe)), "seed: 0\n")
        assert ("98.0 % (95 % CI 96.0 % to 99.0 %)" in text) == is_above
        assert ("are not grouped (--group-by)" in text) == is_above
