"""Columns of a table that describe images become properties; ids, paths and labels do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from residua.data.open import open_dataset

ROWS = 40
COLUMNS: dict[str, list[object]] = {
    "path": [f"{number:02}.png" for number in reversed(range(ROWS))],
    "label": ["cat", "dog"] * (ROWS // 2),
    "group": [str(number // 2) for number in range(ROWS)],
    "site": ["north", "south", "", "north"] * (ROWS // 4),
    "severity": [1, 2, 3, 4] * (ROWS // 4),
    "age": [20 + number * 7 % 31 for number in range(ROWS)],
    "exposure": [None, *(number / 8 for number in range(1, ROWS))],
    "is_night": [True, False] * (ROWS // 2),
    "row": list(range(ROWS)),
    "patient_id": [100 + number % 25 for number in range(ROWS)],
    "comment": [f"the image number {number}" for number in range(ROWS)],
    "licence": ["CC0"] * ROWS,
}


def write(folder: Path, suffix: str) -> str:
    file = folder / f"birds{suffix}"
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    if suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.table(COLUMNS), file)
    elif suffix == ".jsonl":
        listed = [{**row, "boxes": [1, 2, 3]} for row in rows]
        file.write_text("\n".join(map(json.dumps, listed)))
    else:
        separator = "\t" if suffix == ".tsv" else ","
        cells = [["" if cell is None else str(cell) for cell in row.values()] for row in rows]
        file.write_text("\n".join(map(separator.join, [list(COLUMNS), *cells])))
    return str(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    for name in COLUMNS["path"]:
        Image.new("RGB", (4, 3)).save(folder / str(name))
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_properties_are_the_same_in_every_form_of_a_table(folder: Path, suffix: str) -> None:
    dataset = open_dataset(write(folder, suffix))
    found = dataset.columns
    assert set(found) == {"site", "severity", "age", "exposure", "is_night"}
    # Entries are sorted by path: the last row is the first.
    assert list(found["site"][:4]) == ["north", "", "south", "north"]
    assert list(found["severity"][:4]) == ["4", "3", "2", "1"]  # few: categories
    assert [str(text).lower() for text in found["is_night"][:2]] == ["false", "true"]
    age, exposure = found["age"], found["exposure"]
    assert isinstance(age, np.ndarray)
    assert age.tolist() == list(reversed(COLUMNS["age"]))
    assert isinstance(exposure, np.ndarray)
    assert exposure[0] == (ROWS - 1) / 8
    assert np.isnan(exposure[-1])


def test_a_selection_has_the_values_of_its_entries(folder: Path) -> None:
    dataset = open_dataset(write(folder, ".csv"))
    some = dataset.selected([5, 2])
    for name, values in dataset.columns.items():
        assert list(some.columns[name]) == [values[5], values[2]]


def test_rows_that_are_left_out_do_not_shift_values(folder: Path) -> None:
    file = folder / "some.csv"
    rows = ["path,label,site", "gone.png,cat,A", "01.png,cat,B", "01.png,cat,B", "00.png,dog,C"]
    file.write_text("\n".join(rows))
    dataset = open_dataset(str(file))
    assert [entry.path for entry in dataset.entries] == ["00.png", "01.png"]
    assert dataset.columns == {"site": ["C", "B"]}


def test_numbers_with_leading_zeros_are_names(folder: Path) -> None:
    file = folder / "codes.csv"
    codes = [f"{number % 30:03}" for number in range(ROWS)]
    rows = [f"{number:02}.png,cat,{code}" for number, code in enumerate(codes)]
    file.write_text("\n".join(["path,label,clinic", *rows]))
    assert open_dataset(str(file)).columns == {"clinic": codes}
