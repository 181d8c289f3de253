"""Further columns of a table -> properties of its images, by which an evaluation is divided."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from residua.data.columns import plain_name
from residua.data.dataset import ColumnValues
from residua.data.table import text_of

FEW = 20  # different numbers are categories; more are quantities
MOST = 50  # columns
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")  # 007 is a name
_WHOLE = re.compile(r"[+-]?\d+")
_MISSING = {"", "na", "n/a", "nan", "null", "none"}
_ID = re.compile(r"|(.*_)?(id|uuid|index)|unnamed:_\d+")  # "": the index that pandas writes


def properties_in(
    columns: Mapping[str, Sequence[object]], rows: Sequence[int], roles: Collection[str]
) -> dict[str, ColumnValues]:
    """Name -> a value for each image, of at most MOST columns.

    columns: name -> cells of a table. rows: of the images, as positions in it. roles: columns that
    are no property, such as path and label. More than FEW different numbers are numbers, anything
    else is text. Omitted are columns of lists, of a single value, and of ids: numbers that are
    named so, and whole numbers or texts of which no two are equal.
    """
    properties: dict[str, ColumnValues] = {}
    for name, cells in columns.items():
        if name in roles or len(properties) == MOST:
            continue
        texts = [text for row in rows if (text := text_of(cells[row])) is not None]
        values = _values(name, texts) if len(texts) == len(rows) else None
        if values is not None:
            properties[name] = values
    return properties


def _values(name: str, texts: list[str]) -> ColumnValues | None:
    """The values as text or numbers; None for what describes no image."""
    known = [text for text in texts if text.casefold() not in _MISSING]
    distinct = set(known)
    if len(distinct) <= FEW:
        return texts if len(set(texts)) > 1 else None
    is_unique = len(distinct) == len(known)
    if not all(map(_NUMBER.fullmatch, distinct)):
        return None if is_unique else texts
    if _ID.fullmatch(plain_name(name)) or (is_unique and all(map(_WHOLE.fullmatch, distinct))):
        return None
    numbers = [np.nan if text.casefold() in _MISSING else float(text) for text in texts]
    return np.array(numbers, np.float64)
