"""A YAML file -> a study that trains: its rows, what is compared, what others published."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from residua import settings
from residua.composing import read_recipe
from residua.config import Config
from residua.errors import ResiduaError
from residua.studies.page import Cell


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
    plain: tuple[str, ...]
    residual: tuple[str, ...]


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

    settings: of all rows, before each row's own. paper: settings that replace them with --paper,
    for machines that can. families: names of rows that are compared with one another. sections:
    name of a closed study whose sections stand on the page too. reach: whether to ask when each
    row's curve is as high as the lowest row ends.
    """

    name: str
    title: str
    claim: str
    source: str
    rows: tuple[Row, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    paper: Mapping[str, object] = field(default_factory=dict)
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    degradation: tuple[Degradation, ...] = ()
    published: tuple[Published, ...] = ()
    sections: str = ""
    reach: bool = False

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(each for each in self.rows if each.name == name)

    def config(
        self, row: Row, given: Mapping[str, object], *, paper: bool, where: str = ""
    ) -> Config:
        """The settings of a row: defaults, its recipe, the study's, the row's, then `given`.

        where: begins the message of a refused setting. Raises ResiduaError.
        """
        base = Config() if row.recipe is None else read_recipe(row.recipe)
        own = {**self.settings, **(self.paper if paper else {}), **row.settings}
        where = f"{where or f'study {self.name}'}, row {row.name}: "
        return settings.with_settings(base, {**own, **given}, where)


def shipped() -> list[str]:
    """Names of the studies that come with the package and train."""
    folder = resources.files("residua") / "studies"
    return sorted(
        each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml")
    )


def read(name: str) -> Definition:
    """A study of the package by name, or that of a YAML file. Raises ResiduaError."""
    if Path(name).suffix in (".yaml", ".yml"):
        path = Path(name).expanduser()
        return _parsed(path.stem, path, str(path))
    with resources.as_file(resources.files("residua") / "studies" / f"{name}.yaml") as path:
        return _parsed(name, path, f"study {name}")


def _parsed(name: str, path: Path, where: str) -> Definition:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ResiduaError(f"{where}: cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ResiduaError(f"{where}: expected title, claim, source and rows, found {content!r}.")
    known = {each.name for each in dataclasses.fields(Definition)} - {"name"}
    for key in content:
        if key not in known:
            raise ResiduaError(f"{where}: {key!r} is unknown: expected {', '.join(sorted(known))}.")
    for key in ("title", "claim", "source", "rows"):
        if key not in content:
            raise ResiduaError(f"{where}: has no {key!r}.")
    for key in ("settings", "paper"):
        content[key] = content.get(key) or {}
    try:
        found = Definition(
            name=name,
            rows=tuple(_row(*item) for item in content.pop("rows").items()),
            families={key: tuple(rows) for key, rows in content.pop("families", {}).items()},
            degradation=tuple(
                Degradation(key, tuple(kinds["plain"]), tuple(kinds["residual"]))
                for key, kinds in content.pop("degradation", {}).items()
            ),
            published=tuple(Published(**each) for each in content.pop("published", ())),
            **content,
        )
        _check(found, where)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise ResiduaError(f"{where}: is not what a study looks like: {error!r}.") from error
    return found


def _row(name: str, content: Mapping[str, Any]) -> Row:
    rest = {key: value for key, value in content.items() if key not in ("what", "recipe")}
    return Row(str(name), str(content["what"]), rest, content.get("recipe"))


def _check(found: Definition, where: str) -> None:
    """Raise ResiduaError if a row is refused, or something compares a row that is not there."""
    for row in found.rows:
        if not row.name.replace("-", "").replace("_", "").isalnum():  # it names a folder
            raise ResiduaError(f"{where}: row {row.name!r}: expected letters, digits, - and _.")
    names = {each.name for each in found.rows}
    compared = [*found.families.values()]
    compared += [rows for each in found.degradation for rows in (each.plain, each.residual)]
    if not compared or min(map(len, compared)) < 2:
        raise ResiduaError(f"{where}: families and degradation compare two rows or more.")
    asked = [each for family in found.families.values() for each in family]
    for each in found.degradation:
        asked += [*each.plain, *each.residual]
    if lost := [each for each in asked if each not in names]:
        raise ResiduaError(f"{where}: compares {lost[0]!r}, which is none of its rows.")
    for row in found.rows:
        for paper in (False, True):
            found.config(row, {}, paper=paper, where=where)
