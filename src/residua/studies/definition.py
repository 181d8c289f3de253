"""A YAML file -> a study that trains: its rows, what is compared, published results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from residua.config import plain_yaml
from residua.config.parse import current_name, shown, with_settings
from residua.config.recipes import read_recipe
from residua.config.schema import AUTO, Config
from residua.errors import ResiduaError
from residua.report.page import Cell, Page, Table
from residua.studies.claims import cardinality
from residua.system.files import user_path

PAPER = "paper"  # key of the settings that --paper uses
SECTIONS: dict[str, Callable[[], Page]] = {"cardinality": cardinality.study}


@dataclass(frozen=True)
class Row:
    """A network and its training. settings: dotted name -> value, on top of the study's."""

    name: str
    description: str
    settings: Mapping[str, object] = field(default_factory=dict)
    recipe: str | None = None


@dataclass(frozen=True)
class Degradation:
    """Rows of increasing depth, without and with shortcuts, trained with the same settings."""

    name: str
    plain: tuple[Row, ...]
    residual: tuple[Row, ...]


@dataclass(frozen=True)
class Definition:
    """A study that trains rows and compares them.

    recipe: of rows without their own. settings: of all rows, overridden by those of a row.
    families: groups of row names that are compared with one another. sections: name of a computed
    study whose findings and sections the page includes. published: results, with their source
    as the note. time_to_accuracy: whether to compare the time that rows take to the lowest final
    accuracy of all rows.
    """

    name: str
    title: str
    claim: str
    source: str
    rows: tuple[Row, ...]
    recipe: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    degradation: tuple[Degradation, ...] = ()
    published: tuple[Table, ...] = ()
    sections: str = ""
    time_to_accuracy: bool = False

    def config(self, row: Row, settings: Mapping[str, object], where: str = "") -> Config:
        """The settings of a row: defaults, its recipe, the study's, the row's, then `settings`.

        where: prefix of the message about a refused setting. Raises ResiduaError.
        """
        recipe = row.recipe or self.recipe
        base = Config() if recipe is None else read_recipe(recipe)
        where = f"{where or f'study {self.name}'}, row {row.name}: "
        return with_settings(base, {**self.settings, **row.settings, **settings}, where)


KEYS = {item.name for item in dataclasses.fields(Definition)} - {"name"} | {PAPER}


def shipped() -> list[str]:
    """Names of the YAML files that come with the package."""
    folder = resources.files("residua") / "studies"
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def read(name: str, *, paper: bool = False) -> Definition:
    """A study of the package by name, or that of a YAML file. Raises ResiduaError.

    paper: apply the file's `paper` section, the settings of the paper.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        path = user_path(name)
        return _parsed(path.stem, path, str(path), paper)
    with resources.as_file(resources.files("residua") / "studies" / f"{name}.yaml") as path:
        return _parsed(name, path, f"study {name}", paper)


def _parsed(name: str, path: Path, where: str, paper: bool) -> Definition:
    try:
        content = plain_yaml.read(path)
    except (OSError, ValueError) as error:
        raise ResiduaError(f"{where}: cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ResiduaError(
            f"{where}: expected title, claim, source and rows, found {shown(content)}."
        )
    overlay = content.pop(PAPER, None) or {}
    if not isinstance(overlay, dict) or PAPER in overlay:
        raise ResiduaError(f"{where}: {PAPER} = {overlay!r}: expected keys of a study.")
    if paper and not overlay:
        raise ResiduaError(f"{where}: has no {PAPER!r} section, which --paper needs.")
    try:
        content, overlay = _with_current_names(content), _with_current_names(overlay)
        for key in (*content, *overlay):
            if key not in KEYS:
                known = ", ".join(sorted(KEYS))
                raise ResiduaError(f"{where}: {key!r} is unknown: expected {known}.")
        for key in ("title", "claim", "source"):
            if key not in content:
                raise ResiduaError(f"{where}: has no {key!r}.")
        if not {"rows", "degradation"} & content.keys():
            raise ResiduaError(f"{where}: has no 'rows' and no 'degradation'.")
        plain = _built(name, content, where)  # both are checked, whichever is requested
        merged = _built(name, _merged(content, overlay), where) if overlay else plain
        return merged if paper else plain
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise ResiduaError(f"{where}: is not a valid study: {error!r}.") from error


def _with_current_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """The file's keys by today's names; version 0.1.0 wrote `reach`, `ways` and `what`."""
    content = {{"reach": "time_to_accuracy"}.get(key, key): value for key, value in content.items()}
    grid = content.get("degradation")
    if isinstance(grid, dict):
        content["degradation"] = {{"ways": "variants"}.get(k, k): v for k, v in grid.items()}
    if isinstance(content.get("rows"), dict):
        content["rows"] = {
            name: {{"what": "description"}.get(key, key): value for key, value in row.items()}
            for name, row in content["rows"].items()
        }
    return content


def _built(name: str, content: Mapping[str, Any], where: str) -> Definition:
    content = dict(content)
    grid = content.pop("degradation", None)
    pairs = () if grid is None else tuple(_degradation(**grid))
    rows = [_row(*item) for item in content.pop("rows", {}).items()]
    study = Definition(
        name=name,
        rows=(*rows, *(row for pair in pairs for row in pair.plain + pair.residual)),
        settings=_settings(content.pop("settings", None) or {}),
        families=_families(content.pop("families", {})),
        degradation=pairs,
        published=tuple(
            _published(number, **table)
            for number, table in enumerate(content.pop("published", ()), start=1)
        ),
        **content,
    )
    _check(study, where)
    return study


def _settings(settings: Mapping[str, object]) -> dict[str, object]:
    return {current_name(name): value for name, value in settings.items()}


def _families(families: Mapping[str, list[object]]) -> dict[str, tuple[str, ...]]:
    for rows in families.values():
        if not isinstance(rows, list):
            raise TypeError(f"family {rows!r}: expected a list of rows")
    return {name: tuple(map(str, rows)) for name, rows in families.items()}


def _merged(content: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`content` overridden by `overlay`; mappings are merged key by key."""
    nested = {
        key: _merged(content[key], value)
        for key, value in overlay.items()
        if isinstance(value, dict) and isinstance(content.get(key), dict)
    }
    return {**content, **overlay, **nested}


