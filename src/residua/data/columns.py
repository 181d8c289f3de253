"""Names of the columns of a table -> the columns of path, label, split, group and weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from residua.config.schema import Data
from residua.data.recognition import is_claimed
from residua.errors import ResiduaError

# Names in lower case with "_" for spaces and "-". Those of a later list count without an earlier.
_FILES = "path file_name filename file file_path filepath image_path image_file image_name img_path"
_KNOWN: dict[str, tuple[list[str], ...]] = {
    "path": (_FILES.split(), ["image", "image_id", "img", "id"]),
    "label": (["label", "labels", "class", "class_name", "classname", "target", "category"],),
    "split": (["split", "subset", "partition"],),
    "group": (["group", "groups"],),
    "weight": (["weight", "weights", "sample_weight", "sample_weights"],),
}
WEIGHT_RANGE = 1e-9, 1e9  # beyond, a loss in float32 is not finite


@dataclass(frozen=True)
class Columns:
    """Columns of a table by their role; "" where there is none."""

    path: str
    label: str
    split: str
    group: str
    weight: str


def roles_of(names: Sequence[str], settings: Data, where: str) -> Columns:
    """The column of each role: that of the settings, or else that of a known name.

    data.group_by is a column if the table has it. Without a known name for the label, the only
    other column is the label: as in id,breed. Raises ResiduaError if a role is unclear or has no
    column.
    """
    path = path_column(names, where, settings.path_column)
    if settings.label_column == path:
        raise ResiduaError(f"{where}: the column {path!r} cannot be both path and label.")
    split = column_of("split", names, settings.split_column, where)
    group = column_of("group", names, settings.group_by, where)
    free = [name for name in names if name not in (path, settings.label_column)]
    weight = column_of("weight", free, settings.weight_column, where)
    others = [name for name in names if name not in ("", path)]
    label = column_of("label", others, settings.label_column, where, names)
    if not label:
        rest = [name for name in others if name not in (split, group, weight)]
        if len(rest) != 1:
            raise ResiduaError(_unclear("label", [], names, where))
        label = rest[0]
    return Columns(path, label, split, group, weight)


def weight_of(text: str, column: str, where: str) -> float:
    """A cell of the column of weights. where: of the cell. Raises ResiduaError."""
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    low, high = WEIGHT_RANGE
    if low <= weight <= high:
        return weight
    raise ResiduaError(
        f"{where}: the weight {text!r} in the column {column!r} is not a number from {low:g} to "
        f"{high:g}. Correct it, or rename the column if it is not a training weight."
    )


def path_column(names: Sequence[str], where: str, chosen: str = "") -> str:
    """The column of paths. Raises ResiduaError if it is unclear or missing."""
    path = column_of("path", names, chosen, where)
    if not path:
        raise ResiduaError(_unclear("path", [], names, where))
    return path


def column_of(
    role: str, names: Sequence[str], chosen: str, where: str, shown: Sequence[str] = ()
) -> str:
    """The column of a role, a field of Columns; "" if there is none.

    chosen: by the user, "" where the name decides. shown: all columns, for messages. Raises
    ResiduaError if a chosen column is missing, or several names fit.
    """
    if chosen:
        if chosen not in names:
            if role == "group":  # another form of data.group_by
                return ""
            raise ResiduaError(
                f"{where}: has no column {chosen!r} (data.{role}_column): its columns are "
                f"{shown_columns(shown or names)}."
            )
        return chosen
    for tier in _KNOWN[role]:
        matches = [name for name in names if plain_name(name) in tier]
        if len(matches) > 1:
            raise ResiduaError(_unclear(role, matches, shown or names, where))
        if matches:
            return matches[0]
    return ""


def shown_columns(names: Sequence[str]) -> str:
    """The columns of a table in a message: at most 20 of them."""
    named = [name for name in names if name]
    return ", ".join([*named[:20], "..."] if named[20:] else named) or "none"


def plain_name(name: str) -> str:
    """The name of a column as it is compared."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _unclear(role: str, candidates: Sequence[str], names: Sequence[str], where: str) -> str:
    columns = shown_columns(names)
    if role == "group":
        how = f"rename a column, or use --group-by {candidates[0] if candidates else 'COLUMN'}"
    else:
        example = candidates[0] if candidates else "COLUMN"
        how = f"choose one with --set data.{role}_column={example}"
    how += f", or name the column {role}"
    problem = f"{' and '.join(candidates)} may both be" if candidates else "no column is clearly"
    text = f"{where}: {problem} the {role} of an image: {how}. Its columns are {columns}."
    if any(is_claimed(Path(name)) for name in names):
        text += " Its first line seems to list an image: add a line with the column names above it."
    return text
