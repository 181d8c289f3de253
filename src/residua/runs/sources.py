"""A source as a user names it (a run, imagenet:NAME, a file) -> weights; a network from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from residua.config import parse
from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.networks.staged import Staged
from residua.networks.zoo.catalogue import build, row
from residua.runs.folder import RunFolder
from residua.system.console import Screen
from residua.system.files import cache_folder
from residua.weights.key_maps.layers import complete, head_of
from residua.weights.load import Weights, read_file
from residua.weights.native import LATER
from residua.weights.published.download import download
from residua.weights.published.imagenet import SOURCES

IMAGENET = "imagenet"
NONE = "none"  # where a recipe names weights and a user wants none


def open_weights(source: str | Path, model: str | None, screen: Screen) -> Weights:
    """The weights that `source` names; `model` where it cannot tell the network itself.

    "imagenet" alone means imagenet:`model`. Raises ResiduaError.
    """
    path = locate(source, model, screen)
    found = read_file(path, _network_of(source, model))
    if not is_published(source):
        return found
    card = dataclasses.replace(
        found.card, notes={"from": SOURCES[found.card.network["name"]].address}
    )
    return dataclasses.replace(found, card=card)


def locate(source: str | Path, model: str | None, screen: Screen) -> Path:
    """The file that `source` names, downloaded if need be. Raises ResiduaError."""
    if is_published(source):
        return _published(_network_of(source, model), model, screen)
    path = Path(source).expanduser()
    if path.is_dir():
        return RunFolder.existing(path).weights
    if not path.exists():
        raise ResiduaError(
            f"{source}: there is no such file or folder: expected a run, a weights file or "
            f"{IMAGENET}:NAME, such as {IMAGENET}:resnet50."
        )
    return path


def is_published(source: str | Path) -> bool:
    """Whether a source is a word for published weights, whatever files there are of that name."""
    return str(source).partition(":")[0] == IMAGENET


def _network_of(source: str | Path, model: str | None) -> str | None:
    """The network that a word for published weights names; `model` where none is named."""
    return str(source).partition(":")[2] or model if is_published(source) else model


def is_run(source: str | Path) -> bool:
    """Whether a source is a folder, as runs are."""
    return Path(source).expanduser().is_dir()


def _published(name: str | None, model: str | None, screen: Screen) -> Path:
    if name is None:
        raise ResiduaError(f"{IMAGENET}: of which network? Expected {IMAGENET}:NAME, or --model.")
    row(name)
    if model not in (None, name):
        raise ResiduaError(f"{IMAGENET}:{name} holds weights of {name}, not of {model}.")
    if name not in SOURCES:
        raise ResiduaError(
            f"{IMAGENET}:{name}: nobody publishes ImageNet weights of {name}. `residua weights "
            "sources` lists the networks that have some."
        )
    source, folder = SOURCES[name], cache_folder() / "weights"
    return download(source.address, source.file, source.digest, folder, screen)


def start_from(
    weights: Weights, arguments: Mapping[str, Any], *, new_head: bool, seed: int | None
) -> Staged:
    """The network that build(**arguments) makes, with these weights, in training mode.

    new_head: the layers that depend on the number of classes stay fresh; the whole head does where
    the weights end before it. Raises ResiduaError if the weights are of another network, or their
    head has another width and may not be replaced.
    """
    arguments, held = LATER | dict(arguments), LATER | weights.card.network
    same_head = all(arguments[key] == held[key] for key in ("head", "stage", "side"))
    fixed = ("name", "channels", "ordering", "shortcut", "cardinality")
    for key in (*fixed, *(() if new_head else ("head",))):
        if arguments[key] != held[key]:
            raise ResiduaError(
                f"{weights.path}: holds weights of {held['name']} with {key} {held[key]!r}, asked "
                f"was {arguments['name']} with {key} {arguments[key]!r}. Choose other weights, or "
                "change the network."
            )
    classes = arguments["classes"]
    if not new_head and (weights.headless or held["classes"] != classes):
        has = weights.lacks if weights.headless else f"has {held['classes']} outputs"
        raise ResiduaError(
            f"{weights.path}: {has}, but {classes} are needed. --new-head replaces the head by a "
            f"fresh one of {classes} outputs"
            + (
                f"; --set network.classes={held['classes']} keeps the old one."
                if held["classes"] > classes and not weights.headless
                else "."
            )
        )
    network = build(**arguments, seed=seed)
    fresh: tuple[str, ...] = ()
    if new_head:
        fresh = tuple(f"{name}." for name in head_of(network)) if same_head else ("head.",)
    wanted = network.state_dict()  # without what stands behind the stage that another head reads
    tensors = {
        name: each
        for name, each in weights.tensors.items()
        if not name.startswith(fresh or "\0") and (arguments["stage"] is None or name in wanted)
    }
    missing, unexpected = network.load_state_dict(complete(network, tensors), strict=False)
    left = [name for name in missing if not name.startswith((*fresh, "head."))]
    if left or unexpected:
        raise ResiduaError(f"{weights.path}: {(left + unexpected)[0]} does not fit {held['name']}.")
    return network


def as_told(
    weights: Weights, classes: Sequence[str] | None, given: Mapping[str, object], screen: Screen
) -> Weights:
    """The weights with what the user says of them; what is assumed instead, the screen says."""
    if classes is not None:
        weights = weights.named(tuple(classes))
    if given:
        weights = with_preprocessing(weights, given)
    for what, option in (
        (weights.assumed, "--set preprocessing.mean=[...]"),
        (weights.guessed, "--classes"),
    ):
        if what:
            screen.caution(f"{weights.path.name}: {what}. {option} says otherwise")
    return weights


def with_preprocessing(weights: Weights, given: Mapping[str, object]) -> Weights:
    """The weights with some of their preprocessing set by the user. Raises ResiduaError.

    What residua itself wrote with its weights is not to be overridden.
    """
    if weights.match is None and not weights.assumed:
        raise ResiduaError(
            f"{weights.path}: says itself how pictures are prepared for it, so "
            f"preprocessing.{next(iter(given))} cannot be set."
        )
    base = Config(preprocessing=weights.card.preprocessing)
    named = {f"preprocessing.{name}": value for name, value in given.items()}
    found = parse.with_settings(base, named).preprocessing
    parse.check_colours(found, "preprocessing")
    notes = weights.card.notes if "mean" not in given else {**weights.card.notes, "assumed": ""}
    card = dataclasses.replace(weights.card, preprocessing=found, notes=notes)
    return dataclasses.replace(weights, card=card)
