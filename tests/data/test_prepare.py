"""Settings and a folder -> decoded images, splits and resolved settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.images import write_shapes
from references.scenes import COPIES, scene, write_scenes

import residua
from residua.config.parse import with_settings
from residua.config.schema import AUTO, Config
from residua.data.fixes import Fix, write_fixes
from residua.data.prepare import prepare
from residua.data.prepared import Prepared, thinned, with_validation_set
from residua.errors import ResiduaError
from residua.system.console import Console


def prepared(data: Path, **settings: object) -> Prepared:
    given = {name.replace("__", "."): value for name, value in settings.items()}
    config = with_settings(Config(), {"data.path": str(data), **given})
    return prepare(config, Console(quiet=True))


def test_everything_automatic_is_resolved(shapes: Path) -> None:
    made = prepared(shapes, data__test_fraction=0.2)
    for section in dataclasses.fields(made.config):
        values = dataclasses.asdict(getattr(made.config, section.name)).values()
        assert AUTO not in [value for value in values if isinstance(value, str)]
    assert {name: len(members) for name, members in made.splits.items()} == {
        "train": 36,
        "validation": 12,
        "test": 12,
    }
    assert made.counts("train") == [12, 12, 12]
    assert made.pixels.shape == (60, 16, 16, 3)
    assert "60 images in 3 classes: 36 train, 12 validation, 12 test" in made.summary
    fewer = prepared(shapes, data__test_fraction=0.2, training__max_images=20)
    assert "60 images in 3 classes: 20 of 36 train, 12 validation, 12 test" in fewer.summary


def test_statistics_come_from_the_training_set_alone(tmp_path: Path) -> None:
    for name, value in (("train/a", 10), ("train/b", 30), ("test/a", 200), ("test/b", 250)):
        for number in range(4):
            file = tmp_path / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (value, value, value + number)).save(file)
    made = prepared(tmp_path, data__val_fraction=0)
    assert made.config.preprocessing.mean[0] == pytest.approx(20)


def test_classes_that_a_split_lacks_are_named_once(tmp_path: Path) -> None:
    for split, labels in (("train", (2, 9, 10, 11)), ("test", (9, 11))):
        for label in labels:
            for number in range(5):
                file = tmp_path / split / str(label) / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (16, 16), 20 * label + number).save(file)
    notes = prepared(tmp_path, data__val_fraction=0).notes
    (note,) = [note for note in notes if "The test set" in note]
    assert note == "The test set has no images of: 10, 2."


def test_an_unreadable_file_is_listed_or_refused(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 6)
    broken = data / "class0" / "000.png"
    broken.write_bytes(broken.read_bytes()[:60])
    made = prepared(data)
    assert [path for path, _ in made.unreadable] == ["class0/000.png"]
    assert len(made.members) == 17
    with pytest.raises(ResiduaError, match="class0/000"):
        prepared(data, data__unreadable="fail")


def test_identical_files_are_counted_and_stay_on_one_side(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 12)
    first = data / "class1" / "000.png"
    for number in range(3):
        (data / "class1" / f"copy{number}.png").write_bytes(first.read_bytes())
    made = prepared(data, data__test_fraction=0.3)
    assert made.duplicates == 4
    splits = {member.sha256: set() for member in made.members}  # type: ignore[var-annotated]
    for member in made.members:
        splits[member.sha256].add(member.split)
    assert all(len(names) == 1 for names in splits.values())


def save_again(file: Path) -> None:
    """The same pixels in files of other bytes."""
    image = Image.open(file)
    image.save(file.with_name(f"{file.stem}-again.png"), compress_level=0)
    image.save(file.with_suffix(".bmp"))
    turned = Image.Exif()
    turned[0x0112] = 6
    image.rotate(90, expand=True).save(file.with_suffix(".tiff"), exif=turned)


def test_equal_pixels_in_other_files_stay_on_one_side(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 6)
    for file in sorted(data.rglob("*.png")):
        save_again(file)
    made = prepared(data, data__test_fraction=0.3, data__duplicates="exact")
    assert made.duplicates == 4 * 18
    splits: dict[str, set[str]] = {}
    for member in made.members:
        splits.setdefault(member.path.split(".")[0].split("-")[0], set()).add(member.split)
    assert len(splits) == 18
    assert all(len(names) == 1 for names in splits.values())
    assert {name for names in splits.values() for name in names} == {"train", "validation", "test"}


def test_the_split_does_not_depend_on_size_or_channels(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 8)
    for file in sorted(data.rglob("*3.png")):
        save_again(file)
    first = prepared(data, data__test_fraction=0.3)
    second = prepared(data, data__test_fraction=0.3, preprocessing__size=32)
    third = prepared(data, data__test_fraction=0.3, preprocessing__channels=1)
    assert first.members == second.members
    assert [m.split for m in first.members] == [m.split for m in third.members]


def test_an_image_in_two_classes_is_a_contradiction(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 6)
    for number in (2, 4):
        Image.open(data / f"class0/00{number}.png").save(data / f"class2/copy{number}.bmp")
    (data / "class1/copy.png").write_bytes((data / "class1/000.png").read_bytes())
    (note,) = (note for note in prepared(data).notes if "contradict" in note)
    assert note == (
        "4 images with identical pixels in different classes, for example class0/002.png = "
        "class2/copy2.bmp: their labels contradict each other. Remove the wrong copies."
    )


def test_a_resumed_run_keeps_its_recorded_split(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 6)
    Image.open(data / "class0/000.png").save(data / "class0/000.bmp")
    config = with_settings(Config(), {"data.path": str(data)})
    made = prepare(config, Console(quiet=True))
    splits = {"class0/000.bmp": "train", "class0/000.png": "validation"}
    recorded = [  # as version 0.1.0 wrote it: without digests of pixels, twins on two sides
        dataclasses.replace(member, split=splits.get(member.path, member.split), pixels="")
        for member in made.members
    ]
    resumed = prepare(made.config, Console(quiet=True), recorded=recorded)
    assert [m.split for m in resumed.members] == [m.split for m in recorded]
    assert any("pixel for pixel" in note for note in resumed.notes)
    (data / "class0/000.bmp").unlink()
    with pytest.raises(ResiduaError, match="1 new, missing or changed images differ"):
        prepare(made.config, Console(quiet=True), recorded=recorded)


def test_16_bit_images_have_one_scale(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (12, 16, 16)).astype(np.uint16)
    values[0, 0, 0] = 65535  # a hot pixel
    values[7] //= 16
    for number, image in enumerate(values):
        file = tmp_path / f"class{number % 2}" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(file)
    made = prepared(tmp_path, preprocessing__size=16)
    assert made.config.preprocessing.value_range == (0, 4095)
    index = [entry.path for entry in made.dataset.entries].index("class0/2.png")
    np.testing.assert_array_equal(made.pixels[index, ..., 0], np.rint(values[2] / 4095 * 255))
    (note,) = made.notes
    assert "1 of 12 images uses less than a tenth" in note
    assert "class1/7.png (0 to 255 are the values 0 to 4095" in note


def test_a_single_class_and_too_narrow_a_head_are_refused(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 4)
    with pytest.raises(ResiduaError, match="has 3 classes"):
        prepared(data, network__classes=2)
    one = write_shapes(tmp_path / "one", 4, classes=1)
    with pytest.raises(ResiduaError, match="single class 'class0'"):
        prepared(one)
    rows = ["path,label", *(f"class0/{number:03}.png,{'x' * (number < 2)}" for number in range(4))]
    with pytest.raises(ResiduaError, match=r"^the data given: has the single class 'x'"):
        residua.train([(file, "x") for file in one.rglob("*.png")], quiet=True)
    (one / "t.csv").write_text("\n".join(rows))
    reason = r"Not used: 2 files, the first class0/002.png: row 4: has no label in the column"
    with pytest.raises(ResiduaError, match=reason):
        prepared(one / "t.csv")


def test_a_crop_padding_of_the_image_size_is_refused(shapes: Path) -> None:
    with pytest.raises(ResiduaError, match="expected less than the image size, 16 px"):
        prepared(shapes, augmentation__crop_padding=16)


def test_choosing_gives_a_new_value_and_leaves_the_old_one(shapes: Path) -> None:
    made = prepared(shapes)
    other = made.choose("training.epochs", 3, "test")
    assert (other.config.training.epochs, made.config.training.epochs == 3) == (3, False)
    assert [c.reason for c in other.choices if c.setting == "training.epochs"] == ["test"]
    explicit = prepared(shapes, training__epochs=9)
    assert explicit.choose("training.epochs", 3, "test") is explicit


def test_max_images_trains_on_evenly_spaced_ones(shapes: Path) -> None:
    made = prepared(shapes, training__max_images=10)
    assert len(made.training_members) == 10
    assert made.training_batches().members.tolist() == made.training_members.tolist()
    assert thinned(np.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert thinned(np.arange(10), 0).tolist() == list(range(10))


def test_what_is_evaluated_after_an_epoch(shapes: Path) -> None:
    made = prepared(shapes, data__test_fraction=0.2)
    assert list(made.eval_splits()) == ["validation"]
    assert len(made.eval_splits(5)["validation"]) == 5
    curves = prepared(shapes, data__test_fraction=0.2, training__curve_test=True)
    assert list(curves.eval_splits()) == ["validation", "test"]
    without = prepared(shapes, training__curve_test=True)
    assert any("--curve-test has no effect" in note for note in without.notes)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12 scenes, of which four have a mirrored or cropped copy."""
    folder = write_scenes(tmp_path_factory.mktemp("scenes"))
    for label in (0, 1):
        for number, name in ((3, "mirrored"), (8, "cropped")):
            copy = COPIES[name](scene(1000 * label + number))
            copy.save(folder / f"class{label}" / f"{number:02}-copy.png")
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_stay_in_one_split(seed: int, scenes: Path) -> None:
    made = prepared(scenes, data__val_fraction=0.3, data__test_fraction=0.2, data__split_seed=seed)
    splits: dict[str, set[str]] = {}
    for member in made.members:
        splits.setdefault(member.path[:9], set()).add(member.split)
    assert len(splits) == 24
    assert all(len(names) == 1 for names in splits.values())


