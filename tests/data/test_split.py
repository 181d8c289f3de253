"""The split: exact sizes, whole groups, strata, stability, and the files that Keras selects."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.config.schema import Data
from residua.data.dataset import Entry, SplitName
from residua.data.split import Member, class_notes, keras, overlap_notes, stratified
from residua.errors import ResiduaError

FRACTIONS = st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4])


class Split(NamedTuple):
    splits: tuple[SplitName, ...]
    notes: tuple[str, ...]


def split(
    labels: list[int],
    contents: list[str] | None = None,
    splits: list[SplitName | None] | None = None,
    *,
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
) -> Split:
    paths = [f"class{label}/{index:04}.png" for index, label in enumerate(labels)]
    keys = contents or paths
    entries = [
        Entry(path, label, name)
        for path, label, name in zip(paths, labels, splits or [None] * len(labels), strict=True)
    ]
    data = Data(val_fraction=val, test_fraction=test, split_seed=seed)
    names, notes = stratified(entries, keys, data)
    members = [
        Member(path, f"class{label}", name, "", key)
        for path, label, name, key in zip(paths, labels, names, keys, strict=True)
    ]
    classes = [f"class{label}" for label in range(max(labels) + 1)]
    notes += [*class_notes(members, classes), *overlap_notes(members)]
    return Split(tuple(names), tuple(notes))


def predefined(train: int, validation: int = 0, test: int = 0) -> list[SplitName | None]:
    numbers: dict[SplitName, int] = {"train": train, "validation": validation, "test": test}
    return [split for split, number in numbers.items() for _ in range(number)]


def floor(fraction: float, total: int) -> int:
    return int(Fraction(str(fraction)) * total)


def test_the_first_tutorials_numbers() -> None:
    labels = [0] * 150 + [1] * 145 + [2] * 140 + [3] * 130
    assert Counter(split(labels).splits) == {"train": 452, "validation": 113}


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
    assert split([0] * total, val=fraction).splits.count("validation") == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(12, 60), min_size=1, max_size=6), FRACTIONS, FRACTIONS, st.integers(0, 9)
)
def test_without_duplicates_splits_are_exact_and_stratified(
    sizes: list[int], val: float, test: float, seed: int
) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    total = len(labels)
    splits = split(labels, val=val, test=test, seed=seed).splits
    for name, fraction in (("validation", val), ("test", test)):
        target = floor(fraction, total)
        assert splits.count(name) == target
        for label, size in enumerate(sizes):
            count = sum(pair == (name, label) for pair in zip(splits, labels, strict=True))
            assert abs(count - Fraction(target * size, total)) < 1
    trained_on = {label for label, name in zip(labels, splits, strict=True) if name == "train"}
    assert trained_on == set(labels)


def test_largest_remainder_by_hand() -> None:
    """Quotas of 13 over 33, 20, 12: 6.6, 4.0, 2.4 -> 7, 4, 2."""
    labels = [0] * 33 + [1] * 20 + [2] * 12
    splits = split(labels).splits
    counts = Counter(c for name, c in zip(splits, labels, strict=True) if name == "validation")
    assert counts == {0: 7, 1: 4, 2: 2}


@settings(max_examples=40, deadline=None)
@given(st.data(), FRACTIONS, FRACTIONS)
def test_equal_content_stays_together(data: st.DataObject, val: float, test: float) -> None:
    total = data.draw(st.integers(4, 60))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=total, max_size=total))
    keys = data.draw(st.lists(st.integers(0, 20).map(str), min_size=total, max_size=total))
    try:
        result = split(labels, keys, val=val, test=test)
    except ResiduaError:
        return
    splits: dict[str, set[str]] = {}
    for key, name in zip(keys, result.splits, strict=True):
        splits.setdefault(key, set()).add(name)
    assert all(len(names) == 1 for names in splits.values())
    for name, fraction in (("validation", val), ("test", test)):
        size, target = result.splits.count(name), floor(fraction, total)
        assert size <= target
        noted = any(
            f"The {name} set has" in note and "identical images" in note for note in result.notes
        )
        assert noted == (size < target)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 1)), min_size=2, max_size=9),
    st.sampled_from([0.2, 0.3, 0.4, 0.45]),
)
def test_a_split_is_short_only_if_no_group_fits(groups: list[tuple[int, int]], val: float) -> None:
    """Each group is of one class; one that still fits would take the class's last images."""
    labels = [label for size, label in groups for _ in range(size)]
    keys = [str(key) for key, (size, _) in enumerate(groups) for _ in range(size)]
    try:
        result = split(labels, keys, val=val)
    except ResiduaError:  # a class of which every image is in one group
        return
    missing = floor(val, len(labels)) - result.splits.count("validation")
    train = [name == "train" for name in result.splits]
    left = Counter(label for label, is_left in zip(labels, train, strict=True) if is_left)
    for key, (size, label) in enumerate(groups):
        if train[keys.index(str(key))]:
            assert size > missing or left[label] == size


