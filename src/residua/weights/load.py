"""A weights file of any framework -> tensors under residua's names, with their metadata."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residua.config.schema import NetworkSpec, Preprocessing
from residua.errors import ResiduaError
from residua.networks.own import is_own
from residua.networks.zoo import catalogue
from residua.system.files import sha256_of
from residua.weights.companion import read_companion
from residua.weights.exported import Loaded, load_exported
from residua.weights.formats.detect import read_raw
from residua.weights.formats.guards import damaged
from residua.weights.formats.raw import RawWeights, parts_of
from residua.weights.key_maps.keras import KERAS_MAPS
from residua.weights.key_maps.key_map import KeyMap
from residua.weights.key_maps.torch import TORCH_MAPS
from residua.weights.match import Match, match
from residua.weights.native import (
    Metadata,
    Origin,
    check_tensors,
    is_native,
    metadata_from,
    read_weights,
    with_attached,
)
from residua.weights.own_heads import SINGLE_OUTPUT, with_two_outputs
from residua.weights.published.defaults import defaults_for

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 3  # problems that a message names
MAX_SIZE_RATIO = 12  # of parameters, network to file; beyond it no layer is compared


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one file.

    tensors: a state dict under our names, without the head's unless `has_head`.
    form: the kind of file, as a phrase.
    match: how its layers were assigned; None for one of our files.
    exported: the loaded program of an exported file, which has no tensors; else None.
    stamp: inode, modification time and size of the file before it was read.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: Metadata
    form: str
    has_head: bool = True
    match: Match | None = None
    stamp: tuple[int, ...] = ()
    exported: Loaded | None = None

    @property
    def expects(self) -> tuple[NetworkSpec, Preprocessing]:
        """The network of these weights and the preprocessing that they were trained with."""
        return self.metadata.network, self.metadata.preprocessing

    @property
    def assumed_preprocessing(self) -> str:
        """The assumption about preprocessing, in a sentence; "" where it is recorded."""
        return self.metadata.origin.assumed_preprocessing

    @property
    def assumed_classes(self) -> str:
        """The assumption about class names, in a sentence; "" where they are recorded."""
        return self.metadata.origin.assumed_classes

    @property
    def no_head_reason(self) -> str:
        """Why `has_head` is False, as a predicate."""
        if self.match is None or not (self.match.other_head or self.match.unusable_head):
            return "ends before its head"
        if self.match.unusable_head:
            return self.match.unusable_head
        return f"has a head of its own ({', '.join(self.match.other_head)}), which is not read"

    def with_classes(self, classes: tuple[str, ...]) -> Weights:
        """The weights with these class names. Raises ResiduaError unless one for each output."""
        outputs = self.metadata.network.classes
        if len(classes) != outputs or len(set(classes)) != outputs:
            is_sigmoid = self.match is not None and self.match.classes == 1
            has = "a sigmoid output for two classes" if is_sigmoid else f"{outputs} outputs"
            raise ResiduaError(
                f"{self.path}: has {has}, but {len(set(classes))} different class "
                "names were given: expected one for each."
            )
        origin = dataclasses.replace(self.metadata.origin, assumed_classes="")
        metadata = dataclasses.replace(self.metadata, classes=classes, origin=origin)
        return dataclasses.replace(self, metadata=metadata)

    def sha256(self) -> str:
        """SHA-256 of the file, 64 digits. Raises ResiduaError if the file changed since it was
        read, as the weights of a running training do."""
        digest = sha256_of(self.path)
        if _stamp(self.path) != self.stamp:
            raise ResiduaError(
                f"{self.path}: has changed since it was read. Start again when nothing writes it."
            )
        return digest


def read_file(path: Path, model: str | None = None) -> Weights:
    """The weights of a file, recognised by content; `model` where that leaves the network open.

    Raises ResiduaError if no network of the catalogue, or not `model`, has such weights, naming
    the first tensors that do not fit; or if several networks have.
    """
    if model is not None and not is_own(model):
        catalogue.row(model)
    stamp = _stamp(path)
    if is_native(path):
        tensors, metadata = read_weights(path)
        if model is not None and is_own(model) and is_own(metadata.network.name):
            network = dataclasses.replace(metadata.network, name=model)  # which can be built
            metadata = dataclasses.replace(metadata, network=network)
        if model is not None and metadata.network.name != model:
            raise ResiduaError(f"{path}: has weights of {metadata.network.name}, not of {model}.")
        has_head = check_tensors(path, tensors, metadata)
        weights = Weights(path, tensors, metadata, "residua safetensors", has_head, None, stamp)
        return _with_classes_for_each(weights)
    if model is not None and is_own(model):
        raise ResiduaError(
            f"{path}: was not written by residua: weights of {model} are read from its runs alone."
        )
    recorded, unused = read_companion(path)
    raw = read_raw(path)
    raw, reading = find_network(raw, model or (recorded.network.name if recorded else None))
    metadata = _metadata(raw, reading, unused)
    if recorded is not None and recorded.network == metadata.network:
        metadata = recorded
    tensors, form = dict(reading.tensors), raw.form
    weights = Weights(path, tensors, metadata, form, reading.has_head, reading, stamp)
    return _with_classes_for_each(weights)


def _with_classes_for_each(weights: Weights) -> Weights:
    """The weights; a single sigmoid output becomes two outputs, one for each of two classes."""
    metadata = weights.metadata
    if not weights.has_head or metadata.network.classes != 1:
        return weights
    network, tensors = with_two_outputs(metadata.network, weights.tensors)
    origin = dataclasses.replace(metadata.origin, assumed_classes=SINGLE_OUTPUT)
    metadata = dataclasses.replace(metadata, network=network, classes=(), origin=origin)
    return dataclasses.replace(weights, tensors=tensors, metadata=metadata)


def read_exported(path: Path, *, allow_code: bool = False) -> Weights:
    """An exported file as weights that can only classify images. allow_code, errors: see
    `load_exported`."""
    stamp, loaded = _stamp(path), load_exported(path, allow_code=allow_code)
    metadata = exported_metadata(path, loaded.description)
    rule, outputs = metadata.preprocessing, metadata.network.classes
    expected = (rule.size, rule.size, rule.channels), outputs
    if (loaded.image_shape, loaded.widths.get("logits")) != expected:
        raise damaged(
            path,
            f"takes images {loaded.image_shape}, but describes {expected[0]} for {outputs} outputs",
        )
    uncertainty = metadata.uncertainty
    unknown = None if uncertainty is None else uncertainty.unknown
    features = loaded.widths.get("features", 0)
    if unknown is not None and features != unknown.features:
        has = f"has {features} features"
        raise damaged(path, f"{has}, but its detector of unknown images reads {unknown.features}")
    return Weights(path, {}, metadata, f"{loaded.kind} of residua", stamp=stamp, exported=loaded)


def exported_metadata(path: Path, description: Mapping[str, Any]) -> Metadata:
    """The metadata in the description of an exported file. Raises ResiduaError if it is damaged."""
    return with_attached(path, metadata_from(path, {"notes": {}, **description}), description)


def _metadata(raw: RawWeights, reading: Match, unused: str) -> Metadata:
    """The metadata of a foreign file; what it does not record is assumed.

    unused: why its JSON file is not used; "" if there is none.
    """
    usual = defaults_for(reading.network, reading.classes, reading.channels)
    preprocessing, unread = usual.preprocessing, ""
    if raw.config is not None and raw.config.input_size:
        preprocessing = dataclasses.replace(preprocessing, size=raw.config.input_size)
    if raw.config is not None and (inside := raw.config.preprocessing_layers):
        unread = f"its layers {', '.join(inside)} are not read, so this may be wrong"
    notes = (usual.origin.assumed_preprocessing, unread, reading.own_head, raw.left_out, unused)
    assumed = "; ".join(filter(None, notes))
    origin = Origin(f"{raw.path.name}, {raw.form}", assumed, usual.origin.assumed_classes)
    classes = reading.classes or catalogue.row(reading.network).classes
    network = dataclasses.replace(usual.network, classes=classes, head=reading.head)
    return dataclasses.replace(usual, network=network, preprocessing=preprocessing, origin=origin)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when the file is written; () if there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def find_network(raw: RawWeights, model: str | None) -> tuple[RawWeights, Match]:
    """The layers of a file that are a network, all or those under one prefix, and their reading.

    A program may store more than a network, each part under its prefix. Raises ResiduaError.
    """
    try:
        return raw, recognise(raw, model)
    except ResiduaError:
        fitting = []
        for prefix, part in parts_of(raw) if raw.framework == "pytorch" else ():
            with contextlib.suppress(ResiduaError):
                fitting.append((prefix, part, recognise(part, model)))
        if not fitting:
            raise
    if len(fitting) > 1:
        raise ResiduaError(
            f"{raw.path}: contains {len(fitting)} networks, under "
            f"{', '.join(prefix for prefix, *_ in fitting)}. Save the one that is meant alone: "
            "torch.save(network.state_dict(), FILE)."
        )
    return fitting[0][1:]


def recognise(raw: RawWeights, model: str | None) -> Match:
    """The only network and reading that fit. Raises ResiduaError if there are none or several.

    Naming the network also names the program that wrote the file, and so which order it used.
    """
    readings = list(_readings(raw, model))
    fitting = [reading for reading in readings if not reading.problems]
    if not readings:
        raise ResiduaError(_unknown(raw, model))
    if not fitting:
        nearest = min(readings, key=lambda reading: len(reading.problems))
        raise ResiduaError(_misfit(raw, nearest, model))
    networks = list(dict.fromkeys(reading.network for reading in fitting))
    if len(networks) > 1:
        raise ResiduaError(
            f"{raw.path}: its tensors fit {', '.join(networks)} alike: choose the network with "
            "--model."
        )
    if len(fitting) > 1 and model is None:
        raise ResiduaError(
            f"{raw.path}: its automatic names can be read in {len(fitting)} ways as {networks[0]}, "
            f"and the shapes do not settle which is right. --model {networks[0]} reads it in the "
            "tutorial's order: a unit's branch, then its shortcut."
        )
    return fitting[0]


def _readings(raw: RawWeights, model: str | None) -> Iterator[Match]:
    """Readings as each network that may have such weights, those of similar size first.

    Once a network fits with its head, only networks with as many parameters can fit too.
    """
    stored = sum(tensor.numel() for layer in raw.layers.values() for tensor in layer.values())
    sizes = {name: row.trainable for name, row in catalogue.ROWS.items()}
    nearest = sorted(sizes, key=lambda name: abs(math.log(sizes[name] / max(stored, 1))))
    fitting: set[int] = set()
    for name in nearest if model is None else [model]:
        far = not stored / MAX_SIZE_RATIO < sizes[name] < stored * MAX_SIZE_RATIO
        if model is None and (far or (fitting and sizes[name] not in fitting)):
            continue
        for key_map in _key_maps(raw, name, model):
            for reading in match(raw, name, key_map):
                if reading.has_head and not reading.problems:
                    fitting.add(sizes[name])
                yield reading


def _key_maps(raw: RawWeights, name: str, model: str | None) -> list[KeyMap]:
    """The key maps in which the file may store the network `name`."""
    maps = [
        key_map
        for key_map in (KERAS_MAPS if raw.framework == "keras" else TORCH_MAPS)
        if (key_map.covers(name) or (name == model and name in key_map.also))
        and (raw.names_are_positions or any(re.match(key_map.sign, layer) for layer in raw.layers))
    ]
    return maps[:1] if raw.names_are_positions else maps  # which do not matter without names


def _unknown(raw: RawWeights, model: str | None) -> str:
    names = list(raw.layers)
    expected = f"those of {model}" if model else "those of any network of the catalogue"
    return (
        f"{raw.path}: is {raw.form} of {len(names)} layers, whose names are not {expected}: the "
        f"first are {', '.join(names[:SHOWN])}."
    )


def _misfit(raw: RawWeights, nearest: Match, model: str | None) -> str:
    shown, more = nearest.problems[:SHOWN], len(nearest.problems) - SHOWN
    verdict = "does not fit" if model else "is no network of the catalogue; the nearest is"
    rest = f"; and {more} more" if more > 0 else ""
    source = nearest.key_map.source
    return f"{raw.path}: {verdict} {nearest.network} ({source}): {'; '.join(shown)}{rest}."
