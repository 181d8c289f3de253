"""Slices with a lower accuracy are found; without any, there is silence."""

from __future__ import annotations

import numpy as np
import pytest

from residua.data.dataset import Header
from residua.evaluation.slices import find_slices, properties_of


def data(random: np.random.Generator, number: int = 200) -> tuple[np.ndarray, dict, np.ndarray]:
    """Labels of four classes, properties, and correctness that depends on the class alone."""
    labels = random.integers(0, 4, number)
    properties = {
        "brightness": random.normal(120, 40, number),
        "shorter side": random.choice([240.0, 480, 720], number),
        "file format": random.choice(["JPEG", "PNG", "WEBP"], number).tolist(),
        "camera": random.choice([f"camera{k}" for k in range(8)], number).tolist(),
    }
    correct = random.random(number) < np.array([0.95, 0.9, 0.8, 0.6])[labels]
    return labels, properties, correct


def test_dark_images_that_fail_are_found() -> None:
    random = np.random.default_rng(0)
    labels, properties, correct = data(random)
    dark = properties["brightness"] < np.quantile(properties["brightness"], 0.2)
    correct &= ~(dark & (random.random(200) < 0.5))
    worst, *others = find_slices(correct, labels, properties)
    assert worst.description.startswith("brightness below")
    assert not others
    assert worst.accuracy < worst.elsewhere - 0.2
    low, high = worst.interval
    assert low < worst.accuracy < high < worst.elsewhere
    assert worst.p_value < 0.01
    assert worst.examined > 15


def test_a_text_that_fails_is_found_also_in_a_table() -> None:
    random = np.random.default_rng(1)
    labels, properties, correct = data(random)
    correct &= np.array([name != "camera3" for name in properties["camera"]])
    (worst,) = find_slices(correct, labels, properties)
    assert (worst.description, worst.accuracy) == ("camera camera3", 0)


@pytest.mark.slow
def test_without_a_slice_at_most_5_percent_are_false_alarms() -> None:
    random = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        labels, properties, correct = data(random, 150)
        alarms += bool(find_slices(correct, labels, properties))
    assert alarms <= 10


def test_a_difficult_class_is_no_slice() -> None:
    """Its images are dark, so brightness is the class; and its folder is."""
    random = np.random.default_rng(3)
    labels = np.repeat([0, 1], 100)
    correct = random.random(200) < np.array([0.95, 0.5])[labels]
    brightness = np.where(labels == 1, 40.0, 160.0) + random.normal(0, 10, 200)
    assert find_slices(correct, labels, {"brightness": brightness}) == ()
    assert find_slices(correct, labels, {"folder": ["ab"[label] for label in labels]}) == ()


def test_near_copies_count_once() -> None:
    """Three wrong images with twenty copies each are three images."""
    correct = np.array([False] * 60 + [True] * 60)
    labels = np.zeros(120, np.int64)
    groups = [f"g{at // 20}" if at < 60 else "" for at in range(120)]
    dark = np.where(correct, 100.0, 10.0)
    assert find_slices(correct, labels, {"brightness": dark})
    assert find_slices(correct, labels, {"brightness": dark}, groups) == ()


def test_slices_of_a_table_are_described_in_a_line() -> None:
    correct = np.arange(100) >= 20
    labels, texts = np.zeros(100, np.int64), ["cloudy,\n" + 99 * "x"] * 20 + ["clear"] * 80
    (slice_of_text,) = find_slices(correct, labels, {"sky": texts})
    assert slice_of_text.description.startswith("sky cloudy, xxx")
    assert len(slice_of_text.description) == 60
    years = {"year": np.repeat([2018.0, 2020.0, 2021.0], [20, 10, 70])}
    (slice_of_years,) = find_slices(correct, labels, years)
    assert slice_of_years.description == "year below 2020"


def test_nothing_to_find_where_all_is_right_or_a_property_has_one_value() -> None:
    labels, ones = np.zeros(50, np.int64), np.ones(50)
    assert find_slices(np.ones(50, bool), labels, {"a": np.arange(50.0)}) == ()
    wrong = np.arange(50) % 2 == 0
    assert find_slices(wrong, labels, {"a": ones, "b": ["x"] * 50, "c": ones * np.nan}) == ()


def test_properties_are_those_of_the_files() -> None:
    pixels = np.zeros((2, 64, 64, 3), np.uint8)
    pixels[1] = 200
    headers = [Header(640, 480, "JPEG", "RGB"), None]
    paths = ["train/owl/barn/night/1.jpg", "train/owl/2.jpg"]
    found = properties_of(paths, headers, pixels, ("owl", "gull"), {"site": ["A", "B"]})
    assert found["folder"] == ["barn/night", ""]
    assert found["file format"] == ["JPEG", ""]
    assert found["site"] == ["A", "B"]
    assert list(found["brightness (0 to 255)"]) == [0, 200]
    assert found["shorter side in px"][0] == 480
