"""A table file (CSV, TSV, JSON lines, Parquet) -> its columns, and the number of every row."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residua.errors import ResiduaError
from residua.system.files import reason_of

TEXT, LINES, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".parquet",)
SUFFIXES = (*TEXT, *LINES, *PARQUET)
MAX_BYTES, MAX_ROWS = 2**30, 20_000_000
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Table:
    """A table by columns.

    columns: name -> cells, as the file stores them; "" or None is an empty cell. numbers: of the
    rows: as a spreadsheet shows them (the header is row 1), of JSON lines the lines, of Parquet
    from 1. others: names of columns whose cells are neither text nor numbers.
    """

    file: Path
    columns: dict[str, Sequence[object]]
    numbers: Sequence[int]
    others: tuple[str, ...] = ()


def text_of(cell: object) -> str | None:
    """A cell as text: "" if it is empty, None if it is neither text nor a number."""
    if isinstance(cell, str):
        return cell.strip()
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell) if isinstance(cell, int | float) else None


def is_table(path: Path) -> bool:
    """Whether a file has the suffix of a table."""
    return path.suffix.lower() in SUFFIXES


def read_table(file: Path) -> Table:
    """Read a table. Raises ResiduaError that names the row, where there is one."""
    suffix = file.suffix.lower()
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ResiduaError(f"{file}: has {size:,} bytes: expected at most {MAX_BYTES:,}.")
        table = _parquet(file) if suffix in PARQUET else _text_table(file, suffix)
    except OSError as error:
        raise ResiduaError(f"{file}: cannot be read: {reason_of(error)}.") from error
    if not table.numbers:
        raise ResiduaError(f"{file}: has no rows: expected one for each image.")
    return table


def import_pyarrow(otherwise: str) -> Any:
    """The package pyarrow, which reads and writes .parquet files. Raises ResiduaError if it is
    missing; otherwise: what to do without it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ResiduaError(
            f"a .parquet file needs pyarrow: pip install pyarrow, or {otherwise}."
        ) from error
    return pyarrow


def _text_table(file: Path, suffix: str) -> Table:
    text = _decoded(file, file.read_bytes())
    if (at := text.find("\0")) >= 0:
        row = text.count("\n", 0, at) + 1
        raise ResiduaError(
            f"{file}, row {row}: contains a null character, so it is damaged or no text: save the "
            "table again as UTF-8."
        )
    return _json_lines(file, text) if suffix in LINES else _separated(file, text)


def _decoded(file: Path, content: bytes) -> str:
    """UTF-8, or UTF-16 with its mark, as Excel saves "Unicode text"."""
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise ResiduaError(
            f"{file}, row {row}: is not UTF-8: in Excel, save it as 'CSV UTF-8'; elsewhere, "
            "convert it to UTF-8."
        ) from error


def _separated(file: Path, text: str) -> Table:
    """CSV with commas, semicolons or tabs, whichever the header has most of."""
    header_line = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    cells: list[list[str]] = []
    numbers: list[int] = []
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = _header(file, row)
                cells = [[] for _ in header]
                continue
            if len(row) != len(header):
                raise ResiduaError(
                    f"{file}, row {number}: has {len(row)} cells, the header {len(header)}: a cell "
                    "that contains the separator needs quotes."
                )
            numbers.append(number)
            for column, cell in zip(cells, row, strict=True):
                column.append(cell)
    except csv.Error as error:
        raise ResiduaError(f"{file}, row {number + 1}: cannot be read: {error}.") from error
    return Table(file, dict(zip(header or (), cells, strict=True)), numbers)


def _header(file: Path, row: Sequence[str]) -> list[str]:
    """Names of columns; the index that pandas writes without a name is a column named ""."""
    names = [name.strip() for name in row]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ResiduaError(f"{file}: has two columns named {twice[0]!r}: rename one.")
    return names


def _json_lines(file: Path, text: str) -> Table:
    """An object in each line; a key that a line lacks is an empty cell."""
    columns: dict[str, list[object]] = {}
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ResiduaError(f"{file}, row {number}: is not JSON: {problem}.") from error
        if not isinstance(row, dict):
            raise ResiduaError(
                f'{file}, row {number}: expected an object such as {{"path": "1.jpg", "label": '
                f'"cat"}}, found {line.strip()[:40]}.'
            )
        for name in row.keys() - columns.keys():
            columns[name] = [None] * len(numbers)
        numbers.append(number)
        for name, column in columns.items():
            column.append(row.get(name))
    return Table(file, dict(sorted(columns.items())), numbers)


def _parquet(file: Path) -> Table:
    """The columns of text, numbers and categories; class names that Hugging Face stores apart."""
    arrow = import_pyarrow("save the table as CSV")
    kinds = arrow.types
    plain = kinds.is_primitive, kinds.is_null, kinds.is_string, kinds.is_large_string
    try:
        with arrow.parquet.ParquetFile(file) as stored:
            count = stored.metadata.num_rows
            if count > MAX_ROWS:
                raise ResiduaError(f"{file}: has {count:,} rows: expected at most {MAX_ROWS:,}.")
            schema = stored.schema_arrow
            usable: list[str] = []
            others: list[str] = []
            for field in schema:
                kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
                is_plain = any(check(kind) for check in plain)
                (usable if is_plain else others).append(field.name)
            columns = stored.read(columns=usable).to_pydict()
            names = _hugging_face_names(schema.metadata or {})
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = (str(error).splitlines() or ["too large"])[0]
        raise ResiduaError(f"{file}: is not a readable Parquet file: {reason}.") from error
    for name in names.keys() & columns.keys():
        columns[name] = [_named(names[name], cell) for cell in columns[name]]
    return Table(file, columns, range(1, count + 1), tuple(others))


def _hugging_face_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> class names, from the metadata that `datasets` writes; {} without any."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _named(names: Sequence[str], cell: object) -> object:
    """The class name of a number; -1 is how Hugging Face writes an unknown label."""
    if not isinstance(cell, int) or cell >= len(names):
        return cell
    return names[cell] if cell >= 0 else None
