"""Settings of a transfer -> a sentence where they contradict each other, before there is a run."""

from __future__ import annotations

from residua.config.parse import hidden_of, with_settings
from residua.config.schema import AUTO, NONE, Config
from residua.errors import ResiduaError

TRANSFERS = ("features", "partial", "full", "auto")  # strategies that need weights


def checked(config: Config) -> Config:
    """The settings, with a new head where a transfer needs one: it is always for other classes.

    Raises ResiduaError where settings contradict each other.
    """
    if config.transfer.strategy in TRANSFERS:
        config = with_settings(config, {"network.new_head": True})
    check(config)
    return config


def check(config: Config) -> None:
    """Raise ResiduaError where settings of a transfer contradict each other."""
    strategy, network = config.transfer.strategy, config.network
    if strategy in TRANSFERS and network.weights in ("", NONE):
        raise ResiduaError(
            f"--transfer {strategy} uses weights: give --weights too, such as --weights imagenet "
            "--model resnet50."
        )
    if network.head == "logistic" and strategy not in ("features", "auto"):
        raise ResiduaError(
            "--head logistic is solved on frozen features: give --transfer features too, or --head "
            "linear."
        )
    if network.head not in (AUTO, "default", "logistic"):
        hidden_of(network.head)
    if strategy in ("features", "auto") and network.head == "default":
        raise ResiduaError(
            f"--transfer {strategy} learns a new head: expected logistic, linear or mlp:N."
        )
    if strategy == "features" and config.training.curve_test:
        raise ResiduaError("--transfer features records no test part: leave out --curve-test.")
    if (network.stage or network.pool_size) and network.head == "default":
        raise ResiduaError("network.stage and network.pool_size need a --head other than default.")
    if strategy == "partial" and network.stage == 1:
        raise ResiduaError("--transfer partial needs two stages or more: network.stage is 1.")
    if network.freeze and strategy in ("features", "full", "scratch", "auto"):
        raise ResiduaError(f"--transfer {strategy} says itself what is frozen: no --freeze.")
    if config.transfer.views and strategy not in TRANSFERS and not network.freeze:
        raise ResiduaError("--views are of what is frozen: give --transfer or --freeze too.")
    if strategy == "auto" and config.training.curve_test:
        raise ResiduaError(
            "--transfer auto keeps the test part out of everything: no --curve-test."
        )
