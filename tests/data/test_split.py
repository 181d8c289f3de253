"""The split: exact sizes, whole groups, strata, stability, and the files that Keras picks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.data.dataset import SplitName
from residua.data.split import Split, keras, stratified
from residua.errors import ResiduaError

FRACTIONS = st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4])


def split(
    labels: list[int],
    contents: list[str] | None = None,
    parts: list[SplitName | None] | None = None,
    *,
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
) -> Split:
    paths = [f"class{label}/{index:04}.png" for index, label in enumerate(labels)]
    return stratified(
        paths,
        labels,
        contents or paths,
        parts or [None] * len(labels),
        val_fraction=val,
        test_fraction=test,
        seed=seed,
    )


def part_list(train: int, validation: int = 0, test: int = 0) -> list[SplitName | None]:
    numbers: dict[SplitName, int] = {"train": train, "validation": validation, "test": test}
    return [part for part, number in numbers.items() for _ in range(number)]


def floor(fraction: float, total: int) -> int:
    return int(Fraction(str(fraction)) * total)


def test_the_first_tutorials_numbers() -> None:
    labels = [0] * 150 + [1] * 145 + [2] * 140 + [3] * 130
    assert Counter(split(labels).parts) == {"train": 452, "validation": 113}


@pytest.mark.parametrize(
    ("total", "fraction", "expected"),
    [
        (30, 0.1, 3),
        (100, 0.29, 29),
        (1000, 0.007, 7),
        (565, 0.2, 113),
        (10, 0.07, 0),
        (50, 0.58, 29),
    ],
)
def test_floor_is_taken_of_the_decimal(total: int, fraction: float, expected: int) -> None:
    assert split([0] * total, val=fraction).parts.count("validation") == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(12, 60), min_size=1, max_size=6), FRACTIONS, FRACTIONS, st.integers(0, 9)
)
def test_single_images_give_exact_and_stratified_parts(
    sizes: list[int], val: float, test: float, seed: int
) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    total = len(labels)
    parts = split(labels, val=val, test=test, seed=seed).parts
    for part, fraction in (("validation", val), ("test", test)):
        target = floor(fraction, total)
        assert parts.count(part) == target
        for label, size in enumerate(sizes):
            own = sum(p == part and q == label for p, q in zip(parts, labels, strict=True))
            assert abs(own - Fraction(target * size, total)) < 1
    assert {label for label, part in zip(labels, parts, strict=True) if part == "train"} == set(
        labels
    )


def test_largest_remainder_by_hand() -> None:
    """Quotas of 13 over 33, 20, 12: 6.6, 4.0, 2.4 -> 7, 4, 2."""
    labels = [0] * 33 + [1] * 20 + [2] * 12
    parts = split(labels).parts
    own = Counter(q for p, q in zip(parts, labels, strict=True) if p == "validation")
    assert own == {0: 7, 1: 4, 2: 2}


@settings(max_examples=60, deadline=None)
@given(st.data(), FRACTIONS, FRACTIONS)
def test_equal_content_stays_together(data: st.DataObject, val: float, test: float) -> None:
    total = data.draw(st.integers(4, 60))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=total, max_size=total))
    keys = data.draw(st.lists(st.integers(0, 20).map(str), min_size=total, max_size=total))
    try:
        result = split(labels, keys, val=val, test=test)
    except ResiduaError:
        return
    parts: dict[str, set[str]] = {}
    for key, part in zip(keys, result.parts, strict=True):
        parts.setdefault(key, set()).add(part)
    assert all(len(own) == 1 for own in parts.values())
    for part, fraction in (("validation", val), ("test", test)):
        assert result.parts.count(part) <= floor(fraction, total)
        short = any(f"The {part} part has" in n and "equal bytes" in n for n in result.notes)
        assert short == (result.parts.count(part) < floor(fraction, total))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 1)), min_size=2, max_size=9),
    st.sampled_from([0.2, 0.3, 0.4, 0.45]),
)
def test_the_nearest_attainable_number_by_brute_force(
    groups: list[tuple[int, int]], val: float
) -> None:
    labels = [label for size, label in groups for _ in range(size)]
    keys = [str(key) for key, (size, _) in enumerate(groups) for _ in range(size)]
    target = floor(val, len(labels))
    sizes = [size for size, _ in groups]
    sums = {sum(some) for r in range(len(sizes) + 1) for some in itertools.combinations(sizes, r)}
    nearest = max(number for number in sums if number <= target)
    try:
        result = split(labels, keys, val=val)
    except ResiduaError:
        # Only where some choice of that size takes a whole class.
        some = [
            c for r in range(len(groups)) for c in itertools.combinations(range(len(groups)), r)
        ]
        assert any(
            sum(sizes[i] for i in taken) == nearest
            and {groups[i][1] for i in set(range(len(groups))) - set(taken)} != set(labels)
            for taken in some
        )
        return
    assert result.parts.count("validation") == nearest


def test_no_class_is_emptied_where_the_exact_number_allows() -> None:
    """Of classes {1, 1, 3} and {2}, three images may be 1 + 2 or the 3: the 3 is right."""
    result = split([0, 0, 1, 1, 0, 0, 0], ["a", "b", "c", "c", "d", "d", "d"], val=0.45)
    assert result.parts == ("train",) * 4 + ("validation",) * 3


def test_everything_twice_and_an_odd_number() -> None:
    """20,005 pairs cannot give 4,001; exact subset sum says so in under a second."""
    keys = [str(index // 2) for index in range(40_010)]
    result = split([int(key) % 10 for key in keys], keys, val=0.1, test=0.1)
    assert Counter(result.parts) == {"train": 32_010, "test": 4_000, "validation": 4_000}
    assert sum("equal bytes" in note for note in result.notes) == 2


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_the_input_does_not_matter(random: Random, seed: int) -> None:
    labels = [index % 3 for index in range(50)]
    paths = [f"{label}/{index}.png" for index, label in enumerate(labels)]
    keys = [str(index // 2 if index < 20 else index) for index in range(50)]
    order = list(range(50))
    random.shuffle(order)
    both = []
    for indices in (list(range(50)), order):
        result = stratified(
            [paths[i] for i in indices],
            [labels[i] for i in indices],
            [keys[i] for i in indices],
            [None] * 50,
            val_fraction=0.25,
            test_fraction=0.1,
            seed=seed,
        )
        both.append(
            (dict(zip((paths[i] for i in indices), result.parts, strict=True)), result.notes)
        )
    assert both[0] == both[1]


def test_the_choice_is_pinned_for_every_platform_and_seeds_differ() -> None:
    chosen = [i for i, part in enumerate(split([0] * 12, val=0.25).parts) if part == "validation"]
    assert chosen == [0, 7, 8]
    other = [i for i, p in enumerate(split([0] * 12, val=0.25, seed=1).parts) if p == "validation"]
    assert other != chosen


def test_decomposed_names_are_the_same_names() -> None:
    def parts(names: list[str]) -> tuple[SplitName, ...]:
        return stratified(
            names,
            [0] * len(names),
            [str(index) for index in range(len(names))],
            [None] * len(names),
            val_fraction=0.4,
            test_fraction=0,
            seed=0,
        ).parts

    assert parts([f"v\u00f6gel/{i}.png" for i in range(20)]) == parts(
        [f"vo\u0308gel/{i}.png" for i in range(20)]
    )


def test_a_grown_set_keeps_most_parts() -> None:
    small = split([0] * 200, val=0.2).parts
    grown = split([0] * 210, val=0.2).parts
    assert sum(a != b for a, b in zip(small, grown, strict=False)) <= 10


def test_given_parts_stay_and_missing_ones_are_cut_from_train() -> None:
    given = part_list(train=50, test=30)
    result = split([0, 1] * 40, None, given, val=0.2, test=0.5)
    assert result.parts[50:] == ("test",) * 30
    assert Counter(result.parts) == {"train": 40, "validation": 10, "test": 30}
    given = part_list(train=50, validation=30)
    result = split([0, 1] * 40, None, given, val=0.5, test=0.1)
    assert Counter(result.parts) == {"train": 45, "validation": 30, "test": 5}
    given = part_list(train=40, validation=20, test=20)
    assert split([0, 1] * 40, None, given, val=0.5, test=0.5).parts == tuple(given)


def test_equal_content_across_given_parts_is_told() -> None:
    given = part_list(train=6, test=4)
    keys = ["a", "b", "c", "d", "e", "f", "a", "b", "x", "y"]
    notes = split([0] * 10, keys, given, val=0).notes
    assert len(notes) == 1
    assert "2 of 4 test images" in notes[0]
    assert "class0/0006.png = class0/0000.png" in notes[0]


def test_a_class_without_training_images_is_refused_by_name() -> None:
    given = part_list(train=5, validation=2)
    with pytest.raises(ResiduaError, match="class1/0005"):
        split([0] * 5 + [1] * 2, None, given)
    with pytest.raises(ResiduaError, match="'owl'"):
        stratified(
            ["a", "b"],
            [0, 1],
            ["a", "b"],
            ["train", "test"],
            val_fraction=0,
            test_fraction=0,
            seed=0,
            classes=("egret", "owl"),
        )


def test_the_last_image_of_a_class_trains() -> None:
    result = split([0, 1, 2, 3] + [4] * 16, val=0.25)
    assert result.parts[:4] == ("train",) * 4
    assert result.parts.count("validation") == 5
    assert any("no image of class 0 (like" in note for note in result.notes)
    parts = split([0] * 2 + [1] * 98, val=0.5, test=0.4).parts
    assert Counter(parts) == {"test": 40, "validation": 50, "train": 10}
    assert sorted(parts[:2]) == ["test", "train"]


def test_nothing_for_validation_when_asked() -> None:
    assert split([0] * 10, val=0).parts == ("train",) * 10
    assert split([0] * 10, val=0).notes == ()
    assert "less than one" in split([0] * 4, val=0.2).notes[0]


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0.9, 0.9), (1.0, 0.0), (-0.1, 0.0)])
def test_fractions_that_leave_nothing_are_refused(val: float, test: float) -> None:
    with pytest.raises(ResiduaError, match="fraction"):
        split([0] * 10, val=val, test=test)


def test_no_images_are_refused() -> None:
    with pytest.raises(ResiduaError, match="0 readable images"):
        split([])


KERAS = """
import json, sys
from keras.src.utils import dataset_utils as utils

