"""A run or weights are evaluated on the right images, or the reason why not is given."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.images import write_shapes
from references.scenes import COPIES, write_scenes

from residua.errors import ResiduaError
from residua.evaluation.evaluate import evaluate_run, evaluate_weights
from residua.evaluation.recorded import caveat_of
from residua.evaluation.score import CROSS_VALIDATION
from residua.networks.zoo.catalogue import build_from
from residua.runs.folder import RunFolder
from residua.runs.provenance import write_earlier_images
from residua.system.console import Console
from residua.uncertainty.intervals import wilson_interval
from residua.weights.load import read_file

QUIET = Console(quiet=True)
WriteRun = Callable[..., RunFolder]


def test_a_run_is_evaluated_on_its_test_split_and_stores_the_result(run: RunFolder) -> None:
    evaluation = evaluate_run(run, None, QUIET)
    assert evaluation.split == "test"
    test = [member for member in run.read_split() if member.split == "test"]
    assert evaluation.paths == tuple(member.path for member in test)
    assert len(test) == 12
    assert run.read_json("evaluations/test/scores.json") == evaluation.to_json()
    with (run.path / "evaluations/test/predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == [member.label for member in test]
    assert sum(row["correct"] == "true" for row in rows) == evaluation.metrics.correct
    for row, expected in zip(rows, evaluation.rows(), strict=True):
        assert (row["path"], row["predicted"]) == (expected[0], expected[2])
        assert float(row["probability"]) == pytest.approx(expected[3], abs=1e-6)
    counts = Counter((row["class"], row["predicted"]) for row in rows)
    with (run.path / "evaluations/test/confusion.csv").open(newline="") as stream:
        (corner, *predicted), *matrix = csv.reader(stream)
    assert corner == "actual"
    assert predicted == [actual for actual, *_ in matrix] == list(run.classes)
    for actual, *cells in matrix:
        assert list(map(int, cells)) == [counts[actual, name] for name in predicted]


def test_without_a_test_split_the_validation_split_is_used(
    shapes: Path, write_run: WriteRun
) -> None:
    run = write_run(shapes, data__test_fraction=0, data__val_fraction=0.2)
    assert evaluate_run(run, None, QUIET).split == "validation"
    members = [dataclasses.replace(member, split="train") for member in run.read_split()]
    run.write_split(members)
    with pytest.raises(ResiduaError, match="used all its images for training"):
        evaluate_run(run, None, QUIET)


def test_changed_or_missing_images_are_refused(shapes: Path, write_run: WriteRun) -> None:
    data = shutil.copytree(shapes, shapes.parent / "changed", dirs_exist_ok=True)
    run = write_run(data)
    first = next(member.path for member in run.read_split() if member.split == "test")
    content = (data / first).read_bytes()
    Image.new("RGB", (16, 16)).save(data / first)
    with pytest.raises(ResiduaError, match=rf"{first}: has changed since the training"):
        evaluate_run(run, None, QUIET)
    (data / first).unlink()
    with pytest.raises(ResiduaError, match=rf"1 image of the run's test split is missing.*{first}"):
        evaluate_run(run, None, QUIET)
    (data / first).write_bytes(content)
    evaluate_run(run, None, QUIET)


def test_data_that_were_moved_may_be_named(
    shapes: Path, tmp_path: Path, write_run: WriteRun
) -> None:
    run = write_run(shutil.copytree(shapes, tmp_path / "old"))
    expected = evaluate_run(run, None, QUIET).metrics.accuracy
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(ResiduaError, match=r"old: the data of this run .* are gone.* with --data"):
        evaluate_run(run, None, QUIET)
    moved = evaluate_run(run, None, QUIET, data_path=str(tmp_path / "new"))
    assert moved.metrics.accuracy == expected
    for file in (tmp_path / "new/class0").iterdir():
        Image.new("RGB", (16, 16)).save(file)
    with pytest.raises(ResiduaError, match="has changed since the training"):
        evaluate_run(run, None, QUIET, data_path=str(tmp_path / "new"))


def test_images_that_the_run_was_trained_on_are_counted(run: RunFolder, shapes: Path) -> None:
    used = [member for member in run.read_split() if member.split != "test"]
    message = rf"{len(used)} of 60 images were used to train these weights, to select"
    with pytest.warns(UserWarning, match=message):
        evaluation = evaluate_run(run, str(shapes), QUIET)
    assert (evaluation.split, evaluation.metrics.images) == ("all", 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_run(run, None, QUIET)


def test_the_caveat_counts_test_images_that_the_initial_weights_saw(run: RunFolder) -> None:
    assert evaluate_run(run, None, QUIET).caveat == ""
    members = run.read_split()
    write_earlier_images(run, {member.sha256 for member in members if member.split == "train"})
    assert evaluate_run(run, None, QUIET).caveat == ""
    test = [member for member in members if member.split == "test"]
    write_earlier_images(run, {test[0].pixels})
    with pytest.warns(UserWarning, match=r"\b1 of 12 images was used to train these weights"):
        evaluation = evaluate_run(run, None, QUIET)
    assert evaluation.caveat == (
        "optimistic, because 1 of 12 test images was used to train or select the initial weights"
    )
    assert run.read_json("evaluations/test/scores.json")["caveat"] == evaluation.caveat


def test_a_test_set_is_advised_only_where_it_would_make_the_estimate_unbiased(
    shapes: Path, write_run: WriteRun
) -> None:
    run = write_run(shapes, data__test_fraction=0, data__val_fraction=0.2)
    members = run.read_split()
    write_earlier_images(run, {member.sha256 for member in members})
    assert "--test-fraction" not in caveat_of(run, members, "validation")
    used = sum(member.split == "train" for member in members)
    assert f"{used} of {used} training images were used" in caveat_of(
        run, members, CROSS_VALIDATION
    )


def test_the_caveat_counts_test_images_that_are_near_duplicates_of_training_images(
    run: RunFolder,
) -> None:
    members = list(run.read_split())
    for split in ("test", "train"):
        at = next(at for at, member in enumerate(members) if member.split == split)
        members[at] = dataclasses.replace(members[at], group="a burst")
    run.write_split(members)
    caveat = evaluate_run(run, None, QUIET).caveat
    assert caveat.startswith("optimistic, because 1 of 12 test images is a near-duplicate of")


def test_unreadable_files_are_not_among_the_images_that_were_used(
    run: RunFolder, shapes: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(shapes, tmp_path / "some")
    for file in [*data.rglob("01*.png")][:7]:
        file.write_bytes(file.read_bytes()[:100])
    used = {member.path for member in run.read_split() if member.split != "test"}
    left = sum((data / path).stat().st_size > 100 for path in used)
    with pytest.warns(UserWarning, match=rf"{left} of 53 images were used to train"):
        evaluate_run(run, str(data), QUIET)


def test_the_folder_of_an_evaluation_is_printed(
    run: RunFolder, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_run(run, None, Console())
    assert f"saved in {run.path / 'evaluations/test'}: scores.json" in capsys.readouterr().err
    for parent in ("a", "b"):
        shutil.copytree(shapes, tmp_path / parent / "photos")
        evaluate_run(run, str(tmp_path / parent / "photos"), Console())
    folders = [line for line in capsys.readouterr().err.splitlines() if "saved in" in line]
    assert ["data-photos:" in folders[0], "data-photos-2:" in folders[1]] == [True, True]


def test_leaked_images_are_known_by_their_pixels(
    run: RunFolder, shapes: Path, tmp_path: Path
) -> None:
    for file in shapes.rglob("*.png"):
        target = tmp_path / "again" / file.relative_to(shapes).with_suffix(".bmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(target)
    with pytest.warns(UserWarning, match="48 of 60 images were used to train"):
        evaluate_run(run, str(tmp_path / "again"), QUIET)


@pytest.mark.slow
def test_near_duplicates_of_other_data_are_one_group(run: RunFolder, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "photos", count=4)
    for file in sorted(data.rglob("*.png")):
        for name in ("recompressed", "brightened", "mirrored"):
            COPIES[name](Image.open(file)).save(file.with_name(f"{file.stem}-{name}.bmp"))
    for found in (
        evaluate_run(run, str(data), QUIET),
        evaluate_weights(read_file(run.weights), str(data), QUIET),
    ):
        assert (found.metrics.images, found.metrics.groups) == (32, 8)
        low, high = found.metrics.interval
        naive_low, naive_high = wilson_interval(found.metrics.accuracy, 32)
        assert high - low > 1.2 * (naive_high - naive_low)


def test_data_sets_of_equal_names_have_different_folders(run: RunFolder, tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    for parent, images in (("one", 1), ("two", 2), ("one", 1)):
        for name in ("class0", "class2"):
            for number in range(images):
                file = tmp_path / parent / "new" / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (9, 9, 3), np.uint8)).save(file)
        evaluate_run(run, str(tmp_path / parent / "new"), QUIET)
    folders = sorted((run.path / "evaluations").iterdir())
    assert [folder.name for folder in folders] == ["data-new", "data-new-2"]
    locations = [run.read_json(f"evaluations/{folder.name}/data.json") for folder in folders]
    assert [Path(location["data"]).parent.name for location in locations] == ["one", "two"]


def test_the_test_split_of_other_data_is_preferred_and_unreadable_files_are_listed(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, images in (("train", 2), ("val", 2), ("test", 3)):
        write_shapes(tmp_path / "data" / split, images, classes=2)
    broken = tmp_path / "data" / "test" / "class0" / "broken.png"
    broken.write_bytes(b"no image")
    evaluation = evaluate_run(run, str(tmp_path / "data"), Console())
    assert (evaluation.split, evaluation.metrics.images) == ("test", 6)
    ((path, reason),) = evaluation.unreadable
    assert path == "test/class0/broken.png"
    printed = capsys.readouterr().err
    assert f"{path} is left out: {reason}" in printed
    assert "data: has no images of class2" in printed


def test_groups_of_a_table_count_once(run: RunFolder, shapes: Path, tmp_path: Path) -> None:
    files = sorted(shapes.rglob("*.png"))
    rows = [f"{file},{file.parent.name},{at // 4}" for at, file in enumerate(files)]
    table = tmp_path / "seen.csv"
    table.write_text("\n".join(["path,label,group", *rows]))
    with pytest.warns(UserWarning, match="were used to train"):
        metrics = evaluate_run(run, str(table), QUIET).metrics
    assert (metrics.images, metrics.groups) == (60, 15)


def test_an_unknown_class_is_refused(run: RunFolder, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", 1, classes=4)
    with pytest.raises(ResiduaError, match="class 'class3' is not among the"):
        evaluate_run(run, str(tmp_path / "data"), QUIET)


def test_weights_without_class_names_take_as_many_folders_in_sorted_order(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    weights = read_file(write_weights(tmp_path / "net.safetensors", 0))
    data = write_shapes(tmp_path / "data", 1, classes=10)
    with pytest.warns(UserWarning, match="its outputs are assumed to be the sorted class names of"):
        evaluation = evaluate_weights(weights, str(data), QUIET)
    assert evaluation.classes == tuple(f"class{label}" for label in range(10))
    few = write_shapes(tmp_path / "few", 1, classes=4)
    with pytest.raises(ResiduaError, match=r"has no class names for its 10 outputs.* 4 classes"):
        evaluate_weights(weights, str(few), QUIET)
    names = tuple(f"class{9 - label}" for label in range(10))
    assert evaluate_weights(weights.with_classes(names), str(few), QUIET).labels.tolist() == [
        9, 8, 7, 6
    ]  # fmt: skip


def test_weights_without_a_head_are_refused(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    weights = read_file(write_weights(tmp_path / "net.safetensors", 0))
    with pytest.raises(ResiduaError, match="so it cannot classify"):
        evaluate_weights(dataclasses.replace(weights, has_head=False), "digits", QUIET)


def test_folders_that_are_the_numbers_of_all_outputs_are_these_outputs(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    weights = read_file(write_weights(tmp_path / "net.safetensors", 0))
    network = dataclasses.replace(weights.metadata.network, classes=12)
    state = build_from(network, seed=0).state_dict()
    metadata = dataclasses.replace(weights.metadata, network=network)
    twelve = dataclasses.replace(weights, tensors=state, metadata=metadata)
    for label in range(12):
        file = tmp_path / "numbered" / str(label) / "a.png"
        file.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(file)
    named = twelve.with_classes(tuple("abcdefghijkl"))
    in_text_order = twelve.with_classes(tuple(sorted(map(str, range(12)))))
    numbered = [int(path.split("/")[0]) for path in sorted(f"{n}/a.png" for n in range(12))]
    for subject, labels in ((twelve, numbered), (named, numbered), (in_text_order, range(12))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluation = evaluate_weights(subject, str(tmp_path / "numbered"), QUIET)
        assert evaluation.labels.tolist() == list(labels)
        assert evaluation.classes == (subject.metadata.classes or tuple(map(str, range(12))))
        assert bool(caught) == (subject is named)
    shutil.rmtree(tmp_path / "numbered" / "11")
    with pytest.raises(ResiduaError, match="class '0' is not among the 12 classes"):
        evaluate_weights(named, str(tmp_path / "numbered"), QUIET)


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_test_set_alone_is_evaluated(split: str, run: RunFolder, tmp_path: Path) -> None:
    write_shapes(tmp_path / "only" / split, 2, classes=2)
    with pytest.warns(UserWarning, match="were used to train"):
        evaluation = evaluate_run(run, str(tmp_path / "only"), QUIET)
    assert evaluation.metrics.images == 4
    assert set(evaluation.labels.tolist()) == {0, 1}
    write_shapes(tmp_path / "only", 1)
    with pytest.raises(ResiduaError, match="Where are the training images"):
        evaluate_run(run, str(tmp_path / "only"), QUIET)


def test_an_evaluation_that_cannot_be_recorded_is_returned_with_a_warning(run: RunFolder) -> None:
    (run.path / "evaluations").write_text("as on a disk that is read-only")
    with pytest.warns(UserWarning, match="the evaluation is not recorded in the run"):
        assert evaluate_run(run, None, QUIET).metrics.images == 12


def test_copies_count_as_one_image_and_selection_is_stated(
    shapes: Path, write_run: WriteRun, tmp_path: Path
) -> None:
    data = tmp_path / "copied"
    shutil.copytree(shapes, data)
    for file in sorted(data.rglob("*.png")):
        shutil.copy(file, file.with_name(f"{file.stem}-copy.png"))
    run = write_run(data, data__val_fraction=0.4, data__test_fraction=0.0)
    evaluation = evaluate_run(run, None, QUIET)
    metrics = evaluation.metrics
    assert metrics.groups == metrics.images / 2
    low, high = wilson_interval(metrics.accuracy, metrics.images)
    assert metrics.interval[1] - metrics.interval[0] > high - low
    assert evaluation.caveat.startswith("optimistic, because the validation set")
    assert evaluation.to_json()["caveat"] == evaluation.caveat
    with pytest.warns(UserWarning, match="were used to train"):
        other = evaluate_run(run, str(data), QUIET)  # equal pixels, without split.csv
    assert (other.metrics.groups, other.caveat) == (60, "")
