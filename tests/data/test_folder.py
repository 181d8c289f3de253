"""Class and split folders are recognised, files ignored or rejected, unclear names refused."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from residua.data import folder
from residua.data.dataset import Unreadable
from residua.errors import ResiduaError


def put(root: Path, *names: str) -> Path:
    """Writes a small real image at each name; returns the root."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (number % 256, 1, 2)).save(path, "PNG")
    return root


def refusal(root: Path) -> str:
    with pytest.raises(ResiduaError) as caught:
        folder.find(root)
    return str(caught.value)


# Layouts


def test_flat_class_folders_with_images_at_any_depth(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path / "zoo", "owl/b.png", "cat/1.png", "owl/deep/down/a.png"))
    assert source.name == "zoo"
    assert source.classes == ("cat", "owl")
    assert [(e.path, e.label, e.split) for e in source.entries] == [
        ("cat/1.png", 0, None),
        ("owl/b.png", 1, None),
        ("owl/deep/down/a.png", 1, None),
    ]
    assert not source.warnings
    assert not source.rejected
    content = source.content(1)
    assert content == (tmp_path / "zoo/owl/b.png").read_bytes()
    assert source.header(1, content, 100).width == 4
    assert source.pixels(1, content, 3, 100).shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "Valid", "TESTING"),
        ("TRAINING_SET", "validation", "test_set"),
        ("train", None, "test"),
        ("train", "val", None),
        ("train", None, None),
    ],
)
def test_split_folders_have_several_names(
    tmp_path: Path, train: str, val: str | None, test: str | None
) -> None:
    for split in (train, val, test):
        if split:
            put(tmp_path, f"{split}/owl/1.png", f"{split}/cat/2.png")
    source = folder.find(tmp_path)
    expected = [("train", train), ("validation", val), ("test", test)]
    assert source.classes == ("cat", "owl")
    assert {(e.split, e.path.split("/")[0]) for e in source.entries} == {
        (split, name) for split, name in expected if name
    }
    assert [e.path for e in source.entries] == sorted(e.path for e in source.entries)
    assert not source.warnings


@pytest.mark.parametrize(
    ("names", "question"),
    [
        (["train/a/1.png", "dev/a/1.png"], "What is dev/?"),
        (["train/a/1.png", "eval/a/1.png", "val/a/1.png"], "What is eval/?"),
        (["train/a/1.png", "Hold-Out/a/1.png"], "What is Hold-Out/?"),
        (["train/a/1.png", "train2/a/1.png"], "What is train2/?"),
        (["train/a/1.png", "training/a/1.png"], "Which of them is meant?"),
        (["train_images/a/1.png", "test_images/a/1.png"], "What is test_images/?"),
        (["train_pictures/a/1.png", "test_pictures/a/1.png"], "What is test_pictures/?"),
        (["val/a/1.png", "test/a/1.png"], "Where are the training images?"),
        (["test/a/1.png", "cats/1.png"], "Where are the training images?"),
    ],
)
def test_unclear_split_names_are_refused_with_a_question(
    tmp_path: Path, names: list[str], question: str
) -> None:
    said = refusal(put(tmp_path, *names))
    assert question in said
    assert "Rename the folders to train, val and test" in said


@pytest.mark.parametrize(
    "classes", [("train", "bus", "car"), ("dev", "prod"), ("eval_a", "b"), ("latest", "greatest")]
)
def test_classes_may_have_names_like_splits(tmp_path: Path, classes: tuple[str, ...]) -> None:
    source = folder.find(put(tmp_path, *(f"{name}/1.png" for name in classes)))
    assert source.classes == tuple(sorted(classes))
    assert {e.split for e in source.entries} == {None}


def test_other_folders_beside_splits_are_reported(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path, "train/a/1.png", "train/b/1.png", "originals/1.png"))
    assert len(source.entries) == 2
    assert source.warnings == ["Not used: originals/ beside the split folders."]


# The class map


def test_a_split_folder_may_contain_itself(tmp_path: Path) -> None:
    inner = ("training_set/training_set", "test_set/test_set")
    source = folder.find(put(tmp_path, *(f"{split}/{c}/1.png" for split in inner for c in "ab")))
    assert source.classes == ("a", "b")
    assert [e.split for e in source.entries] == ["test", "test", "train", "train"]


