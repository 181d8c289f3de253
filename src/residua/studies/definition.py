"""A YAML file -> a study that trains: its rows, what is compared, what others published."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from residua.config import parse as settings
from residua.config.recipes import read_recipe
from residua.config.schema import AUTO, Config
from residua.errors import ResiduaError
from residua.report.page import Cell

PAPER = "paper"  # the key of what --paper lays over a study
SECTIONS = ("cardinality",)  # closed studies that a trained one can show too


@dataclass(frozen=True)
class Row:
    """One network and the way it learns. settings: dotted names, on top of the study's own."""

    name: str
    what: str
    settings: Mapping[str, object] = field(default_factory=dict)
    recipe: str | None = None


@dataclass(frozen=True)
class Degradation:
    """Rows of growing depth, without and with shortcuts, that learn in the same way."""

    name: str
    plain: tuple[Row, ...]
    residual: tuple[Row, ...]


@dataclass(frozen=True)
class Published:
    """A table of others, beside ours. source: paper and table."""

    title: str
    source: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Definition:
    """What a study trains and asks.

    recipe: of rows that name none. settings: of all rows, before each row's own. families: names of
    rows that are compared with one another. sections: name of a closed study whose findings and
    sections stand on the page too. reach: whether to ask when each row's curve is as high as the
    lowest row ends.
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
    published: tuple[Published, ...] = ()
    sections: str = ""
    reach: bool = False

    def config(self, row: Row, given: Mapping[str, object], where: str = "") -> Config:
        """The settings of a row: defaults, its recipe, the study's, the row's, then `given`.

        where: begins the message of a refused setting. Raises ResiduaError.
        """
        recipe = row.recipe or self.recipe
        base = Config() if recipe is None else read_recipe(recipe)
        own = {**self.settings, **row.settings}
        where = f"{where or f'study {self.name}'}, row {row.name}: "
        return settings.with_settings(base, {**own, **given}, where)


KEYS = {each.name for each in dataclasses.fields(Definition)} - {"name"} | {PAPER}


def shipped() -> list[str]:
    """Names of the studies that come with the package and train."""
    folder = resources.files("residua") / "studies"
    return sorted(
        each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml")
    )


def read(name: str, *, paper: bool = False) -> Definition:
    """A study of the package by name, or that of a YAML file. Raises ResiduaError.

    paper: with what the file says under `paper` laid over the rest: the papers' own settings.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        path = Path(name).expanduser()
        return _parsed(path.stem, path, str(path), paper)
    with resources.as_file(resources.files("residua") / "studies" / f"{name}.yaml") as path:
        return _parsed(name, path, f"study {name}", paper)