def test_a_later_validation_set_keeps_near_duplicates_together(scenes: Path) -> None:
    made = prepared(scenes, data__test_fraction=0.2)
    later = with_validation_set(made, 0.3, "a test")
    splits: dict[str, set[str]] = {}
    for member in later.members:
        splits.setdefault(member.path[:9], set()).add(member.split)
    assert all(len(names) == 1 for names in splits.values())
    assert any(names == {"validation"} for names in splits.values())


def test_copies_share_a_fold(scenes: Path) -> None:
    made = prepared(scenes)
    samples = np.concatenate(list(made.splits.values()))
    groups = dict(
        zip([made.dataset.entries[at].path for at in samples], made.groups_of(samples), strict=True)
    )
    assert groups["class0/03.png"] == groups["class0/03-copy.png"]
    assert len(set(groups.values())) == 24


def test_groups_of_an_expression_stay_in_one_split(scenes: Path) -> None:
    made = prepared(scenes, data__group_by=r"/\d", data__val_fraction=0.3, data__duplicates="exact")
    assert "validation" in {member.split for member in made.members}
    for tens in "01":
        rows = [member for member in made.members if f"/{tens}" in member.path]
        assert len({member.split for member in rows}) == 1


def test_near_duplicates_of_training_images_in_a_test_set_are_noted(tmp_path: Path) -> None:
    write_scenes(tmp_path / "train", count=6)
    for label in (0, 1):
        file = tmp_path / "test" / f"class{label}" / "a.png"
        file.parent.mkdir(parents=True)
        COPIES["cropped"](scene(1000 * label + 3)).save(file)
    (note,) = [note for note in prepared(tmp_path).notes if "near-duplicates" in note]
    assert "2 of 2 test images" in note
    assert "test/class0/a.png of train/class0/03.png" in note