def test_splits_inside_classes_are_refused(tmp_path: Path) -> None:
    names = [f"{c}/{split}/1.png" for c in ("cat", "dog") for split in ("train", "test")]
    assert "cat/ contains test, train: is it divided into splits?" in refusal(put(tmp_path, *names))


def test_one_class_folder_names_the_data_that_may_be_meant(tmp_path: Path) -> None:
    (warning,) = folder.find(put(tmp_path, "photos/cat/1.png", "photos/dog/1.png")).warnings
    assert f"(cat, dog) are meant, give {tmp_path / 'photos'} as the data" in warning


def test_folders_of_the_system_are_refused_at_once() -> None:
    assert "is a folder of the system" in refusal(Path("/proc"))


def test_all_splits_share_one_class_map(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png", "val/b/1.png")
    source = folder.find(tmp_path)
    assert {e.path: e.label for e in source.entries if e.split != "train"} == {
        "test/c/1.png": 2,
        "val/b/1.png": 1,
    }
    assert source.warnings == [
        "The validation set has no images of: a, c.",
        "The test set has no images of: a, b.",
    ]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_without_training_images_is_refused(tmp_path: Path, split: str) -> None:
    said = refusal(put(tmp_path, "train/owl/1.png", f"{split}/owl/1.png", f"{split}/eagle/1.png"))
    assert "'eagle'" in said
    assert "its classes: owl" in said


def test_composed_and_decomposed_accents_are_one_class(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path, "train/caf\u00e9/1.png", "test/cafe\u0301/1.png"))
    assert source.classes == ("caf\u00e9",)
    assert [e.label for e in source.entries] == [0, 0]


def test_class_names_that_differ_in_case_get_a_warning(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path, "Owl/1.png", "owl/1.png"))
    assert source.classes == ("Owl", "owl")
    assert source.warnings == ["The classes 'Owl' and 'owl' differ only in case or spaces."]


def test_class_names_that_differ_in_spaces_get_a_warning(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path, "cat/1.png", "cat /1.png"))
    assert source.warnings == ["The classes 'cat' and 'cat ' differ only in case or spaces."]


