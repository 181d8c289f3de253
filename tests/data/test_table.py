"""Tables in every format and encoding; damaged ones are refused with the row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residua.data.table import read_table
from residua.errors import ResiduaError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


PLAIN = "path,label\na.png,cat\nb.png,dog\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", PLAIN),
        ("t.CSV", PLAIN.replace("\n", "\r\n")),
        ("t.csv", b"\xef\xbb\xbf" + PLAIN.encode()),
        ("t.csv", PLAIN.encode("utf-16")),
        ("t.csv", PLAIN.replace(",", ";")),
        ("t.tsv", PLAIN.replace(",", "\t")),
        ("t.csv", 'path,label\n"a.png","cat"\n\n"b.png",dog'),
        ("t.jsonl", '{"path": "a.png", "label": "cat"}\n\n{"label": "dog", "path": "b.png"}'),
        ("t.ndjson", '\ufeff{"path":"a.png","label":"cat"}\r\n{"path":"b.png","label":"dog"}'),
    ],
)
def test_formats_give_the_same_columns(tmp_path: Path, name: str, content: str | bytes) -> None:
    table = read_table(write(tmp_path, name, content))
    assert dict(table.columns) == {"path": ["a.png", "b.png"], "label": ["cat", "dog"]}


def test_rows_have_the_numbers_of_a_spreadsheet(tmp_path: Path) -> None:
    text = 'path,label\n"two\nlines",a\n\nx,b\n'
    table = read_table(write(tmp_path, "t.csv", text))
    assert table.columns["path"] == ["two\nlines", "x"]
    assert table.numbers == [2, 4]


def test_json_lines_may_lack_keys(tmp_path: Path) -> None:
    text = '{"path": "a"}\n{"path": "b", "label": 1}\n{"label": null}'
    table = read_table(write(tmp_path, "t.jsonl", text))
    assert dict(table.columns) == {"path": ["a", "b", None], "label": [None, 1, None]}


def test_parquet_with_categories_and_class_names(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = arrow.table(
        {
            "path": ["a", "b", "c"],
            "label": [1, 0, -1],
            "kind": arrow.array(["x", "y", None]).dictionary_encode(),
            "box": [[1, 2], [3], []],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    arrow.parquet.write_table(table, tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")
    assert read.columns["label"] == ["dog", "cat", None]
    assert read.columns["kind"] == ["x", "y", None]
    assert (list(read.numbers), read.others) == ([1, 2, 3], ("box",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "has no rows"),
        ("t.csv", "path,label\n\n", "has no rows"),
        ("t.csv", "path,label\na,b\n\nc\n", "row 4: has 1 cells, the header 2"),
        ("t.csv", "path,label\na,b,c\n", "row 2: has 3 cells"),
        ("t.csv", 'path,label\na,b\n"c,d\n', "row 3: cannot be read: unexpected end of data"),
        ("t.csv", "path,path\na,b\n", "two columns named 'path'"),
        ("t.csv", b"path,label\na,caf\xe9\n", "row 2: is not UTF-8"),
        ("t.csv", b"path,label\na\0,b\n", "row 2: contains a null character"),
        ("t.csv", "path,label\na," + "x" * 200_000 + "\n", "row 2: cannot be read: field larger"),
        ("t.csv", b"\xff\xfea", "is not UTF-8"),
        ("t.jsonl", '{"a": 1}\n[1]\n', "row 2: expected an object"),
        ("t.jsonl", '{"a": 1}\n{"a": \n', "row 2: is not JSON"),
        ("t.jsonl", "[" * 100_000, "row 1: is not JSON: is nested too deeply"),
        ("t.jsonl", '{"a": ' + "9" * 5000 + "}", "row 1: is not JSON"),
        ("t.parquet", "path,label\na,b", "is not a readable Parquet file"),
    ],
)
def test_damage_is_refused_with_the_row(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ResiduaError) as caught:
        read_table(write(tmp_path, name, content))
    assert message in str(caught.value)
    assert name in str(caught.value)
