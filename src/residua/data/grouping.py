"""The setting `group_by` and entries -> the name of each image's group; groups stay in one split.

For what no comparison of pixels sees: images of the same patient, animal, burst or video.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from residua.data.dataset import Entry
from residua.data.near_duplicates import equal_pairs, groups_of
from residua.data.neighbours import Pairs
from residua.data.table import read_table, text_of
from residua.errors import ResiduaError, UsageError

FOLDER = "folder"
_TABLE = re.compile(r"(?P<file>.+\.csv):(?P<column>[^:]+)", re.IGNORECASE)
_FORMS = (
    "Expected folder, a column of the table that DATA is, a regular expression on paths, or "
    "FILE.csv:COLUMN."
)


def group_names(group_by: str, entries: Sequence[Entry]) -> list[str]:
    """The group of each image; "" for an image without one.

    Groups that the data set defines, as a table may, come first: `group_by` is then a column of it.
    group_by: "": no groups. "folder": the folder of the file. FILE.csv:COLUMN: that column of a
    CSV file with a column `path`. Anything else: a regular expression; an image belongs to the
    group of its first match in the path: the text of its first parenthesis, or all of it.
    Raises ResiduaError if the file or expression cannot be used, or matches no path at all.
    """
    if any(entry.group for entry in entries) or not group_by:
        return [entry.group for entry in entries]
    paths = [entry.path for entry in entries]
    if group_by == FOLDER:
        return [path.rpartition("/")[0] for path in paths]
    if table := _TABLE.fullmatch(group_by):
        column = _column(Path(table["file"]).expanduser(), table["column"])
        names = [column.get(path) or "" for path in paths]
    else:
        try:
            pattern = re.compile(group_by)
        except re.error as error:
            raise UsageError(f"--group-by {group_by}: {error}. {_FORMS}") from error
        matches = [pattern.search(path) for path in paths]
        part = min(pattern.groups, 1)
        names = [(match[part] or "") if match else "" for match in matches]
    if paths and not any(names):
        raise ResiduaError(
            f"--group-by {group_by}: matches none of {len(paths):,} paths, such as {paths[0]}. "
            f"{_FORMS}"
        )
    return names


def split_groups(
    group_by: str, entries: Sequence[Entry], contents: Sequence[str], near: Pairs
) -> list[str]:
    """A key per image, equal for images that must share a split. Raises ResiduaError.

    contents: a key per image, equal for equal pixels. near: pairs of near-duplicates, int64 [P, 2].
    """
    names = group_names(group_by, entries)
    named = equal_pairs([name or f"\0{at}" for at, name in enumerate(names)])
    pairs = np.concatenate([equal_pairs(contents), named, near])
    return [str(group) for group in groups_of(len(entries), pairs)]


def _column(file: Path, column: str) -> dict[str | None, str | None]:
    """Path -> value of a column. Raises ResiduaError."""
    table = read_table(file)
    for name in ("path", column):
        if name not in table.columns:
            raise ResiduaError(
                f"--group-by {file}:{column}: has no column {name!r}: its columns are "
                f"{', '.join(table.columns)}."
            )
    cells = zip(table.columns["path"], table.columns[column], strict=True)
    return {text_of(path): text_of(value) for path, value in cells}