def test_an_empty_folder_is_not_a_class(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/notes.txt").write_text("no image")
    source = folder.find(tmp_path)
    assert source.classes == ("a", "b")
    assert source.warnings == ["Not a class: the folder c/ contains no images."]


def test_unlabelled_test_images_are_not_used(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png"))
    assert {e.split for e in source.entries} == {"train"}
    assert len(source.warnings) == 2
    assert "Not used: 1 image in test/" in source.warnings[0]
    assert "the test folder has no images in class folders" in source.warnings[1]


# Files


def test_files_are_ignored_or_rejected_by_their_first_bytes(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/no_extension", "b/lies.txt")
    put(tmp_path, "a/.hidden.png", "a/@eaDir/1.png", "a/.ipynb_checkpoints/1.png", ".git/1.png")
    put(tmp_path, "__MACOSX/a/._1.png", "a/__MACOSX/2.png", "$RECYCLE.BIN/x.png", "Thumbs.db")
    for name, content in {
        "a/Thumbs.db": b"\xd0\xcf",
        "a/desktop.ini": b"[x]",
        "a/notes.txt": b"text",
        "a/labels.csv": b"",
        "a/page.JPG": b"<!DOCTYPE html>",
        "a/empty.jpeg": b"",
        "a/photo.heic": b"\0\0\0\x18ftypheic\0\0",
        "a/photo.cr3": b"\0\0\0\x18ftypcrx \0",
        "a/drawing.svg": b"<svg>",
    }.items():
        (tmp_path / name).write_bytes(content)
    source = folder.find(tmp_path)
    assert [e.path for e in source.entries] == ["a/1.png", "b/lies.txt", "b/no_extension"]
    assert dict(source.rejected) == {
        "a/drawing.svg": "is an SVG drawing: export it as PNG",
        "a/empty.jpeg": "is empty",
        "a/page.JPG": "is a web page, perhaps of an error: download the image again",
        "a/photo.cr3": "is a camera's raw file: export it as JPEG",
        "a/photo.heic": "is a HEIC photo, which is not supported: convert it to JPEG",
    }


def test_backup_copies_and_names_with_a_line_break_are_listed(tmp_path: Path) -> None:
    copies = ["a/1.jpg_original", "a/1.jpg.bak", "a/1.jpg~"]
    put(tmp_path, "a/1.jpg", "b/1.jpg", "b/x\ry.png", "b/x\ny.png", *copies)
    source = folder.find(tmp_path)
    assert [e.path for e in source.entries] == ["a/1.jpg", "b/1.jpg"]
    assert dict(source.rejected) == {
        **dict.fromkeys(copies, "has the name of a backup copy: rename it to use it"),
        **dict.fromkeys(["b/x\ry.png", "b/x\ny.png"], "has a line break in its name: rename it"),
    }
    assert [path.name for path in folder.images_below(tmp_path / "a")] == ["1.jpg"]


@pytest.mark.parametrize("name", ["x.dcm", "x.npy", "x.exr", "x.dds", "x.tga"])
def test_images_of_other_formats_are_listed(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / name).write_bytes(bytes(200))
    assert [path for path, _ in folder.find(tmp_path).rejected] == [f"a/{name}"]


def test_images_outside_class_folders_are_reported(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path, "a/1.png", "b/1.png", "x.png", "y.png"))
    assert len(source.entries) == 2
    assert source.warnings == ["Not used: 2 images in the data folder, outside the class folders."]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path, "data/a/1.png", "elsewhere/2.png")
    data = tmp_path / "data"
    (data / "a/up").symlink_to(data, target_is_directory=True)
    (data / "a/self").symlink_to(data / "a", target_is_directory=True)
    (data / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (data / "a/link.png").symlink_to(tmp_path / "elsewhere/2.png")
    (data / "a/nowhere.png").symlink_to(tmp_path / "gone.png")
    (data / "a/ring.png").symlink_to(data / "a/ring.png")
    os.mkfifo(data / "a/pipe.png")
    source = folder.find(data)
    found = [e.path for e in source.entries]
    assert {"a/1.png", "a/link.png", "b/2.png"} <= set(found)
    assert len(found) < 10
    assert dict(source.rejected)["a/pipe.png"] == "is not a regular file"
    assert {"a/nowhere.png", "a/ring.png"} <= set(dict(source.rejected))


def test_many_links_to_folders_do_not_multiply(tmp_path: Path) -> None:
    for level in range(12):
        (tmp_path / f"level{level}").mkdir()
        for link in "xyz":
            (tmp_path / f"level{level}" / link).symlink_to(tmp_path / f"level{level + 1}")
    put(tmp_path, "level12/1.png", "data/b/1.png")
    (tmp_path / "data/a").symlink_to(tmp_path / "level0")
    assert Counter(e.label for e in folder.find(tmp_path / "data").entries) == {0: 1, 1: 1}


def test_names_that_are_not_utf8_are_rejected(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    image = (tmp_path / "a/1.png").read_bytes()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.png")).write_bytes(image)
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/c\xe9")).mkdir()
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/c\xe9/1.png")).write_bytes(image)
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    source = folder.find(tmp_path)
    assert source.classes == ("a", "b")
    reason = "has a name that is not UTF-8: rename it"
    assert source.rejected == [("a/\\xff.png", reason), ("c\\xe9/1.png", reason)]
    json.dumps([source.rejected, source.warnings]).encode("utf-8")


def test_a_deleted_file_is_unreadable(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path, "a/1.png", "b/1.png"))
    (tmp_path / "a/1.png").unlink()
    with pytest.raises(Unreadable, match="No such file"):
        source.content(0)


def test_archives_in_a_folder_are_not_skipped_silently(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/1.png")
    for name in ("photos.zip", "b/more.tar.gz"):
        (tmp_path / name).write_bytes(b"PK\3\4")
    source = folder.find(tmp_path)
    (warning,) = source.warnings
    assert warning.startswith("Not used: 1 archive in the data folder: photos.zip.")
    assert [path for path, _ in source.rejected] == ["b/more.tar.gz"]
    (tmp_path / "only").mkdir()
    (tmp_path / "only/owl.zip").write_bytes(b"PK\3\4")
    assert "1 archive in the data folder: owl.zip. Unpack" in refusal(tmp_path / "only")


# Refusals


def test_folders_without_images_are_refused_with_the_expected_layout(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "file.txt").write_text("x")
    assert "is a file, not a folder" in refusal(tmp_path / "file.txt")
    (tmp_path / "empty").mkdir()
    assert "It contains no images at all." in refusal(tmp_path / "empty")
    assert "Not used: 3 images in the data folder" in refusal(
        put(tmp_path / "bare", "1.png", "2.png", "3.png")
    )
    (tmp_path / "broken/a").mkdir(parents=True)
    (tmp_path / "broken/a/1.jpg").write_bytes(b"")
    assert "Unusable: 1 file, such as a/1.jpg, which is empty" in refusal(tmp_path / "broken")
    for name in ("nowhere", "file.txt", "empty", "bare", "broken"):
        assert "DATA/train/owl/1.jpg" in refusal(tmp_path / name)


def test_an_unreadable_folder_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, for whom no folder is closed: the system call is made to refuse."""
    put(tmp_path, "a/1.png", "b/private/1.png")
    scandir = os.scandir

    def refusing(path: Path) -> "os._ScandirIterator[str]":
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    said = refusal(tmp_path)
    assert "b/private cannot be read: Permission denied" in said
    assert "Make it readable" in said


def test_a_single_class_gets_a_warning(tmp_path: Path) -> None:
    source = folder.find(put(tmp_path, "images/owl/1.png", "images/cat/1.png"))
    assert source.warnings[0].startswith("All images are in one class folder, images/.")


def test_a_table_beside_the_only_folder_of_images_is_named(tmp_path: Path) -> None:
    root = put(tmp_path, "images/1.png", "images/2.png")
    (root / "labels.csv").write_text("id,label\n1,owl\n2,cat\n")
    (warning,) = folder.find(root).warnings
    assert f"If labels.csv lists the images, give {root / 'labels.csv'} as the data." in warning
    for name in ("a.csv", "train.csv", "x.csv"):
        (root / name).write_text("id,label\n1,owl\n2,cat\n")
    (warning,) = folder.find(root).warnings
    assert f"If a table in {root} (a.csv, labels.csv, train.csv, ...) lists the images" in warning


@pytest.mark.parametrize(("written", "name"), [(".", "zoo"), ("a/..", "zoo"), ("../zoo/", "zoo")])
def test_the_short_name_is_the_last_component(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, name: str
) -> None:
    monkeypatch.chdir(put(tmp_path / "zoo", "a/1.png", "b/1.png"))
    assert folder.find(Path(written)).name == name
    assert folder.short_name(Path("/")) == "data"


# Real data


def test_every_file_of_messy_is_read_rejected_or_ignored(shared_data: Path) -> None:
    source = folder.find(shared_data / "messy")
    found, rejected = {e.path for e in source.entries}, dict(source.rejected)
    rows = json.loads((shared_data / "messy.json").read_text("utf-8"))
    counts = Counter(row["expect"] for row in rows)
    assert counts == {"read": 62, "reject": 6, "ignore": 5, "warn": 1}
    for row in rows:
        name = row["file"]
        seen = {
            "read": name in found and name not in rejected,
            "reject": (name in found) != (name in rejected),  # some are found out when opened
            "ignore": name not in found and name not in rejected,
            "warn": any(name in warning for warning in source.warnings),
        }
        assert seen[row["expect"]], row
    assert source.classes == ("owl", "puffin")
    assert len(source.warnings) == 1


# Keras


def keras_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    utils = pytest.importorskip("keras.src.utils.dataset_utils")
    formats = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
    files, _, _ = utils.index_directory(
        str(root), "inferred", formats, shuffle=False, verbose=False
    )
    return [Path(file).relative_to(root).as_posix() for file in files]


@pytest.mark.slow
def test_keras_listing_is_that_of_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "b/2.png", "b/10.png", "b/a/1.png", "b/a-b/1.png", "b/B.PNG", "a/.hidden.png")
    put(tmp_path, "a/.dir/1.png", ".skipped/1.png", "lost+found/1.png", "a b/é.gif", "Z/x.jpeg")
    put(tmp_path, "a/image.webp", "a/image.tiff", "a/no_extension", "loose.png", "z/.png")
    (tmp_path / "a/text.jpg").write_text("listed although it is no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "Z/inner").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "Z/file.png").symlink_to(tmp_path / "b/2.png")
    expected = keras_files(tmp_path, monkeypatch)
    assert "linked/a/1.png" in expected
    assert folder.keras_listing(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["birds6", "flowers5", "messy"])
def test_keras_listing_of_real_data(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = keras_files(shared_data / name, monkeypatch)
    assert folder.keras_listing(shared_data / name) == expected
