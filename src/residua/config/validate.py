"""Settings -> the same settings, or an error if they contradict each other, before a run exists."""

from __future__ import annotations

from residua.config.parse import check_unit, hidden_of, with_settings
from residua.config.schema import AUTO, NONE, Config
from residua.errors import UsageError
from residua.system.files import refuse_undecodable

TRANSFERS = ("features", "partial", "full", "auto")  # strategies that need pretrained weights


def checked(config: Config) -> Config:
    """The settings, with a new head if the strategy is one of TRANSFERS.

    Raises UsageError if settings contradict each other, a unit is wrong, or a path cannot be
    recorded.
    """
    strategy, network = config.transfer.strategy, config.network
    for path in (config.data.path, network.weights):
        refuse_undecodable(path)
    zoom = config.augmentation.zoom
    if zoom != AUTO and zoom[0] > zoom[1]:
        raise UsageError(f"augmentation.zoom = {list(zoom)}: expected the lower number first.")
    scale = config.preprocessing.value_range
    if scale is not None and not scale[0] < scale[1]:
        raise UsageError(
            f"preprocessing.value_range = {list(scale)}: expected the lower number first."
        )
    check_unit(config.preprocessing)
    if strategy in TRANSFERS and network.weights in ("", NONE):
        raise UsageError(
            f"--transfer {strategy} needs pretrained weights: add --weights, such as --weights "
            "imagenet."
        )
    if network.head == "logistic" and strategy not in ("features", "auto"):
        raise UsageError(
            "--head logistic is a linear probe on frozen features: add --transfer features, or use "
            "--head linear."
        )
    if network.head not in (AUTO, "default", "logistic"):
        hidden_of(network.head)
    if strategy in ("features", "auto") and network.head == "default":
        raise UsageError(
            f"--transfer {strategy} trains a new head: expected --head logistic, linear or mlp:N."
        )
    if strategy == "features" and config.training.curve_test:
        raise UsageError("--transfer features has no epochs to evaluate: omit --curve-test.")
    if (network.stage or network.pool_size or network.earlier_pools) and network.head == "default":
        raise UsageError(
            "network.stage, network.pool_size and network.earlier_pools describe a new head: use a "
            "--head other than default."
        )
    if strategy == "partial" and network.stage == 1:
        raise UsageError("--transfer partial needs at least two stages: network.stage is 1.")
    if network.freeze and strategy in ("features", "full", "scratch", "auto"):
        raise UsageError(f"--transfer {strategy} sets the frozen stages itself: omit --freeze.")
    if config.transfer.views and strategy not in TRANSFERS and not network.freeze:
        raise UsageError("--views needs frozen stages: add --transfer or --freeze.")
    if strategy == "auto" and config.training.curve_test:
        raise UsageError(
            "--transfer auto never uses the test set during training: omit --curve-test."
        )
    if strategy in TRANSFERS:
        return with_settings(config, {"network.new_head": True})
    return config
