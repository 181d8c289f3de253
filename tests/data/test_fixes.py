"""A fix list excludes and relabels exactly what it names, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from residua.data.fixes import Fix, joined_fixes, read_fixes, with_fixes, write_fixes
from residua.data.open import open_dataset
from residua.errors import ResiduaError


def test_images_are_excluded_and_relabelled(shapes: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(shapes))
    file = tmp_path / "fixes.csv"
    fixes = [Fix("class0/000.png", "exclude"), Fix("class1/003.png", "relabel", "class2", "looks")]
    write_fixes(file, fixes)
    assert read_fixes(file) == fixes
    fixed = with_fixes(dataset, fixes, file)
    assert len(fixed.entries) == len(dataset.entries) - 1
    labels = {entry.path: entry.label for entry in fixed.entries}
    assert "class0/000.png" not in labels
    assert labels["class1/003.png"] == 2
    assert labels["class1/004.png"] == 1
    index = [entry.path for entry in fixed.entries].index("class1/003.png")
    assert fixed.content(index) == (shapes / "class1/003.png").read_bytes()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("class0/000.png,delete,,", "line 2: action 'delete'"),
        ("class0/000.png,relabel,,", "line 2: action 'relabel', label ''"),
        ("class0/000.png,relabel,crow,", "'crow' is not a class"),
        ("class9/000.png,exclude,,", "class9/000.png is not in the data set"),
        ("class0/000.png,exclude,,\nclass0/000.png,relabel,class1,", "two different fixes"),
    ],
)
def test_a_wrong_line_is_named(row: str, message: str, shapes: Path, tmp_path: Path) -> None:
    file = tmp_path / "fixes.csv"
    file.write_text(f"path,action,label,reason\n{row}\n")
    with pytest.raises(ResiduaError, match=message):
        with_fixes(open_dataset(str(shapes)), read_fixes(file), file)


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ResiduaError, match="expected the columns path, action"):
        read_fixes(file)
    with pytest.raises(ResiduaError, match="cannot be read"):
        read_fixes(tmp_path / "missing.csv")


def test_fixes_that_a_run_obeyed_stay_in_the_list_of_the_next(tmp_path: Path) -> None:
    obeyed = [Fix("a/1.png", "exclude"), Fix("a/2.png", "relabel", "b")]
    write_fixes(tmp_path / "fixes.csv", obeyed)
    again, new = Fix("a/2.png", "relabel", "a"), Fix("b/1.png", "exclude")
    assert joined_fixes(str(tmp_path / "fixes.csv"), [again, new]) == [*obeyed, new]
    assert joined_fixes("", [new]) == [new]