def _parsed(name: str, path: Path, where: str, paper: bool) -> Definition:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no text, a 30th of Feb.
        raise ResiduaError(f"{where}: cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ResiduaError(f"{where}: expected title, claim, source and rows, found {content!r}.")
    over = content.pop(PAPER, None) or {}
    if not isinstance(over, dict) or PAPER in over:
        raise ResiduaError(f"{where}: {PAPER} = {over!r}: expected keys of the study.")
    if paper and not over:
        raise ResiduaError(f"{where}: has no {PAPER!r} that --paper could take.")
    for key in (*content, *over):
        if key not in KEYS:
            raise ResiduaError(f"{where}: {key!r} is unknown: expected {', '.join(sorted(KEYS))}.")
    for key in ("title", "claim", "source"):
        if key not in content:
            raise ResiduaError(f"{where}: has no {key!r}.")
    if not {"rows", "degradation"} & content.keys():
        raise ResiduaError(f"{where}: has no 'rows' and no 'degradation'.")
    try:
        plain = _built(name, content, where)
        laid = _built(name, _laid(over, content), where) if over else plain  # asked for or not
        return laid if paper else plain
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise ResiduaError(f"{where}: is not what a study looks like: {error!r}.") from error


def _built(name: str, content: Mapping[str, Any], where: str) -> Definition:
    content = dict(content)
    rows = tuple(_row(*item) for item in content.pop("rows", {}).items())
    grid = content.pop("degradation", None)
    pairs = () if grid is None else tuple(_pairs(**grid))
    found = Definition(
        name=name,
        rows=rows + tuple(row for each in pairs for row in each.plain + each.residual),
        settings=content.pop("settings", None) or {},
        families=_families(content.pop("families", {})),
        degradation=pairs,
        published=tuple(Published(**each) for each in content.pop("published", ())),
        **content,
    )
    _check(found, where)
    return found


def _families(content: Mapping[str, list[object]]) -> dict[str, tuple[str, ...]]:
    for rows in content.values():
        if not isinstance(rows, list):
            raise TypeError(f"family {rows!r}: expected a list of rows")
    return {name: tuple(map(str, rows)) for name, rows in content.items()}


def _laid(over: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """What `over` says, and the rest of `content`; mappings are mixed key by key."""
    both = {
        key: _laid(value, content[key])
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(content.get(key), dict)
    }
    return {**content, **over, **both}


def _row(name: str, content: Mapping[str, Any]) -> Row:
    rest = {key: value for key, value in content.items() if key not in ("what", "recipe")}
    return Row(str(name), str(content["what"]), rest, content.get("recipe"))


def _pairs(
    network: str, depths: Sequence[int], ways: Mapping[str, Mapping[str, object]]
) -> Iterator[Degradation]:
    """For each way of learning rows of all depths, without shortcuts and with the network's own."""
    if any(type(each) is not int for each in depths) or list(depths) != sorted(set(depths)):
        raise ValueError(f"depths {depths!r}: expected whole numbers, each greater than the last")
    for way, given in ways.items():
        kinds = [
            tuple(
                Row(
                    f"{kind}{depth}-{way.lower()}",
                    f"{kind}, {depth} layers, {way}",
                    {"network.name": f"{network}{depth}", **shortcut, **given},
                )
                for depth in depths
            )
            for kind, shortcut in (("plain", {"network.shortcut": "none"}), ("residual", {}))
        ]
        yield Degradation(way, *kinds)


def _check(found: Definition, where: str) -> None:
    """Raise ResiduaError if a row is refused, or something compares a row that is not there."""
    tables = [(f"published {each.title!r}", each) for each in found.published]
    for place, each in (("", found), *((f"{title}: ", table) for title, table in tables)):
        for key in ("title", "claim", "source"):
            said = getattr(each, key, "none asked")
            if not isinstance(said, str) or not said.strip():
                raise ResiduaError(f"{where}: {place}{key} = {said!r}: expected a text.")
    for title, table in tables:
        columns = table.columns
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise ResiduaError(f"{where}: {title}: columns = {columns!r}: expected texts.")
    for row in found.rows:
        if not row.name.replace("-", "").replace("_", "").isalnum():  # it names a folder
            raise ResiduaError(f"{where}: row {row.name!r}: expected letters, digits, - and _.")
        if found.config(row, {}, where).network.name == AUTO:
            raise ResiduaError(f"{where}: row {row.name} names no network: give it network.name.")
    names = {each.name for each in found.rows}
    folders = [each.name.casefold() for each in found.rows]
    groups = [folders, *([each.casefold() for each in rows] for rows in found.families.values())]
    for group in groups:
        if twice := [each for each in group if group.count(each) > 1]:
            raise ResiduaError(f"{where}: {twice[0]!r} stands twice: expected different rows.")
    for table in found.published:
        for cells in table.rows:
            if len(cells) != len(table.columns) or not all(
                cell is None or isinstance(cell, str | int | float) for cell in cells
            ):
                raise ResiduaError(
                    f"{where}: published {table.title!r}: {cells!r}: expected a text or number "
                    f"for each of {', '.join(map(str, table.columns))}."
                )
    compared = [*found.families.values(), *(each.plain for each in found.degradation)]
    if not compared or min(map(len, compared)) < 2:
        raise ResiduaError(f"{where}: families and degradation compare two rows or more.")
    asked = [each for family in found.families.values() for each in family]
    if lost := [each for each in asked if each not in names]:
        raise ResiduaError(f"{where}: compares {lost[0]!r}, which is none of its rows.")
    if found.sections not in ("", *SECTIONS):
        raise ResiduaError(
            f"{where}: sections = {found.sections!r}: expected one of {', '.join(SECTIONS)}."
        )
