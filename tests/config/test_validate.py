"""Settings of a transfer that contradict each other are refused with a way out."""

from __future__ import annotations

import pytest

from residua.config.parse import with_settings
from residua.config.schema import Config
from residua.config.validate import TRANSFERS, checked
from residua.errors import ResiduaError


def config_of(strategy: str, **settings: object) -> Config:
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return with_settings(Config(), {"transfer.strategy": strategy, **dotted})


@pytest.mark.parametrize("strategy", ["none", "features", "partial", "full", "scratch", "auto"])
def test_strategies_on_pretrained_weights_get_a_new_head(strategy: str) -> None:
    config = checked(config_of(strategy, network__weights="imagenet"))
    assert config.network.new_head == (strategy in TRANSFERS)


@pytest.mark.parametrize("strategy", TRANSFERS)
@pytest.mark.parametrize("weights", ["", "none"])
def test_strategies_that_need_weights_are_refused_without(strategy: str, weights: str) -> None:
    with pytest.raises(ResiduaError, match=f"{strategy} needs pretrained weights: add --weights"):
        checked(config_of(strategy, network__weights=weights))


@pytest.mark.parametrize(
    ("strategy", "settings", "reason"),
    [
        ("none", {"network__head": "logistic"}, "add --transfer features"),
        ("full", {"network__head": "logistic"}, "linear probe on frozen features"),
        ("features", {"network__head": "default"}, "features trains a new head"),
        ("auto", {"network__head": "default"}, "auto trains a new head"),
        ("features", {"network__head": "mlp"}, "head 'mlp' is unknown"),
        ("features", {"training__curve_test": True}, "omit --curve-test"),
        ("auto", {"training__curve_test": True}, "omit --curve-test"),
        ("full", {"network__stage": 2, "network__head": "default"}, "describe a new head"),
        ("partial", {"network__stage": 1}, "at least two stages"),
        *((name, {"network__freeze": 1}, "omit --freeze") for name in ("features", "full", "auto")),
        ("scratch", {"network__freeze": 1}, "omit --freeze"),
        ("none", {"transfer__views": 2}, "--views needs frozen stages"),
        ("scratch", {"transfer__views": 2}, "--views needs frozen stages"),
    ],
)
def test_contradictions_are_refused(
    strategy: str, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(ResiduaError, match=reason):
        checked(config_of(strategy, network__weights="imagenet", **settings))


@pytest.mark.parametrize(
    ("settings", "meant"),
    [
        ({"mean": [0.485, 0.456, 0.406]}, r"mean = \[123\.675, 116\.28, 103\.53\]"),
        ({"std": [0.229, 0.224, 0.225]}, r"std = \[58\.395, 57\.12, 57\.375\]"),
        ({"mean": [0.5], "std": [0.5], "channels": 1}, r"mean = \[127\.5\], std = \[127\.5\]"),
        ({"mean": [0.5], "std": [60.0]}, r"mean = \[127\.5\], std = \[60\.0\]"),
    ],
)
def test_means_of_pixels_from_0_to_1_are_refused_with_those_that_were_meant(
    settings: dict[str, object], meant: str
) -> None:
    named = {f"preprocessing.{name}": value for name, value in settings.items()}
    with pytest.raises(ResiduaError, match=f"look like 0..1. In 0..255 they are {meant}"):
        checked(with_settings(Config(), named))


@pytest.mark.parametrize(
    "settings",
    [{"mean": [0.0] * 3, "std": [1.0] * 3}, {"mean": [0.0], "std": [255.0]}, {"mean": [3.0]}],
)
def test_means_of_pixels_from_0_to_255_are_accepted(settings: dict[str, object]) -> None:
    checked(with_settings(Config(), {f"preprocessing.{key}": v for key, v in settings.items()}))


@pytest.mark.parametrize("name", ["augmentation.zoom", "preprocessing.value_range"])
def test_a_range_in_the_wrong_order_is_refused(name: str) -> None:
    with pytest.raises(ResiduaError, match=r"\[2\.0, 0\.5\]: expected the lower number first"):
        checked(with_settings(Config(), {name: [2, 0.5]}))
    checked(with_settings(Config(), {name: [0.5, 2]}))


@pytest.mark.parametrize("name", ["data.path", "network.weights"])
def test_a_path_that_cannot_be_recorded_is_refused(name: str) -> None:
    with pytest.raises(ResiduaError, match="is not UTF-8"):
        checked(with_settings(Config(), {name: "photos\udcff"}))
