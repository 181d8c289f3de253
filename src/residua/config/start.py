"""Settings -> where training starts: initial weights, strategy and time budget, each with a reason.

Training starts from the ImageNet weights that are installed with residua, unless --model, --weights
or the shape of the images rule them out. `transfer.effort` determines how far it goes; settings of
a training of one's own (OWN_TRAINING), such as --epochs, mean fine-tuning by these settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from residua.config.auto import Chooser, value_of
from residua.config.parse import all_settings
from residua.config.schema import AUTO, HUB, IMAGENET, JOINER, NONE, Config
from residua.config.validate import TRANSFERS
from residua.errors import UsageError
from residua.system.files import is_there, user_path

EFFORTS = {"quick": ("features", "1m"), "standard": ("auto", "3m"), "best": ("auto", "")}
STANDARD = "standard"
SMALLEST = 32  # px: the stride of the installed network
PROBING = ("features", "auto")  # strategies that begin with a linear probe
ARCHITECTURE = ("network.ordering", "network.shortcut", "network.cardinality")
OWN_TRAINING = (  # sections and settings
    "optimization",
    "augmentation",
    "network.freeze",
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
OF_ANY_TRAINING = ("optimization.class_weights",)  # of a linear probe too


def choose_start(chooser: Chooser, installed: str | None) -> None:
    """Set network.weights, transfer.strategy and transfer.budget where they are not explicit.

    installed: the network of the weights IMAGENET; None if their package is missing. Raises
    UsageError if --effort contradicts other settings.
    """
    if installed and not reason_against_installed(chooser.config, installed):
        chooser.choose("network.weights", IMAGENET, "installed with residua")
    config, effort = chooser.config, chooser.config.transfer.effort
    weights, own = config.network.weights, own_training(config)
    several, is_pretrained = len(weights_sources(weights)) > 1, weights not in ("", NONE)
    is_joined = len(joined_sources(weights)) > 1
    is_open = config.transfer.strategy is None
    if is_open and is_pretrained and effort and own:
        raise UsageError(
            f"--effort {effort} chooses strategy and training, but {own[0]} is set. Omit one "
            "of them; --budget limits the time of your own training."
        )
    is_plain = config.network.new_head and not effort
    starts_from_weights = (
        several or is_joined or is_published(weights) or (is_pretrained and effort)
    )
    chooses_itself = is_open and not is_plain and starts_from_weights
    if chooses_itself:
        _choose_strategy(chooser, own)
    elif is_open:
        chooser.choose("transfer.strategy", "none", "plain training")
    if several and chooser.config.transfer.strategy not in PROBING:
        raise UsageError(
            f"--weights {weights}: several weights are compared by linear probes. Add --transfer "
            "features or --transfer auto, or name one of them."
        )
    if effort is not None and not chooses_itself:
        reason = f"--transfer {config.transfer.strategy}"
        if is_open and weights:
            reason = f"--weights {weights}"
        elif is_open:
            reason = reason_against_installed(config, installed or "") or "none are installed"
        raise UsageError(
            f"--effort {effort} is for a training that starts from pretrained weights and chooses "
            f"its own strategy; this one does not ({reason}). --budget limits its time."
        )


def _choose_strategy(chooser: Chooser, own: list[str]) -> None:
    """Set strategy and budget of a training that starts from pretrained weights.

    own: the settings that describe a training of one's own.
    """
    config = chooser.config
    effort = config.transfer.effort or STANDARD
    strategy, budget = EFFORTS[effort]
    reason = f"--effort {effort}"
    if own or config.network.head == "default":
        strategy = "partial" if config.network.freeze else "full"
        names = ", ".join(own[:3]) + ", ..." * bool(own[3:])
        reason = f"explicit: {names or 'network.head'}"
    chooser.choose("transfer.strategy", strategy, reason)
    if config.training.epochs == AUTO:
        chooser.choose("transfer.budget", budget or None, f"--effort {effort}")


def weights_sources(weights: str) -> tuple[str, ...]:
    """The sources in network.weights: several if they are separated by commas.

    A file or folder with a comma in its name is one. Raises ResiduaError.
    """
    if "," not in weights or is_there(user_path(weights)):
        return (weights,)
    sources = tuple(source.strip() for source in weights.split(","))
    for source in sources:
        if source in ("", NONE) or sources.count(source) > 1:
            raise UsageError(
                f"--weights {weights}: {source or 'an empty name'!r} cannot be compared with the "
                "others. Expected different runs, weights files or imagenet:NAME, separated by "
                "commas."
            )
    return sources


def joined_sources(source: str) -> tuple[str, ...]:
    """The sources in one of network.weights: several if they are joined as A+B.

    A file or folder with a plus sign in its name is one, and a part of the two.
    """
    halves = [(source[:at], source[at + 1 :]) for at, sign in enumerate(source) if sign == JOINER]
    if not halves or is_there(user_path(source)):
        return (source,)
    known = [[_is_known(half) for half in pair] for pair in halves]
    if [True, True] in known:
        return halves[known.index([True, True])]
    return tuple(source.split(JOINER)) if any(map(any, known)) else (source,)


def of_each(source: str, change: Callable[[str], str]) -> str:
    """A source with each of its `joined_sources` changed."""
    return JOINER.join(map(change, joined_sources(source)))


def _is_known(source: str) -> bool:
    """Whether a source is published weights, a repository, or a file or folder that exists."""
    is_remote = JOINER not in source and source.partition(":")[0] in (IMAGENET, HUB)
    return bool(source) and (is_remote or is_there(user_path(source)))


def own_training(config: Config) -> list[str]:
    """The settings that describe a training of one's own, by dotted name: those of OWN_TRAINING
    that differ from their default."""
    return [
        name
        for name, field in all_settings().items()
        if name.startswith(OWN_TRAINING)
        and name not in OF_ANY_TRAINING
        and value_of(config, name) != field.default
    ]


def reason_against_installed(config: Config, installed: str) -> str:
    """Why a training does not start from the installed weights; "" if it does.

    installed: their network.
    """
    network, preprocessing = config.network, config.preprocessing
    if network.weights:
        return "weights are set"
    if config.transfer.strategy not in (None, *TRANSFERS):
        return f"--transfer {config.transfer.strategy}"
    if network.name not in (AUTO, installed):
        return f"--model {network.name}"
    for setting in ARCHITECTURE:
        if value_of(config, setting) is not None:
            return f"{setting} is set"
    if preprocessing.channels == 1:
        return "they need colour images, but preprocessing.channels is 1"
    if preprocessing.size != AUTO and preprocessing.size < SMALLEST:
        return f"they need at least {SMALLEST} px, but preprocessing.size is {preprocessing.size}"
    return ""


def is_published(source: str | os.PathLike[str]) -> bool:
    """Whether a source of weights means published ones, even if a file has that name."""
    name = os.fspath(source)
    return name.partition(":")[0] == IMAGENET and JOINER not in name
