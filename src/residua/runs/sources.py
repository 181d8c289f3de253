"""A source as a user names it (a run, imagenet:NAME, a file) -> weights; a network from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from residua.config import parse
from residua.config.schema import Config, NetworkSpec
from residua.errors import ResiduaError
from residua.networks.staged import Staged
from residua.networks.zoo.catalogue import build_from, row
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.system.files import cache_folder
from residua.weights.key_maps.layers import head_layers, with_counters
from residua.weights.load import Weights, read_file
from residua.weights.native import Origin
from residua.weights.published.download import download
from residua.weights.published.imagenet import SOURCES

IMAGENET = "imagenet"


def open_weights(source: str | Path, model: str | None, console: Console) -> Weights:
    """The weights that `source` names; `model` where it cannot tell the network itself.

    "imagenet" alone means imagenet:`model`. Raises ResiduaError.
    """
    path = locate(source, model, console)
    found = read_file(path, _network_of(source, model))
    if not is_published(source):
        return found
    origin = Origin(SOURCES[found.metadata.network.name].address)
    metadata = dataclasses.replace(found.metadata, origin=origin)
    return dataclasses.replace(found, metadata=metadata)


def locate(source: str | Path, model: str | None, console: Console) -> Path:
    """The file that `source` names, downloaded if need be. Raises ResiduaError."""
    if is_published(source):
        return _published(_network_of(source, model), model, console)
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


def _published(name: str | None, model: str | None, console: Console) -> Path:
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
    return download(source.address, source.file, source.digest, folder, console)


def start_from(weights: Weights, spec: NetworkSpec, *, new_head: bool, seed: int | None) -> Staged:
    """The network of a spec with these weights, in training mode.

    new_head: the layers that depend on the number of classes stay fresh; the whole head does where
    the weights end before it. Raises ResiduaError if the weights are of another network, or their
    head has another width and may not be replaced.
    """
    stored = weights.metadata.network
    same_head = (spec.head, spec.stage, spec.pool_size) == (
        stored.head,
        stored.stage,
        stored.pool_size,
    )
    fixed = ("name", "channels", "ordering", "shortcut", "cardinality")
    for key in (*fixed, *(() if new_head else ("head",))):
        has, needed = getattr(stored, key), getattr(spec, key)
        if needed != has:
            raise ResiduaError(
                f"{weights.path}: holds weights of {stored.name} with {key} {has!r}, asked "
                f"was {spec.name} with {key} {needed!r}. Choose other weights, or "
                "change the network."
            )
    classes = spec.classes
    if not new_head and (not weights.has_head or stored.classes != classes):
        has = weights.no_head_reason if not weights.has_head else f"has {stored.classes} outputs"
        raise ResiduaError(
            f"{weights.path}: {has}, but {classes} are needed. --new-head replaces the head by a "
            f"fresh one of {classes} outputs"
            + (
                f"; --set network.classes={stored.classes} keeps the old one."
                if stored.classes > classes and weights.has_head
                else "."
            )
        )
    network = build_from(spec, seed=seed)
    fresh: tuple[str, ...] = ()
    if new_head:
        fresh = tuple(f"{name}." for name in head_layers(network)) if same_head else ("head.",)
    wanted = network.state_dict()  # without what stands behind the stage that another head reads
    tensors = {
        name: each
        for name, each in weights.tensors.items()
        if not name.startswith(fresh or "\0") and (spec.stage is None or name in wanted)
    }
    missing, unexpected = network.load_state_dict(with_counters(network, tensors), strict=False)
    left = [name for name in missing if not name.startswith((*fresh, "head."))]
    if left or unexpected:
        raise ResiduaError(f"{weights.path}: {(left + unexpected)[0]} does not fit {stored.name}.")
    return network


def as_told(
    weights: Weights, classes: Sequence[str] | None, given: Mapping[str, object], console: Console
) -> Weights:
    """The weights with what the user says of them; what is assumed instead, the screen says."""
    if classes is not None:
        weights = weights.with_classes(tuple(classes))
    if given:
        weights = with_preprocessing(weights, given)
    for what, option in (
        (weights.assumed_preprocessing, "--set preprocessing.mean=[...]"),
        (weights.assumed_classes, "--classes"),
    ):
        if what:
            console.caution(f"{weights.path.name}: {what}. {option} says otherwise")
    return weights


def with_preprocessing(weights: Weights, given: Mapping[str, object]) -> Weights:
    """The weights with some of their preprocessing set by the user. Raises ResiduaError.

    What residua itself wrote with its weights is not to be overridden.
    """
    if weights.match is None and not weights.assumed_preprocessing:
        raise ResiduaError(
            f"{weights.path}: says itself how images are prepared for it, so "
            f"preprocessing.{next(iter(given))} cannot be set."
        )
    base = Config(preprocessing=weights.metadata.preprocessing)
    named = {f"preprocessing.{name}": value for name, value in given.items()}
    found = parse.with_settings(base, named).preprocessing
    parse.check_colours(found, "preprocessing")
    origin = weights.metadata.origin
    if "mean" in given:
        origin = dataclasses.replace(origin, assumed_preprocessing="")
    metadata = dataclasses.replace(weights.metadata, preprocessing=found, origin=origin)
    return dataclasses.replace(weights, metadata=metadata)
