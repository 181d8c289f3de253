"""Recipes are valid, document their command, and give way to explicit settings."""

from __future__ import annotations

from importlib import resources

import pytest

from residua.config import recipes
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue


@pytest.mark.parametrize("name", recipes.recipes())
def test_recipes_are_valid_and_document_their_command(name: str) -> None:
    text = (resources.files("residua") / "recipes" / f"{name}.yaml").read_text("utf-8")
    assert "residua train" in text
    assert f"--recipe {name}" in text
    assert "# Expected:" in text
    catalogue.row(recipes.read_recipe(name).network.name)


def test_explicit_settings_override_the_recipe() -> None:
    composed = recipes.compose("digits", "tutorial_birds", {"training.epochs": 3})
    assert composed.training.epochs == 3
    assert composed.training.batch_size == 8
    with pytest.raises(ResiduaError, match="tutorial_birds"):
        recipes.read_recipe("tutorial_bird")
