"""A fix list (CSV) and a data set -> the data set without excluded images, and with new labels.

Image files stay as they are.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from residua.data.dataset import Dataset
from residua.errors import ResiduaError
from residua.system.files import csv_text, reason_of, write_atomically

COLUMNS = ("path", "action", "label", "reason")


@dataclass(frozen=True)
class Fix:
    """A line of the list. path: relative to the data set. label: the new class of a relabel."""

    path: str
    action: Literal["exclude", "relabel"]
    label: str = ""
    reason: str = ""


def write_fixes(path: Path, fixes: Sequence[Fix]) -> None:
    """Write the list, which a user may edit. Raises ResiduaError."""
    write_atomically(path, csv_text(COLUMNS, [dataclasses.astuple(fix) for fix in fixes]))


def read_fixes(path: Path) -> list[Fix]:
    """The lines of a list. Raises ResiduaError that names the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
            columns = rows[0].keys() if rows else set()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResiduaError(f"{path}: cannot be read: {reason_of(error)}.") from error
    if rows and not {"path", "action"} <= columns:
        raise ResiduaError(f"{path}: expected the columns {', '.join(COLUMNS)}.")
    fixes = []
    for number, row in enumerate(rows, start=2):
        action, label = (row.get(name) or "" for name in ("action", "label"))
        if action not in ("exclude", "relabel") or (action == "relabel" and not label):
            raise ResiduaError(
                f"{path}, line {number}: action {action!r}, label {label!r}: expected exclude, or "
                "relabel with a label."
            )
        fixes.append(Fix(row["path"] or "", action, label, row.get("reason") or ""))  # type: ignore[arg-type]
    return fixes


def joined_fixes(earlier: str, proposed: Sequence[Fix]) -> list[Fix]:
    """The fix list `earlier` that a run obeyed, "" for none, and what is proposed beyond it."""
    fixes = read_fixes(Path(earlier)) if earlier else []
    known = {fix.path for fix in fixes}
    return [*fixes, *(fix for fix in proposed if fix.path not in known)]


def with_fixes(dataset: Dataset, fixes: Sequence[Fix], path: Path) -> Dataset:
    """The data set as a list changes it. path: of the list, for messages.

    Raises ResiduaError if a line names an image or a class that the data set does not have.
    """
    by_path: dict[str, Fix] = {}
    for fix in fixes:
        other = by_path.setdefault(fix.path, fix)
        if (other.action, other.label) != (fix.action, fix.label):
            raise ResiduaError(f"{path}: has two different fixes for {fix.path}: delete one.")
    known = {entry.path for entry in dataset.entries} | {name for name, _ in dataset.rejected}
    labels = {name: label for label, name in enumerate(dataset.classes)}
    for fix in by_path.values():
        if fix.path not in known:
            raise ResiduaError(
                f"{path}: {fix.path} is not in the data set {dataset.name}. Delete the line, or "
                "audit this data set again."
            )
        if fix.action == "relabel" and fix.label not in labels:
            raise ResiduaError(
                f"{path}: {fix.path}: {fix.label!r} is not a class. Expected one of "
                f"{', '.join(dataset.classes)}."
            )
    excluded = {name for name, fix in by_path.items() if fix.action == "exclude"}
    indices = [n for n, entry in enumerate(dataset.entries) if entry.path not in excluded]
    fixed = dataset.selected(indices)
    entries = [
        dataclasses.replace(entry, label=labels[by_path[entry.path].label])
        if entry.path in by_path
        else entry
        for entry in fixed.entries
    ]
    rejected = [row for row in dataset.rejected if row[0] not in excluded]
    return dataclasses.replace(fixed, entries=entries, rejected=rejected)
