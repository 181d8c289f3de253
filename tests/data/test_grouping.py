"""Groups by folder, by expression and by a column."""

from __future__ import annotations

from pathlib import Path

import pytest

from residua.data.dataset import Entry
from residua.data.grouping import group_names
from residua.errors import ResiduaError

ENTRIES = [
    Entry(path, 0, None)
    for path in ("cat/p1_a.png", "cat/p1_b.png", "dog/p2_a.png", "dog/other.png")
]


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("", ["", "", "", ""]),
        ("folder", ["cat", "cat", "dog", "dog"]),
        (r"p(\d+)_", ["1", "1", "2", ""]),
        (r"p\d+", ["p1", "p1", "p2", ""]),
    ],
)
def test_groups_are_read_from_paths(group_by: str, expected: list[str]) -> None:
    assert group_names(group_by, ENTRIES) == expected


def test_groups_are_read_from_a_column_of_a_table(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("path,patient\ncat/p1_a.png,ann\ndog/p2_a.png,ann\n")
    assert group_names(f"{file}:patient", ENTRIES) == ["ann", "", "ann", ""]
    with pytest.raises(ResiduaError, match="no column 'age': its columns are path, patient"):
        group_names(f"{file}:age", ENTRIES)


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ("(", "Expected folder"),
        ("zebra", "matches none of 4 paths"),
        ("no.csv:a", "cannot be read"),
    ],
)
def test_what_cannot_group_is_refused(group_by: str, message: str) -> None:
    with pytest.raises(ResiduaError, match=message):
        group_names(group_by, ENTRIES)
