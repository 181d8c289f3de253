"""Two runs are compared on the images that both evaluated and neither was trained on."""

from __future__ import annotations

from residua.comparison.pairing import ImageResult, Pair, RunPredictions, pair_runs
from residua.data.split import Member

NONE: frozenset[str] = frozenset()


def results(*rows: tuple[str, str, bool]) -> list[ImageResult]:
    return [result(path, content, correct) for path, content, correct in rows]


def result(
    path: str, content: str, correct: bool, label: str = "x", pixels: str = "", group: str = ""
) -> ImageResult:
    return ImageResult(Member(path, label, "test", content, pixels, group), label, correct)


def test_copies_are_matched_once_and_training_images_are_excluded() -> None:
    first = results(
        *(("1", "p", True), ("2", "p", False), ("6", "p", True)),
        *(("3", "q", True), ("4", "r", True)),
    )
    second = results(("2", "p", True), ("9", "p", False), ("4", "r", False), ("5", "s", True))
    (pair,) = pair_runs(
        RunPredictions("m", {"test": first}, frozenset("s")),
        [RunPredictions("n", {"test": second}, frozenset("q"))],
    )
    # 2 with 2, 1 with 9, 4 with 4; 6 has no partner left; 3 and 5 are training images of a run.
    assert (pair.images, pair.gained, pair.lost) == (3, 1, 2)
    assert pair.trained_on == (1, 1)
    assert pair.trained_by == (("n",), ("m",))
    # 1 and 2 are copies: a group.
    assert (pair.groups, pair.accuracies) == (2, (3 / 4, 1 / 4))


def test_copies_make_no_difference_significant() -> None:
    """Of 20 images, each run mistakes some that the other does not; then each is there five times,
    as near-duplicates in the groups of either run, or as equal pixels."""
    right = {"a": [True] * 13 + [False] * 7, "b": [True] * 11 + [False] * 2 + [True] * 7}

    def compared(copies: int, group: str = "", content: str = "") -> Pair:
        first, second = (
            RunPredictions(
                name,
                {
                    "test": [
                        result(
                            f"{image}-{copy}",
                            f"{image}-{copy}",
                            is_right,
                            pixels=str(image) if content else f"{image}-{copy}",
                            group=str(image) if group in (name, "both") else "",
                        )
                        for image, is_right in enumerate(row)
                        for copy in range(copies)
                    ]
                },
                NONE,
            )
            for name, row in right.items()
        )
        return pair_runs(first, [second])[0]

    single, independent = compared(1), compared(5)
    assert (single.groups, single.images, single.gained, single.lost) == (20, 20, 7, 2)
    assert not single.significant
    assert independent.significant  # if images are five times as many
    for group, content in (("a", ""), ("b", ""), ("both", ""), ("", "pixels")):
        copied = compared(5, group, content)
        assert (copied.groups, copied.images) == (20, 100)
        assert copied.p_value == single.p_value
        assert copied.accuracies == single.accuracies
        assert copied.detectable == single.detectable
        assert copied.difference is not None
        assert single.difference is not None
        assert copied.difference.low <= single.difference.low
        assert not copied.difference.significant


def test_the_test_set_is_compared_where_both_have_one() -> None:
    some = results(("1", "p", True), ("2", "q", True))
    tested = RunPredictions("t", {"test": some}, NONE)
    selected = RunPredictions("v", {"validation": some}, NONE)
    both = RunPredictions("b", {"test": some, "validation": some}, NONE)
    assert (
        pair_runs(tested, [both])[0].splits == pair_runs(both, [both])[0].splits == ("test", "test")
    )
    assert pair_runs(both, [selected])[0].splits == ("validation", "validation")
    assert pair_runs(tested, [selected])[0].splits == ("test", "validation")
    assert pair_runs(tested, [both])[0].selected_on == 0
    assert pair_runs(both, [selected])[0].selected_on == 2


def test_a_run_is_evaluated_on_its_test_set_if_it_has_one() -> None:
    some = results(("1", "p", True), ("2", "q", False))
    assert RunPredictions("b", {"test": some, "validation": some[:1]}, NONE).accuracy == 0.5
    assert RunPredictions("all", {}, NONE).accuracy is None


def test_two_shared_images_are_needed() -> None:
    some = results(("1", "p", True), ("2", "q", True))
    tested = RunPredictions("t", {"test": some}, NONE)
    assert pair_runs(tested, [RunPredictions("all", {}, NONE)])[0].difference is None
    assert (
        pair_runs(tested, [RunPredictions("one", {"test": some[:1]}, NONE)])[0].difference is None
    )
    assert pair_runs(tested, [tested])[0].difference is not None


def test_the_same_class_name_in_another_unicode_form_is_the_same_class() -> None:
    names = ("Ka\u0308uzchen", "K\u00e4uzchen", "Uhu")
    runs = [RunPredictions(name, {"test": [result("1", "p", True, name)]}, NONE) for name in names]
    assert pair_runs(runs[0], [runs[1]])[0].relabelled == 0
    assert pair_runs(runs[0], [runs[2]])[0].relabelled == 1
