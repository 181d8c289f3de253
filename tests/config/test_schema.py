"""Every setting has a help text, and a Config describes its network."""

from __future__ import annotations

import dataclasses

from residua.config.parse import with_settings
from residua.config.schema import Config, NetworkSpec


def test_every_setting_has_a_help_text() -> None:
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(getattr(Config(), section.name)):
            assert field.metadata["help"].endswith("."), f"{section.name}.{field.name}"


def test_the_network_spec_resolves_the_head() -> None:
    settings = {"network.name": "resnet18", "network.classes": 5, "preprocessing.channels": 3}
    config = with_settings(Config(), {**settings, "network.stage": 2, "network.head": "default"})
    assert config.network_spec == NetworkSpec("resnet18", 5, 3)
    config = with_settings(config, {"network.head": "logistic"})
    assert config.network_spec == NetworkSpec("resnet18", 5, 3, head="linear", stage=2)