def test_no_class_loses_its_last_images_to_an_exact_number() -> None:
    """Of classes {1, 1, 3} and {2}, three images would be 1 + 2, which empties the second."""
    result = split([0, 0, 1, 1, 0, 0, 0], ["a", "b", "c", "c", "d", "d", "d"], val=0.45)
    assert result.splits == ("validation",) * 2 + ("train",) * 5
    assert "The validation set has 2 images, not 3" in result.notes[0]


def test_pairs_of_equal_images_fill_an_even_number() -> None:
    """2,001 pairs cannot give 401 images: each split has 400 and a note."""
    keys = [str(index // 2) for index in range(4_010)]
    result = split([int(key) % 10 for key in keys], keys, val=0.1, test=0.1)
    assert Counter(result.splits) == {"train": 3_210, "test": 400, "validation": 400}
    assert sum("identical images" in note for note in result.notes) == 2


def test_images_of_large_and_small_groups_are_drawn_equally_often() -> None:
    """Else a test set has too many images of patients with many images, or with few."""
    sizes = [1, 2, 5, 20] * 50
    keys = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    drawn: Counter[int] = Counter()
    for seed in range(20):
        result = split([int(key) // 4 % 2 for key in keys], keys, val=0.0, test=0.2, seed=seed)
        drawn.update(sizes[int(keys[at])] for at, s in enumerate(result.splits) if s == "test")
    for size, images in drawn.items():
        assert images / (20 * 50 * size) == pytest.approx(0.2, abs=0.05)


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
        names, notes = stratified(
            [Entry(paths[i], labels[i], None) for i in indices],
            [keys[i] for i in indices],
            Data(val_fraction=0.25, test_fraction=0.1, split_seed=seed),
        )
        both.append((dict(zip((paths[i] for i in indices), names, strict=True)), notes))
    assert both[0] == both[1]


def test_a_split_is_the_same_on_every_platform_and_depends_on_the_seed() -> None:
    first, other = (split([0] * 12, val=0.25, seed=seed).splits for seed in (0, 1))
    assert [index for index, name in enumerate(first) if name == "validation"] == [0, 7, 8]
    assert other != first


def test_decomposed_names_are_the_same_names() -> None:
    def splits(names: list[str]) -> list[SplitName]:
        entries = [Entry(name, 0, None) for name in names]
        keys = [str(index) for index in range(len(names))]
        return stratified(entries, keys, Data(val_fraction=0.4))[0]

    assert splits([f"v\u00f6gel/{i}.png" for i in range(20)]) == splits(
        [f"vo\u0308gel/{i}.png" for i in range(20)]
    )


def test_added_images_change_few_splits() -> None:
    small = split([0] * 200, val=0.2).splits
    grown = split([0] * 210, val=0.2).splits
    assert sum(a != b for a, b in zip(small, grown, strict=False)) <= 10


def test_predefined_splits_stay_and_missing_ones_are_drawn_from_train() -> None:
    fixed = predefined(train=50, test=30)
    result = split([0, 1] * 40, None, fixed, val=0.2, test=0.5)
    assert result.splits[50:] == ("test",) * 30
    assert Counter(result.splits) == {"train": 40, "validation": 10, "test": 30}
    fixed = predefined(train=50, validation=30)
    result = split([0, 1] * 40, None, fixed, val=0.5, test=0.1)
    assert Counter(result.splits) == {"train": 45, "validation": 30, "test": 5}
    fixed = predefined(train=40, validation=20, test=20)
    assert split([0, 1] * 40, None, fixed, val=0.5, test=0.5).splits == tuple(fixed)


def test_equal_content_across_predefined_splits_is_noted() -> None:
    fixed = predefined(train=6, test=4)
    keys = ["a", "b", "c", "d", "e", "f", "a", "b", "x", "y"]
    notes = split([0] * 10, keys, fixed, val=0).notes
    assert len(notes) == 1
    assert "2 of 4 test images" in notes[0]
    assert "class0/0006.png = class0/0000.png" in notes[0]


def test_a_class_without_training_images_is_refused_by_name() -> None:
    fixed = predefined(train=5, validation=2)
    with pytest.raises(ResiduaError, match=r"The training set has no images of: class1\."):
        split([0] * 5 + [1] * 2, None, fixed)


def test_the_last_image_of_a_class_is_for_training() -> None:
    result = split([0, 1, 2, 3] + [4] * 16, val=0.25)
    assert result.splits[:4] == ("train",) * 4
    assert result.splits.count("validation") == 5
    missing = "class0, class1, class2, class3"
    assert f"The validation set has no images of: {missing}." in result.notes
    splits = split([0] * 2 + [1] * 98, val=0.5, test=0.4).splits
    assert Counter(splits) == {"test": 40, "validation": 50, "train": 10}
    assert sorted(splits[:2]) == ["test", "train"]


def test_a_fraction_of_zero_gives_no_split() -> None:
    assert split([0] * 10, val=0).splits == ("train",) * 10
    assert split([0] * 10, val=0).notes == ()
    assert "less than one" in split([0] * 4, val=0.2).notes[0]


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0.9, 0.9), (1.0, 0.0), (-0.1, 0.0)])
def test_fractions_that_leave_nothing_are_refused(val: float, test: float) -> None:
    with pytest.raises(ResiduaError, match="fraction"):
        split([0] * 10, val=val, test=test)


def test_no_images_are_refused() -> None:
    with pytest.raises(ResiduaError, match="0 readable images"):
        stratified([], [], Data(val_fraction=0.2))


@pytest.mark.slow
def test_keras_selects_these_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    utils = pytest.importorskip("keras.src.utils.dataset_utils")
    for name, number in (("Owl", 41), ("egret", 30), ("a b", 36)):
        for image in range(number):
            folder = tmp_path / name / ("more" if image % 3 == 0 else "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{image}.png").touch()
    index = (str(tmp_path), "inferred", (".png",))
    listing, _, _ = utils.index_directory(*index, shuffle=False)
    assert Path(listing[0]).parent.name == "Owl"
    for seed, fraction in ((123, 0.2), (0, 0.29), (7, 0.1), (2**32 - 1, 0.5)):
        paths, labels, _ = utils.index_directory(*index, seed=seed)
        selected, _ = utils.get_training_or_validation_split(paths, labels, fraction, "validation")
        assert keras(listing, val_fraction=fraction, seed=seed) == selected


def test_keras_selects_as_many_images_as_in_the_tutorial() -> None:
    listing = [str(index) for index in range(565)]
    assert len(keras(listing, val_fraction=0.2, seed=123)) == 113
    assert keras(listing, val_fraction=0, seed=123) == []
    assert len(keras(listing[:100], val_fraction=0.29, seed=0)) == 28  # int(28.999999999999996)
    with pytest.raises(ResiduaError, match="none"):
        keras(listing[:4], val_fraction=0.2, seed=123)
