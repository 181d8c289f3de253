"""Tables become data sets: which columns, files, classes, splits, groups; rows that are refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from residua.config.schema import Data
from residua.data.dataset import Dataset
from residua.data.listing import listed_files
from residua.data.open import open_dataset
from residua.errors import ResiduaError


def put(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (number, 1, 2)).save(file, "PNG")


def found(folder: Path, rows: Sequence[str], **columns: str) -> Dataset:
    file = folder / "birds.csv"
    file.write_text("\n".join(rows))
    return open_dataset(str(file), settings=Data(**columns))


def labels(dataset: Dataset) -> dict[str, str]:
    return {entry.path: dataset.classes[entry.label] for entry in dataset.entries}


def refusal(folder: Path, rows: Sequence[str], **columns: str) -> str:
    with pytest.raises(ResiduaError) as caught:
        found(folder, rows, **columns)
    assert "birds.csv" in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, "a.png", "b.png", "images/c.png", "images/d.png")
    return tmp_path


AB = {"a.png": "cat", "b.png": "dog"}


@pytest.mark.parametrize(
    "header",
    [
        "path,label",
        "file_name,label",
        "Filename,Class",
        "image,target",
        "id,breed",  # the only other column is the label
        "Image Path,class-name",
    ],
)
def test_known_names_of_columns(folder: Path, header: str) -> None:
    assert labels(found(folder, [header, "a.png,cat", "b.png,dog"])) == AB


def test_other_columns_do_not_matter(folder: Path) -> None:
    rows = [",id,file_name,label,width", "0,17,a.png,cat,4", "1,18,b.png,dog,4"]
    assert labels(found(folder, rows)) == AB


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,label,class", "label and class may both be the label of an image"),
        ("path,file,label", "path and file may both be the path of an image"),
        ("path,width,height", "no column is clearly the label of an image"),
        ("name,label,x", "no column is clearly the path of an image"),
        ("Image,Id,x", "Image and Id may both be the path"),
    ],
)
def test_unclear_columns_are_listed_and_can_be_chosen(
    folder: Path, header: str, message: str
) -> None:
    rows = [header, "a.png,cat,cat", "b.png,dog,dog"]
    text = refusal(folder, rows)
    assert message in text
    assert "--set data." in text
    assert f"Its columns are {header.replace(',', ', ')}" in text
    first, second, _ = header.split(",")
    assert labels(found(folder, rows, path_column=first, label_column=second)) == AB
    assert f"has no column 'x2' (data.label_column): its columns are {first}" in refusal(
        folder, rows, path_column=first, label_column="x2"
    )


def test_a_table_without_names_of_columns_is_recognised(folder: Path) -> None:
    text = refusal(folder, ["a.png,cat", "b.png,dog"])
    assert "Its first line seems to list an image: add a line with the column names" in text


def test_a_folder_of_a_table_and_its_images_leads_to_the_table(folder: Path) -> None:
    (folder / "images/c.png").rename(folder / "c.png")
    (folder / "images/d.png").rename(folder / "d.png")
    (folder / "birds.csv").touch()
    with pytest.raises(ResiduaError, match=r"give .*/birds\.csv as the data"):
        open_dataset(str(folder))


def test_one_column_cannot_be_both(folder: Path) -> None:
    rows = ["path,label", "a.png,x"]
    assert "cannot be both path and label" in refusal(
        folder, rows, path_column="path", label_column="path"
    )


def test_columns_of_what_is_no_table(folder: Path) -> None:
    with pytest.raises(ResiduaError, match=r"data\.label_column has no effect"):
        open_dataset(str(folder), settings=Data(label_column="breed"))


def test_files_are_found_where_tables_mean_them(folder: Path) -> None:
    """Kaggle's ids, absolute paths, paths that leave the folder, Windows' separators."""
    put(folder, "sub/train/9f.jpg", "other/e.png")
    absolute, elsewhere = folder / "sub/train/9f.jpg", folder / "other/e.png"
    rows = ["id,label", "9f,x", f"{elsewhere},y", "../a.png,z", r"train\9f.jpg,x", f"{absolute},x"]
    dataset = found(folder / "sub", rows)
    assert labels(dataset) == {"train/9f.jpg": "x", str(elsewhere): "y", "../a.png": "z"}
    assert "2 rows repeat an earlier row exactly." in dataset.warnings
    for index, entry in enumerate(dataset.entries):
        assert dataset.content(index) == (folder / "sub" / entry.path).read_bytes()


def test_a_path_in_another_unicode_form(folder: Path) -> None:
    """macOS writes accents as separate characters."""
    put(folder, "\u00fc.png")
    assert labels(found(folder, ["path,label", "u\u0308.png,x"])) == {"\u00fc.png": "x"}


def test_rows_without_a_usable_file_or_label_are_listed(folder: Path) -> None:
    put(folder, "one/k.png", "two/k.jpg", "bad")
    (folder / "bad").write_text("text")
    (folder / "nul\udcff.png").touch()
    rows = ["path,label", "a.png,cat", "no.png,cat", "k,cat", "bad,dog", "b.png,", ",dog"]
    rows += ["one,cat", "https://example.org/a.png,cat", "x" * 5000 + ",cat", "images/c.png,dog"]
    dataset = found(folder, rows)
    assert labels(dataset) == {"a.png": "cat", "images/c.png": "dog"}
    reasons = dict(dataset.rejected)
    assert reasons.pop("x" * 200).startswith("row 10: ")
    assert reasons == {
        "no.png": "row 3: there is no such file",
        "k": "row 4: may be one/k.png or two/k.jpg",
        "bad": "row 5: is not an image: starts with 'text'",
        "b.png": "row 6: has no label in the column 'label'",
        "row 7": "row 7: has no path",
        "one": "row 8: is a folder, not an image",
        "https://example.org/a.png": "row 9: is an address: download the image, and list the file",
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["path,label", "a.png,x", "./a.png,y"],
            "row 3: a.png has the label 'y', but 'x'",
        ),
        (
            ["path,label,split", "a.png,x,train", "a.png,x,test"],
            "row 3: a.png has the split 'test', but 'train' in row 2",
        ),
        (["path,label,split", "a.png,x,fold1"], "row 2: the split 'fold1' is unknown"),
        (["path,label,split", "a.png,x,test", "b.png,y,val"], "no row has the split 'train'"),
        (
            ["path,label,split", "a.png,x,train", "b.png,y,test"],
            "The test set has the class 'y', which the training set lacks",
        ),
        (["path,label", "no.png,x"], "paths relative to the table's folder in the column 'path'"),
        (["path,label", f"a.png,{'x' * 201}"], "row 2: the label has 201 characters"),
        (["path,label", 'a.png,"x\ny"'], "row 2: the label 'x\\ny' contains a line break"),
        (["path,label", "a.png,0.25", "b.png,1.0"], "holds measurements such as 0.25"),
    ],
)
def test_contradictions_are_errors(folder: Path, rows: list[str], message: str) -> None:
    assert message in refusal(folder, rows)


def test_a_class_that_may_be_a_missing_label_is_warned_of(folder: Path) -> None:
    warnings = found(folder, ["path,label", "a.png,cat", "b.png,NaN", "images/c.png,dog"]).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith("'NaN' is a class: if it marks images without a label")
    assert not found(folder, ["path,label", "a.png,cat", "b.png,", "images/c.png,na"]).warnings


def test_labels_that_are_lists_are_refused(folder: Path) -> None:
    file = folder / "t.jsonl"
    file.write_text('{"path": "a.png", "label": ["x", "y"]}')
    with pytest.raises(ResiduaError, match=r"row 1: the label in the column .* of type list"):
        open_dataset(str(file))


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (("10", "9", "1", "2"), ("1", "2", "9", "10")),
        (("1.0", "0.0", "", "10.0"), ("0", "1", "10")),
        (("1.0", "0", "1", "0.0"), ("0", "1")),
        (("b", "a", "10", "9"), ("10", "9", "a", "b")),
        (("-1", "+1", "01", "1"), ("-1", "+1", "01", "1")),
        (("True", "False", "True", "False"), ("False", "True")),
    ],
)
def test_numbers_are_classes_in_numeric_order(
    folder: Path, cells: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    paths = ("a.png", "b.png", "images/c.png", "images/d.png")
    rows = [f"{path},{cell}" for path, cell in zip(paths, cells, strict=True)]
    assert found(folder, ["path,label", *rows]).classes == classes


def test_splits_and_groups_are_read_from_a_table(folder: Path) -> None:
    rows = ["path,label,split,group", "a.png,x,train,ann", "b.png,x,Val,bob", "images/c.png,x,,"]
    dataset = found(folder, rows)
    assert [(e.split, e.group) for e in dataset.entries] == [
        ("train", "ann"),
        ("validation", "bob"),
        ("train", ""),
    ]
    assert "Rows without a split are in the training set." in dataset.warnings
    assert "split into train, validation, grouped by 'group'" in dataset.description


def test_images_to_predict_need_one_column_of_paths(tmp_path: Path) -> None:
    """The message advises nothing that `predict` does not have."""
    for header in ("a,b", "path,file"):
        table = tmp_path / "new.csv"
        table.write_text(f"{header}\nx,y\n")
        with pytest.raises(ResiduaError, match="expected one column named path") as caught:
            listed_files(table)
        assert f"Its columns are {header.replace(',', ', ')}." in str(caught.value)
        assert "--set" not in str(caught.value)


def test_group_by_a_column_of_the_table(folder: Path) -> None:
    rows = ["path,label,patient", "a.png,x,7", "b.png,y,8"]
    for group_by, groups in (("patient", ["7", "8"]), (r"(\w)\.png", ["", ""])):
        entries = found(folder, rows, group_by=group_by, label_column="label").entries
        assert [entry.group for entry in entries] == groups


def test_weights_of_images_in_training(folder: Path) -> None:
    for name, chosen in (("weight", ""), ("Sample Weight", ""), ("trust", "trust")):
        rows = [f"path,label,{name}", "b.png,x,2", "a.png,y,.5"]
        dataset = found(folder, rows, label_column="label", weight_column=chosen)
        assert [entry.weight for entry in dataset.entries] == [0.5, 2.0]
        assert f"weighted by {name!r}" in dataset.description
        assert dataset.columns == {}
    labelled = found(folder, ["path,weight", "a.png,light", "b.png,heavy"], label_column="weight")
    assert {entry.weight for entry in labelled.entries} == {1.0}


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1e300", "1e-300", "heavy", ""])
def test_a_weight_that_cannot_be_used_names_its_row(folder: Path, weight: str) -> None:
    rows = ["path,label,weight", "a.png,x,1", f"b.png,y,{weight}"]
    with pytest.raises(ResiduaError, match=r"row 3: the weight .* rename the column"):
        found(folder, rows)


def test_an_image_has_one_weight(folder: Path) -> None:
    rows = ["path,label,weight", "a.png,x,1", "b.png,y,1", "a.png,x,2"]
    with pytest.raises(ResiduaError, match=r"has the weight 2\.0, but 1\.0 in row 2"):
        found(folder, rows)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_table_without_permission(folder: Path) -> None:
    file = folder / "t.csv"
    file.touch(0)
    with pytest.raises(ResiduaError, match="cannot be read"):
        open_dataset(str(file))
