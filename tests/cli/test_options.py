"""Options that stand for settings: their names, their values, their help."""

from __future__ import annotations

import pytest
import typer.main

from residua.cli.options import parse_assignments, with_settings
from residua.config.parse import field_of, flags
from residua.errors import ResiduaError


def _command(*, settings: dict[str, object]) -> None:
    """Receive settings."""
    received.append(settings)


received: list[dict[str, object]] = []
app = typer.Typer()
app.command()(with_settings(_command))
COMMAND = typer.main.get_command(app)


def settings_of(*words: str) -> dict[str, object]:
    """The settings that a command with options for all of them receives."""
    received.clear()
    COMMAND.main(list(words), standalone_mode=False)
    return received[0]


def test_only_options_that_were_used_become_settings() -> None:
    assert settings_of() == {}
    assert settings_of("--epochs", "5") == {"training.epochs": "5"}
    assert settings_of("--new-head") == {"network.new_head": True}


def test_every_flag_sets_its_setting() -> None:
    for flag, name in flags().items():
        is_switch = isinstance(field_of(name).default, bool)
        words = (flag,) if is_switch else (flag, "value")
        assert settings_of(*words) == {name: True if is_switch else "value"}


def test_flags_of_earlier_versions_are_accepted() -> None:
    assert settings_of("--batch", "8") == {"training.batch_size": "8"}
    assert settings_of("--keep-every", "2") == {"training.save_every": "2"}


def test_set_reaches_every_setting_and_a_flag_wins() -> None:
    words = ("--set", "optimization.momentum=0.8", "--set", "training.epochs=1", "--epochs", "2")
    assert settings_of(*words) == {"optimization.momentum": "0.8", "training.epochs": "2"}


def test_an_assignment_has_a_name_and_a_value() -> None:
    assert parse_assignments(["a.b = x=y "]) == {"a.b": "x=y"}
    with pytest.raises(ResiduaError, match=r"--set epochs: expected SECTION\.FIELD=VALUE"):
        parse_assignments(["epochs"])
