"""Views of scores and numbers: honest roundings, readable colours, instructive grids."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.evaluation.metrics import Metrics, compute_metrics
from residua.evaluation.reliability import reliability_of
from residua.evaluation.score import Evaluation
from residua.report import view
from residua.report.reliability_charts import selective_curve
from residua.report.text import accuracy_text, calibration_text, evaluation_text, images_text
from residua.report.view import (
    Confusion,
    confusion_cells,
    confusion_map,
    confusions,
    data_uri,
    duration,
    most_instructive,
    number,
    weakest,
)
from residua.system.words import at_least, counted, decimals, joined, percent
from residua.uncertainty.calibration import calibration_of

CSS = Path(view.__file__).parents[1] / "templates" / "report.css.j2"


def evaluated(
    truth: list[int], guess: list[int], sure: list[float], groups: tuple[str, ...] = ()
) -> Evaluation:
    """Predictions of three classes with these probabilities."""
    chances = np.array(
        [np.where(np.arange(3) == k, p, (1 - p) / 2) for k, p in zip(guess, sure, strict=True)]
    )
    logits, labels = np.log(chances).astype(np.float32), np.array(truth)
    classes, paths = ("a", "b", "c"), tuple(map(str, range(len(truth))))
    metrics = compute_metrics(logits, labels, classes)
    pixels = np.zeros((len(truth), 2, 2, 3), np.uint8)
    return Evaluation("test", metrics, classes, paths, labels, logits, pixels, (), groups=groups)


def test_grids_show_the_surest_errors_first_and_reserve_room_for_correct_predictions() -> None:
    sure = [0.9, 0.5, 0.7, 0.6, 0.4, float("nan"), 0.9, 0.45]
    evaluation = evaluated([0] * 8, [0, 1, 1, 1, 0, 1, 1, 1], sure)
    assert most_instructive(evaluation, 4) == [6, 2, 3, 0]
    assert most_instructive(evaluation, 8) == [6, 2, 3, 1, 7, 5, 0, 4]


def test_grids_show_correct_predictions_of_every_class() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    evaluation = evaluated(labels, labels, [0.9] * 6)
    assert most_instructive(evaluation, 3) == [0, 3, 5]
    assert most_instructive(evaluation, 5) == [0, 3, 5, 1, 4]


def test_grids_show_near_duplicates_after_other_errors() -> None:
    evaluation = evaluated([0] * 5, [1] * 5, [0.9, 0.89, 0.88, 0.7, 0.6], ("g", "g", "g", "", ""))
    assert most_instructive(evaluation, 4) == [0, 3, 4, 1]


def test_groups_are_counted_beside_the_images_where_they_are_fewer() -> None:
    logits, labels = np.eye(2, dtype=np.float32)[[0, 1, 1]], np.array([0, 1, 1])
    metrics = compute_metrics(logits, labels, ["a", "b"], ["", "x", "x"])
    assert accuracy_text(metrics).endswith(", 3 images in 2 groups)")
    assert images_text(1, 1) == "1 image"


def test_percent_never_rounds_to_certainty() -> None:
    assert percent(0.9996) == "99 %"
    assert percent(0.99996, 1) == "99.9 %"
    assert percent(1.0) == "100 %"
    assert [decimals(value, 6) for value in (1.0, 0.99999999, 0.25)] == [
        "1.000000", "0.999999", "0.250000"
    ]  # fmt: skip
    assert percent(0.0001) == "<1 %"
    assert percent(0.0) == "0 %"
    assert percent(0.867, 1) == "86.7 %"
    assert [duration(s) for s in (4.26, 59.97, 192, 7500)] == [
        "4.3 s", "1 min 00 s", "3 min 12 s", "2 h 05 min"
    ]  # fmt: skip


def test_a_lower_limit_is_rounded_up_and_never_to_certainty() -> None:
    """A user who applies the limit as shown gets only images above the one that was tested."""
    assert [at_least(share, 1) for share in (0.8614, 0.9, 0.99996, 1.0)] == [
        "86.2 %", "90.0 %", "99.996 %", "100.0 %"
    ]  # fmt: skip
    for share in (0.1 + 0.2, 1 / 3, 1 - 1e-7, 1 - 1e-12):
        assert share - 1e-15 <= float(at_least(share, 1)[:-2]) / 100 < 1


def test_calibration_that_is_not_measured_names_what_is_too_few() -> None:
    """12 of 36 wrong are enough errors, of too few images."""
    rng = np.random.default_rng(0)
    for images, errors, reason in ((36, 12, "too few images"), (200, 1, "too few errors")):
        chances = rng.uniform(0.5, 0.9, images)
        labels = (np.arange(images) < errors).astype(np.int64)
        text = calibration_text(calibration_of(np.stack([chances, 1 - chances], axis=1), labels))
        verb = "is" if errors == 1 else "are"
        assert reason in text
        assert f"{errors} of {images} predictions {verb} wrong" in text


def test_a_calibration_error_of_0_is_stated_as_an_upper_limit() -> None:
    confident, labels = np.full(200, 0.8), (np.arange(200) % 5 == 0).astype(np.int64)
    calibrated = calibration_of(np.stack([confident, 1 - confident], axis=1), labels)
    assert calibrated.interval is not None
    text = calibration_text(calibrated)
    assert text.startswith(f"at most {percent(calibrated.interval[1], 1)} ")
    assert "estimate 0.0 %" in text
    wrong = calibration_of(np.stack([1 - confident, confident], axis=1), labels)
    assert calibration_text(wrong).startswith(f"{percent(wrong.error, 1)} (95 % CI ")


def test_texts_of_numbers_and_lists() -> None:
    assert [counted(n, "image") for n in (0, 1, 1000)] == ["0 images", "1 image", "1,000 images"]
    assert [joined(list(words)) for words in ("", "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    values = (None, 0.12345, 0.9996, 1.0, -1.5, 12345.6, float("inf"))
    assert [number(value) for value in values] == [
        "", "0.123", "0.9996", "1", "-1.5", "12,346", "n/a"
    ]  # fmt: skip


def metrics_of(truth: list[int], predicted: list[int], classes: str) -> Metrics:
    logits = np.eye(len(classes), dtype=np.float32)[predicted]
    return compute_metrics(logits, np.array(truth), list(classes))


def test_confusions_and_weak_classes_come_first() -> None:
    metrics = metrics_of([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2], "abcd")
    assert confusions(metrics, "abcd") == [Confusion("a", "b", 2, 3), Confusion("b", "a", 1, 2)]
    # a and b have equal F1, but a more images; d has none
    assert [score.name for score in weakest(metrics)] == ["a", "b", "c", "d"]


def test_a_large_confusion_matrix_becomes_a_map() -> None:
    labels = list(range(41))
    large = compute_metrics(
        np.eye(41, dtype=np.float32), np.array(labels), [f"{k}" for k in labels]
    )
    assert confusion_cells(large) is None
    content = base64.b64decode((confusion_map(large) or "").split(",")[1])
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGBA"
        pixels = np.asarray(image)
    cell = len(pixels) // 41
    assert pixels[0, 0].tolist() == [47, 111, 222, 255]
    assert pixels[0, cell + 1, 3] == 0
    assert confusion_map(metrics_of([0], [0], "a")) is None


def test_images_are_shrunk_but_never_enlarged() -> None:
    for side, expected in ((8, 8), (300, 128)):
        content = base64.b64decode(data_uri(np.zeros((side, side, 1), np.uint8)).split(",")[1])
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (expected, expected)


def test_an_evaluation_is_printed_with_its_interval_classes_and_unreadable_files() -> None:
    metrics = metrics_of([0, 0, 1], [0, 1, 1], "ab")
    pixels, logits = np.zeros((3, 2, 2, 3), np.uint8), np.zeros((3, 2), np.float32)
    evaluation = Evaluation(
        "test",
        metrics,
        ("a", "b"),
        ("1", "2", "3"),
        np.array([0, 0, 1]),
        logits,
        pixels,
        (("x.jpg", "cut"),),
    )
    low, high = metrics.interval
    head, balanced, macro_f1, columns, *rows, unreadable = evaluation_text(evaluation).splitlines()
    assert head.startswith(
        f"test accuracy 0.6667 (95 % CI {low:.4f} to {high:.4f}, 3 images), loss "
    )
    assert balanced.startswith("balanced accuracy 0.7500 (95 % CI ")
    assert macro_f1.startswith("macro F1 0.6667 (95 % CI ")
    assert " ".join(columns.split()) == "class precision recall (95 % CI) F1 AUROC images"
    assert [row.split() for row in rows] == [  # Wilson's intervals of 1 of 2, and of 1 of 1
        ["a", "1.000", "0.500", "0.095", "to", "0.905", "0.667", "0.750", "2"],
        ["b", "0.500", "1.000", "0.207", "to", "1.000", "0.667", "0.750", "1"],
    ]
    assert len({len(line) for line in (columns, *rows)}) == 1
    assert unreadable == "not readable: x.jpg: cut"


def test_no_bound_below_1_is_printed_as_certainty() -> None:
    """One of 20,001 is wrong: the upper bound is 0.99999."""
    truth, predicted = [0] * 20_000 + [1], [1] + [0] * 19_999 + [1]
    metrics = metrics_of(truth, predicted, "ab")
    assert metrics.interval[1] > 0.99995
    pixels, logits = np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2), np.float32)
    evaluation = Evaluation("test", metrics, ("a", "b"), ("1",), np.array([0]), logits, pixels, ())
    head, balanced, *_ = evaluation_text(evaluation).splitlines()
    assert "to 0.9999, " in head
    assert "balanced accuracy 0.9999 (" in balanced


def test_a_limit_has_the_same_text_in_the_chart_as_in_the_report() -> None:
    labels = np.zeros(400, np.int64)
    chances = np.full(400, 0.99996)
    logits = np.log(np.stack([chances, 1 - chances], axis=1))
    reliability = reliability_of(logits, labels, (), None, is_own=False)
    assert reliability is not None
    assert "probability at least 99.996" in selective_curve(reliability)


def test_the_text_states_the_probability_from_which_an_accuracy_holds() -> None:
    generator = np.random.default_rng(0)
    chances = np.repeat([0.6123, 0.9712345], 200)
    labels = (generator.random(400) > chances).astype(np.int64)
    logits = np.log(np.stack([chances, 1 - chances], axis=1)).astype(np.float32)
    metrics = metrics_of(labels.tolist(), [0] * 400, "ab")
    pixels, names = np.zeros((400, 2, 2, 3), np.uint8), tuple(map(str, range(400)))
    classes = "a", "b"
    evaluation = Evaluation("test", metrics, classes, names, labels, logits, pixels, ())
    text = evaluation_text(evaluation)
    expected = "accuracy of at least 90 % with --min-probability 0.9713: 50.0 % of images"
    assert expected in text
    assert "at least 99 %" not in text


def luminance(colour: npt.NDArray[np.float64]) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def channels(text: str) -> npt.NDArray[np.float64]:
    numbers = [int(text[i : i + 2], 16) for i in (1, 3, 5)] if text[0] == "#" else text.split()
    return np.array(numbers, float) / 255


def test_numbers_in_the_confusion_table_have_contrast() -> None:
    """At least 4.5 to 1 in both themes (WCAG 2.1, 1.4.3), for every share and both colours."""
    colours = re.findall(r"--(hit|miss|deep|paper|ink): ([^;]+);", CSS.read_text("utf-8"))
    light, dark = dict(colours[:5]), {**dict(colours[:5]), **dict(colours[5:7])}
    assert light["paper"] != dark["paper"]
    cells = [view._cell(count, 500, hit) for count in range(1, 501) for hit in (True, False)]
    for theme in (light, dark):
        for cell in cells:
            background = channels(theme[cell.style.split()[0]]) * cell.opacity
            background += channels(theme["paper"]) * (1 - cell.opacity)
            ink = channels(theme["deep" if "deep" in cell.style else "ink"])
            pair = sorted((luminance(background), luminance(ink)))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (cell, theme["paper"])