def test_near_duplicates_with_two_labels_are_noted(tmp_path: Path) -> None:
    write_scenes(tmp_path, count=8)
    COPIES["resized"](scene(0)).save(tmp_path / "class1" / "x.png")
    notes = " ".join(prepared(tmp_path).notes)
    assert "2 images with near-duplicates in different classes" in notes
    assert "class0/00.png and class1/x.png" in notes


def test_saved_splits_are_not_drawn_again(scenes: Path) -> None:
    made = prepared(scenes, data__test_fraction=0.2)
    config = with_settings(Config(), {"data.path": str(scenes), "data.split_seed": 9})
    again = prepare(config, Console(quiet=True), recorded=made.members)
    assert again.members == made.members


def test_a_fix_list_changes_what_is_trained_on(scenes: Path, tmp_path: Path) -> None:
    fixes = [Fix("class0/00.png", "exclude"), Fix("class0/01.png", "relabel", "class1")]
    write_fixes(tmp_path / "fixes.csv", fixes)
    made = prepared(scenes, data__fixes=str(tmp_path / "fixes.csv"))
    labels = {member.path: member.label for member in made.members}
    assert "class0/00.png" not in labels
    assert labels["class0/01.png"] == "class1"
    assert labels["class0/02.png"] == "class0"


def test_labels_of_a_fix_list_in_evaluated_splits_are_reported(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", 12)
    run = prepared(data, data__test_fraction=0.25, data__val_fraction=0.25)
    by_split = {member.split: member.path for member in run.members}
    fixes = [Fix(path, "relabel", "class1") for path in by_split.values()]
    other = next(m.path for m in run.members if m.path not in by_split.values())
    write_fixes(tmp_path / "fixes.csv", [*fixes, Fix(other, "exclude")])
    settings = {"data__fixes": str(tmp_path / "fixes.csv"), "data__val_fraction": 0.25}
    fixed = prepared(data, data__test_fraction=0.25, **settings)
    (note,) = [note for note in fixed.notes if note.startswith("fixes.csv")]
    assert "images relabelled: 3, excluded: 1" in note
    splits = [m.split for m in fixed.members if m.path in by_split.values()]
    assert set(splits) & {"validation", "test"}
    for name in ("validation", "test"):
        assert (f"{name} metrics are too optimistic" in note) == (name in splits)
        assert (f"1 relabelled image is in the {name} set" in note) == (splits.count(name) == 1)
    write_fixes(tmp_path / "fixes.csv", [Fix(other, "exclude")])
    notes = prepared(data, data__test_fraction=0.25, **settings).notes
    assert "fixes.csv: images relabelled: 0, excluded: 1" in notes