def _published(
    number: int, title: str, source: str, columns: list[str], rows: list[list[Cell]]
) -> Table:
    return Table(f"published-{number}", title, columns, rows, 2, source)


def _row(name: str, content: Mapping[str, Any]) -> Row:
    settings = {key: content[key] for key in content if key not in ("description", "recipe")}
    return Row(str(name), str(content["description"]), _settings(settings), content.get("recipe"))


def _degradation(
    network: str, depths: Sequence[int], variants: Mapping[str, Mapping[str, object]]
) -> Iterator[Degradation]:
    """For each variant of the training, rows of all depths without shortcuts and with them."""
    if any(type(depth) is not int for depth in depths) or list(depths) != sorted(set(depths)):
        raise ValueError(f"depths {depths!r}: expected whole numbers, each greater than the last")
    for variant, settings in variants.items():
        kinds = [
            tuple(
                Row(
                    f"{kind}{depth}-{variant.lower()}",
                    f"{kind}, {depth} layers, {variant}",
                    {"network.name": f"{network}{depth}", **shortcut, **_settings(settings)},
                )
                for depth in depths
            )
            for kind, shortcut in (("plain", {"network.shortcut": "none"}), ("residual", {}))
        ]
        yield Degradation(variant, *kinds)


def _check(study: Definition, where: str) -> None:
    """Raise ResiduaError if a text, a row, a comparison or a table is invalid."""
    for key in ("title", "claim", "source"):
        _check_text(getattr(study, key), f"{where}: {key}")
    for row in study.rows:
        if not row.name.replace("-", "").replace("_", "").isalnum():  # it names a folder
            raise ResiduaError(f"{where}: row {row.name!r}: expected letters, digits, - and _.")
        if study.config(row, {}, where).network.name == AUTO:
            raise ResiduaError(f"{where}: row {row.name} has no network: set network.name.")
    for names in ([row.name for row in study.rows], *study.families.values()):
        folded = [name.casefold() for name in names]
        if repeated := [name for name in folded if folded.count(name) > 1]:
            raise ResiduaError(f"{where}: {repeated[0]!r} is repeated: expected different rows.")
    compared = [*study.families.values(), *(pair.plain for pair in study.degradation)]
    if not compared or min(map(len, compared)) < 2:
        raise ResiduaError(f"{where}: families and degradation compare two rows or more.")
    rows = {row.name for row in study.rows}
    if missing := [name for names in study.families.values() for name in names if name not in rows]:
        raise ResiduaError(f"{where}: compares {missing[0]!r}, which is none of its rows.")
    for table in study.published:
        _check_table(table, f"{where}: published {table.title!r}: ")
    if study.sections not in ("", *SECTIONS):
        raise ResiduaError(
            f"{where}: sections = {study.sections!r}: expected one of {', '.join(SECTIONS)}."
        )


def _check_text(value: object, where: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ResiduaError(f"{where} = {value!r}: expected a text.")


def _check_table(table: Table, where: str) -> None:
    _check_text(table.title, f"{where}title")
    _check_text(table.note, f"{where}source")
    columns = table.columns
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise ResiduaError(f"{where}columns = {columns!r}: expected texts.")
    for cells in table.rows:
        valid = all(cell is None or isinstance(cell, str | int | float) for cell in cells)
        if len(cells) != len(columns) or not valid:
            raise ResiduaError(
                f"{where}{cells!r}: expected a text or number for each of {', '.join(columns)}."
            )
