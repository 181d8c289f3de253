"""Where training starts if the settings leave it open."""

from __future__ import annotations

from pathlib import Path

import pytest

from residua.config import parse
from residua.config.auto import Chooser
from residua.config.recipes import read_recipe, recipes
from residua.config.schema import Config
from residua.config.start import choose_start, own_training, weights_sources
from residua.errors import ResiduaError

INSTALLED = "efficientnet_lite0"


def start(installed: str | None = INSTALLED, **settings: object) -> tuple[str, str | None, str]:
    """Weights, strategy and budget for explicit settings."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    chooser = Chooser(parse.with_settings(Config(), named))
    choose_start(chooser, installed)
    config = chooser.config
    return config.network.weights, config.transfer.strategy, config.transfer.budget


def test_images_alone_start_from_the_installed_weights() -> None:
    assert start() == ("imagenet", "auto", "3m")
    assert start(transfer__effort="quick") == ("imagenet", "features", "1m")
    assert start(transfer__effort="standard") == start()
    assert start(transfer__effort="best") == ("imagenet", "auto", "")
    assert start(transfer__budget="90s") == ("imagenet", "auto", "90s")
    assert start(transfer__strategy="full") == ("imagenet", "full", "")
    assert start(preprocessing__size=96, data__test_fraction=0.2, training__seed=3) == start()


@pytest.mark.parametrize(
    "settings",
    [
        {"network__name": "resnet18"},
        {"network__weights": "none"},
        {"network__weights": "runs/photos-1"},
        {"transfer__strategy": "none"},
        {"network__ordering": "full_preactivation"},
        {"preprocessing__channels": 1},
        {"preprocessing__size": 16},
    ],
)
def test_another_network_or_input_starts_as_in_version_0_1_0(settings: dict[str, object]) -> None:
    weights, strategy, budget = start(**settings)
    assert weights == settings.get("network__weights", "")
    assert (strategy, budget) == ("none", "")


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({"training__epochs": 5}, ""),
        ({"optimization__learning_rate": 0.1}, "3m"),
        ({"optimization__momentum": 0.8, "training__epochs": 5}, ""),
        ({"training__batch_size": 16}, "3m"),
        ({"augmentation__rotation": 30, "transfer__budget": "5m"}, "5m"),
        ({"network__head": "default"}, "3m"),
        ({"network__weights": "imagenet:resnet18", "training__epochs": 2}, ""),
        ({"network__name": "efficientnet_lite0", "training__epochs": 2}, ""),
    ],
)
def test_settings_of_a_training_fine_tune_the_pretrained_weights(
    settings: dict[str, object], budget: str
) -> None:
    weights = str(settings.get("network__weights", "imagenet"))
    assert start(**settings) == (weights, "full", budget)
    if "network__head" not in settings:
        assert start(**settings, network__freeze=3) == (weights, "partial", budget)


def test_settings_of_every_strategy_leave_the_choice_open() -> None:
    for settings in (
        {"optimization__class_weights": "balanced"},
        {"network__head": "mlp:64"},
        {"network__name": INSTALLED},
    ):
        assert start(**settings) == start()


@pytest.mark.parametrize("name", recipes())
def test_recipes_of_the_tutorials_stay_as_they_are(name: str) -> None:
    chooser = Chooser(read_recipe(name))
    weights = chooser.config.network.weights
    choose_start(chooser, INSTALLED)
    assert chooser.config.network.weights == weights


def test_without_the_package_training_starts_from_scratch() -> None:
    assert start(installed=None) == ("", "none", "")


def test_published_weights_get_a_new_head_by_effort() -> None:
    assert start(network__weights="imagenet:resnet50") == ("imagenet:resnet50", "auto", "3m")
    own = start(network__weights="imagenet:resnet50", network__new_head=True)
    assert own == ("imagenet:resnet50", "none", "")


def test_an_effort_applies_to_other_weights_too() -> None:
    quick = start(network__weights="runs/photos-1", transfer__effort="quick")
    assert quick == ("runs/photos-1", "features", "1m")


def test_several_weights_are_probed() -> None:
    assert start(network__weights="a.pth,b.pth") == ("a.pth,b.pth", "auto", "3m")
    quick = start(network__weights="a.pth,b.pth", transfer__effort="quick")
    assert quick == ("a.pth,b.pth", "features", "1m")


@pytest.mark.parametrize(
    "settings",
    [
        *({"transfer__strategy": name} for name in ("none", "partial", "full", "scratch")),
        {"training__epochs": 3},
    ],
)
def test_several_weights_need_a_strategy_that_probes(settings: dict[str, object]) -> None:
    with pytest.raises(ResiduaError, match="Add --transfer features or --transfer auto"):
        start(network__weights="a.pth,b.pth", **settings)


def test_a_file_with_a_comma_in_its_name_is_one_source(tmp_path: Path) -> None:
    file = tmp_path / "a,b.pth"
    assert weights_sources(str(file)) == (str(tmp_path / "a"), "b.pth")
    file.touch()
    assert weights_sources(str(file)) == (str(file),)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"transfer__strategy": "full"}, "--transfer full"),
        ({"network__weights": "none"}, "--weights none"),
        ({"network__name": "resnet18"}, "--model resnet18"),
        ({"preprocessing__size": 16}, "they need at least 32 px, but preprocessing.size is 16"),
    ],
)
def test_an_effort_contradicts_another_strategy(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ResiduaError, match="--effort quick is for a training that") as caught:
        start(transfer__effort="quick", **settings)
    assert f"({reason})" in str(caught.value)


def test_an_effort_contradicts_a_training_of_ones_own() -> None:
    with pytest.raises(ResiduaError, match=r"--effort quick .* but training.epochs is set"):
        start(transfer__effort="quick", training__epochs=2)


def test_only_settings_that_differ_from_their_default_count() -> None:
    assert own_training(Config()) == []
    config = parse.with_settings(Config(), {"optimization.momentum": 0.8, "training.seed": 1})
    assert own_training(config) == ["optimization.momentum"]
