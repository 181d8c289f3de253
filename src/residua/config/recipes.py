"""DATA, a recipe and given settings -> a config, whose "auto" the data will resolve."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from residua.config import parse
from residua.config.schema import Config
from residua.errors import ResiduaError


def compose(data: str | Path, recipe: str | Path | None, given: Mapping[str, object]) -> Config:
    """Defaults, then the recipe, then what is given. Raises ResiduaError."""
    config = read_recipe(recipe) if recipe is not None else Config()
    return parse.with_settings(config, {"data.path": str(data), **given})


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("residua") / "recipes"
    return sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.is_file())


def read_recipe(recipe: str | Path) -> Config:
    """The settings of a YAML file, or of a recipe of the package by name. Raises ResiduaError."""
    if Path(recipe).suffix in (".yaml", ".yml"):
        return parse.read_yaml(Path(recipe).expanduser())
    if str(recipe) not in recipes():
        raise ResiduaError(
            f"recipe {str(recipe)!r} is unknown: expected a .yaml file or one of "
            f"{', '.join(recipes())}."
        )
    with resources.as_file(resources.files("residua") / "recipes" / f"{recipe}.yaml") as path:
        return parse.read_yaml(path)
