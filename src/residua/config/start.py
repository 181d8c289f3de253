"""Settings -> where training starts: initial weights, strategy and time budget, each with a reason.

Without --model and --weights, training starts from the ImageNet weights that are installed with
residua, and `transfer.effort` determines how far it goes. A training that is described in detail
(OWN_TRAINING), like the recipes of the tutorials, starts from random weights.
"""

from __future__ import annotations

import dataclasses
import os

from residua.config.auto import Chooser
from residua.config.schema import AUTO, IMAGENET, NONE, Config
from residua.config.validate import TRANSFERS
from residua.errors import ResiduaError
from residua.system.files import is_there, user_path

EFFORTS = {"quick": ("features", "1m"), "standard": ("auto", "3m"), "best": ("auto", "")}
STANDARD = "standard"
SMALLEST = 32  # px: the stride of the installed network
PROBING = ("features", "auto")  # strategies that begin with a linear probe
OWN_TRAINING = (  # sections and settings
    "optimization",
    "augmentation",
    "network.ordering",
    "network.shortcut",
    "network.cardinality",
    "network.head",
    "network.freeze",
    "network.new_head",
    "training.epochs",
    "training.batch_size",
    "training.select",
    "training.patience",
    "training.max_images",
    "training.precise_bn_images",
    "training.curve_test",
    "training.save_every",
    "training.tensorboard",
)


def choose_start(chooser: Chooser, *, is_installed: bool) -> None:
    """Set network.weights, transfer.strategy and transfer.budget where they are not explicit.

    is_installed: whether the package of the weights IMAGENET is. Raises ResiduaError if --effort
    contradicts other settings.
    """
    if wants_installed_weights(chooser.config) and is_installed:
        chooser.choose("network.weights", IMAGENET, "installed with residua")
    config, effort = chooser.config, chooser.config.transfer.effort
    several = len(weights_sources(config.network.weights)) > 1
    if config.transfer.strategy is None:
        if (several or is_published(config.network.weights)) and not own_training(config):
            strategy, budget = EFFORTS[effort or STANDARD]
            reason = f"--effort {effort or STANDARD}"
            chooser.choose("transfer.strategy", strategy, reason)
            chooser.choose("transfer.budget", budget or None, reason)
            return
        chooser.choose("transfer.strategy", "none", "plain training")
    if several and chooser.config.transfer.strategy not in PROBING:
        raise ResiduaError(
            f"--weights {config.network.weights}: several weights are compared by linear probes. "
            "Add --transfer features or --transfer auto, or name one of them."
        )
    if effort is not None:
        raise ResiduaError(
            f"--effort {effort} is for a training that starts from ImageNet weights and chooses "
            "its own strategy. With these settings, use --budget to limit the time."
        )


def weights_sources(weights: str) -> tuple[str, ...]:
    """The sources in network.weights: several if they are separated by commas.

    A file or folder with a comma in its name is one. Raises ResiduaError.
    """
    if "," not in weights or is_there(user_path(weights)):
        return (weights,)
    sources = tuple(source.strip() for source in weights.split(","))
    for source in sources:
        if source in ("", NONE) or sources.count(source) > 1:
            raise ResiduaError(
                f"--weights {weights}: {source or 'an empty name'!r} cannot be compared with the "
                "others. Expected different runs, weights files or imagenet:NAME, separated by "
                "commas."
            )
    return sources


def own_training(config: Config) -> list[str]:
    """The explicit settings that describe a training of one's own, by dotted name."""
    names = []
    for section in dataclasses.fields(Config):
        values = getattr(config, section.name)
        for field in dataclasses.fields(values):
            name = f"{section.name}.{field.name}"
            if name.startswith(OWN_TRAINING) and getattr(values, field.name) != field.default:
                names.append(name)
    return names


def wants_installed_weights(config: Config) -> bool:
    """Whether nothing in the settings speaks against the installed weights."""
    preprocessing, strategy = config.preprocessing, config.transfer.strategy
    if config.network.weights or config.network.name != AUTO or preprocessing.channels == 1:
        return False
    if strategy is not None:
        return strategy in TRANSFERS
    is_tiny = preprocessing.size != AUTO and preprocessing.size < SMALLEST
    return not is_tiny and not own_training(config)


def is_published(source: str | os.PathLike[str]) -> bool:
    """Whether a source of weights means published ones, even if a file has that name."""
    return os.fspath(source).partition(":")[0] == IMAGENET
