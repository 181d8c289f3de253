"""Copies under two labels, in two splits and in a class are separate findings; groups hold all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from references.scenes import COPIES, scene, write_scenes

from residua.audits.duplicates import Copies, check_duplicates, copies_by_group, find_copies
from residua.audits.finding import Finding
from residua.audits.images import AuditImages, read
from residua.config.schema import Data
from residua.data.near_duplicates import unique_pairs
from residua.system.console import Console


def audited(folder: Path, group_by: str = "") -> tuple[AuditImages, Copies, dict[str, Finding]]:
    images = read(Data(str(folder), group_by=group_by), 0, Console(quiet=True))
    copies = find_copies(images)
    return images, copies, {f.kind: f for f in check_duplicates(images, copies)}


def test_copies_are_reported_by_what_they_harm(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    scene(0).save(tmp_path / "class1" / "same.bmp")  # as class0/00.png, in another format
    COPIES["cropped"](scene(1001)).save(tmp_path / "class0" / "crop.png")
    COPIES["mirrored"](scene(2)).save(tmp_path / "class0" / "mirror.png")
    images, copies, found = audited(tmp_path)
    paths = {kind: {e.path for e in finding.examples} for kind, finding in found.items()}
    assert paths == {
        "identical-across-classes": {"class0/00.png", "class1/same.bmp"},
        "near-duplicates-across-classes": {"class1/01.png", "class0/crop.png"},
        "near-duplicates-within-class": {"class0/02.png", "class0/mirror.png"},
    }
    assert found["identical-across-classes"].severity == "error"
    assert "At least one label of each pair is wrong" in found["identical-across-classes"].action
    assert "if they show the same thing" in found["near-duplicates-across-classes"].action
    assert "--group-by" in found["near-duplicates-within-class"].action
    assert len(found["identical-across-classes"].fixes) == 2
    rows = {path: row for row, path in enumerate(images.paths)}
    group = copies.groups
    assert group[rows["class0/00.png"]] == group[rows["class1/same.bmp"]]
    assert len(np.unique(group)) == len(group) - 3


def test_an_image_is_counted_and_listed_once_however_many_copies_it_has(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    for number in range(3):
        scene(4).save(tmp_path / "class0" / f"same{number}.bmp")
    for kind in ("cropped", "brightened", "resized"):
        COPIES[kind](scene(1005)).save(tmp_path / "class1" / f"{kind}.png")
    for finding in audited(tmp_path)[2].values():
        paths = [example.path for example in finding.examples]
        assert len(paths) == len(set(paths)) == finding.count == 4
        assert finding.title.startswith("4 images with ")
        assert finding.examples[0].note == f"= {paths[1]} and 2 more"


def test_a_copy_is_named_with_one_of_the_other_class(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    for number, kind in enumerate(("cropped", "brightened", "resized")):
        COPIES[kind](scene(4)).save(tmp_path / f"class{number == 2:d}" / f"{kind}.png")
    finding = audited(tmp_path)[2]["near-duplicates-across-classes"]
    assert finding.examples[0].note.startswith("= class1/resized.png and ")
    assert finding.examples[1].path == "class1/resized.png"


def test_every_group_of_copies_is_listed_from_its_lowest_image() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 400, 1000)
    members = [rng.permutation(np.flatnonzero(drawn == group)) for group in range(400)]
    members = [rows for rows in members if len(rows) > 1]
    pairs = unique_pairs(np.concatenate([np.stack([rows[:-1], rows[1:]], 1) for rows in members]))
    expected = []
    for first, *rest in sorted(sorted(rows.tolist()) for rows in members):
        (second,) = next({*pair} - {first} for pair in pairs.tolist() if first in pair)
        expected.append([first, second, *(row for row in rest if row != second)])
    assert copies_by_group(1000, pairs) == expected


def test_copies_in_two_splits_are_errors_with_a_fix(tmp_path: Path) -> None:
    write_scenes(tmp_path / "train", count=6)
    for label in (0, 1):
        file = tmp_path / "test" / f"class{label}" / "0.png"
        file.parent.mkdir(parents=True)
        COPIES["brightened"](scene(1000 * label + 3)).save(file)
    _, _, found = audited(tmp_path)
    (finding,) = found.values()
    assert (finding.kind, finding.severity) == ("near-duplicates-across-splits", "error")
    assert {fix.path for fix in finding.fixes} == {"train/class0/03.png", "train/class1/03.png"}


def test_different_images_give_no_findings(tmp_path: Path) -> None:
    assert audited(write_scenes(tmp_path))[2] == {}


def test_groups_by_name_in_two_splits_are_found(tmp_path: Path) -> None:
    write_scenes(tmp_path / "train", count=4)
    for label in (0, 1):
        file = tmp_path / "test" / f"class{label}" / "03.png"
        file.parent.mkdir(parents=True)
        scene(500 + label).save(file)
    _, copies, found = audited(tmp_path, r"class\d/\d+")
    assert found["groups-across-splits"].count == 2
    assert len(np.unique(copies.groups)) == len(copies.groups) - 2