folder, cases = sys.argv[1], json.loads(sys.argv[2])
answers = []
for seed, fraction in cases:
    listing, labels, _ = utils.index_directory(folder, "inferred", (".png",), shuffle=False)
    paths, labels, _ = utils.index_directory(folder, "inferred", (".png",), seed=seed)
    chosen, _ = utils.get_training_or_validation_split(paths, labels, fraction, "validation")
    answers.append([list(listing), list(chosen)])
print("ANSWER" + json.dumps(answers))
"""


@pytest.fixture(scope="module")
def keras_answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """What Keras itself lists and chooses, for a few seeds and fractions."""
    folder = tmp_path_factory.mktemp("classes")
    for name, number in (("Owl", 41), ("egret", 30), ("a b", 36)):
        for index in range(number):
            deeper = folder / name / ("more" if index % 3 == 0 else "")
            deeper.mkdir(parents=True, exist_ok=True)
            (deeper / f"{index}.png").touch()
    cases = json.dumps([[123, 0.2], [0, 0.29], [7, 0.1], [2**32 - 1, 0.5]])
    answer = subprocess.run(
        [sys.executable, "-c", KERAS, str(folder), cases],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("ANSWER")[1]
    keys = [f"{seed} {fraction}" for seed, fraction in json.loads(cases)]
    return dict(zip(keys, json.loads(answer), strict=True))


@pytest.mark.parametrize(("seed", "fraction"), [(123, 0.2), (0, 0.29), (7, 0.1), (2**32 - 1, 0.5)])
def test_keras_picks_these_files(
    keras_answers: dict[str, list[list[str]]], seed: int, fraction: float
) -> None:
    listing, chosen = keras_answers[f"{seed} {fraction}"]
    assert Path(listing[0]).parent.name == "Owl"
    assert keras(listing, val_fraction=fraction, seed=seed) == chosen


def test_keras_numbers_of_the_tutorial_and_its_edges() -> None:
    listing = [str(index) for index in range(565)]
    assert len(keras(listing, val_fraction=0.2, seed=123)) == 113
    assert keras(listing, val_fraction=0, seed=123) == []
    assert len(keras(listing[:100], val_fraction=0.29, seed=0)) == 28  # int(28.999999999999996)
    with pytest.raises(ResiduaError, match="none"):
        keras(listing[:4], val_fraction=0.2, seed=123)
