"""DATA, a recipe and explicit settings -> a Config, in which "auto" is still unresolved."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from residua.config import parse
from residua.config.schema import Config, Data
from residua.errors import UsageError
from residua.system.files import user_path


def compose(data: str | Path, recipe: str | Path | None, settings: Mapping[str, object]) -> Config:
    """Defaults, then the recipe, then `settings` (dotted name -> value). Raises ResiduaError."""
    config = read_recipe(recipe) if recipe is not None else Config()
    return parse.with_settings(config, {"data.path": str(data), **settings})


def data_settings(settings: Mapping[str, object]) -> Data:
    """Settings of the data alone, by dotted name. Raises ResiduaError for any other."""
    for name in settings:
        if not name.startswith("data."):
            raise UsageError(f"{name}: expected a setting of the data, data.FIELD.")
    return parse.with_settings(Config(), settings).data


def recipes() -> list[str]:
    """Names of the recipes of the package."""
    folder = resources.files("residua") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.is_file())


def read_recipe(recipe: str | Path) -> Config:
    """The settings of a YAML file, or of a named recipe of the package. Raises ResiduaError."""
    if Path(recipe).suffix in (".yaml", ".yml"):
        return parse.read_yaml(user_path(recipe))
    if str(recipe) not in recipes():
        raise UsageError(
            f"recipe {str(recipe)!r} is unknown: expected a .yaml file or one of "
            f"{', '.join(recipes())}."
        )
    with resources.as_file(resources.files("residua") / "recipes" / f"{recipe}.yaml") as path:
        return parse.read_yaml(path)
