"""A weights file of any framework -> tensors under our names, and what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from residua.config.schema import NetworkSpec, Preprocessing
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue
from residua.weights.formats.raw import Stored, read_stored
from residua.weights.key_maps.dialect import Dialect
from residua.weights.key_maps.keras import KERAS_DIALECTS
from residua.weights.key_maps.torch import TORCH_DIALECTS
from residua.weights.match import Match, match
from residua.weights.native import Metadata, ends_before_head, is_native, read_weights
from residua.weights.published.defaults import convention

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 3  # problems of a file that a message names
FAR = 12  # a network with so many times fewer or more numbers than the file needs no closer look


@dataclass(frozen=True, eq=False)
class Weights:
    """tensors: a state dict under our names, without the head unless `has_head`.

    form: what the file is, in words. match: how its layers were read; None for a file of ours.
    stamp: of the file before it was read.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: Metadata
    form: str
    has_head: bool = True
    match: Match | None = None
    stamp: tuple[int, ...] = ()

    @property
    def expects(self) -> tuple[NetworkSpec, Preprocessing]:
        """The network of these weights and the preprocessing that they were trained with."""
        return self.metadata.network, self.metadata.preprocessing

    @property
    def assumed_preprocessing(self) -> str:
        """What nobody said of how images are prepared, as a sentence; "" if all was said."""
        return str(self.metadata.notes.get("assumed") or "")

    @property
    def assumed_classes(self) -> str:
        """Whose names the outputs are taken to have, as a sentence; "" if they were said."""
        return str(self.metadata.notes.get("guessed") or "")

    @property
    def no_head_reason(self) -> str:
        """What weights without a head are instead, as the rest of a sentence."""
        if self.match is None or not self.match.beside:
            return "ends before its head"
        return f"has a head of its own ({', '.join(self.match.beside)}), which is not read"

    def with_classes(self, classes: tuple[str, ...]) -> Weights:
        """The same with names of its outputs. Raises ResiduaError unless each has its own."""
        outputs = self.metadata.network.classes
        if len(classes) != outputs or len(set(classes)) != outputs:
            raise ResiduaError(
                f"{self.path}: has {outputs} outputs, but {len(set(classes))} different class "
                "names were given: expected one for each."
            )
        notes = {**self.metadata.notes, "guessed": ""}
        metadata = dataclasses.replace(self.metadata, classes=classes, notes=notes)
        return dataclasses.replace(self, metadata=metadata)

    def sha256(self) -> str:
        """Of the file's bytes, 64 digits. Raises ResiduaError if they are no longer what was read.

        A run that still trains writes its weights again and again.
        """
        with self.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if _stamp(self.path) != self.stamp:
            raise ResiduaError(
                f"{self.path}: has changed since it was read. Start again when nothing writes it."
            )
        return digest


def read_file(path: Path, model: str | None = None) -> Weights:
    """The weights of a file, recognised by content; `model` where that cannot tell the network.

    Raises ResiduaError, which names the first tensors that do not fit, if no network of the
    catalogue, or not `model`, has such weights; or if several have.
    """
    if model is not None:
        catalogue.row(model)
    stamp = _stamp(path)
    if is_native(path):
        tensors, metadata = read_weights(path)
        if model is not None and metadata.network.name != model:
            raise ResiduaError(f"{path}: holds weights of {metadata.network.name}, not of {model}.")
        has_head = not ends_before_head(path, tensors, metadata)
        return Weights(path, tensors, metadata, "residua safetensors", has_head, None, stamp)
    stored = read_stored(path)
    found = recognise(stored, model)
    network = NetworkSpec(
        found.row, found.classes or catalogue.row(found.row).classes, found.channels
    )
    habit = convention(found.row, found.classes, found.channels)
    preprocessing, assumed = habit.preprocessing, habit.assumed
    if stored.described is not None and stored.described.side:
        preprocessing = dataclasses.replace(preprocessing, size=stored.described.side)
    if stored.described is not None and stored.described.preparing:
        inside = ", ".join(stored.described.preparing)
        assumed += f"; its own layers {inside} are not read, so it may want other numbers"
    return Weights(
        path,
        dict(found.tensors),
        Metadata(
            network,
            habit.classes,
            preprocessing,
            {
                "from": f"{path.name}, {stored.form}",
                "assumed": assumed,
                "guessed": habit.guessed,
            },
        ),
        stored.form,
        not found.has_head,
        found,
        stamp,
    )


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is written; () where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def recognise(stored: Stored, model: str | None) -> Match:
    """The one network and the one way to read it. Raises ResiduaError.

    A user who names the network says thereby whose program made it, and so in which order.
    """
    readings = list(_readings(stored, model))
    fitting = [each for each in readings if not each.problems]
    if not readings:
        raise ResiduaError(_unknown(stored, model))
    if not fitting:
        nearest = min(readings, key=lambda each: len(each.problems))
        raise ResiduaError(_misfit(stored, nearest, model))
    rows = list(dict.fromkeys(each.row for each in fitting))
    if len(rows) > 1:
        raise ResiduaError(
            f"{stored.path}: its tensors fit {', '.join(rows)} alike: say which network it is with "
            "--model."
        )
    if len(fitting) > 1 and model is None:
        raise ResiduaError(
            f"{stored.path}: its automatic names can be read in {len(fitting)} ways as {rows[0]}, "
            "and the shapes do not tell which is right. --model "
            f"{rows[0]} reads it as the tutorial makes it: a unit's branch, then its shortcut."
        )
    return fitting[0]


def _readings(stored: Stored, model: str | None) -> Iterator[Match]:
    """Readings as each network that may have such weights, those of about its size first.

    Once one fits, its head too, only networks with as many parameters can fit too. A dialect is as
    good as another where a file has no names.
    """
    held = sum(each.numel() for layer in stored.layers.values() for each in layer.values())
    sizes = {name: row.trainable for name, row in catalogue.ROWS.items()}
    near = sorted(sizes, key=lambda name: abs(math.log(sizes[name] / max(held, 1))))
    dialects = KERAS_DIALECTS if stored.framework == "keras" else TORCH_DIALECTS
    fitting: set[int] = set()
    for name in near if model is None else [model]:
        far = not held / FAR < sizes[name] < held * FAR
        if model is None and (far or (fitting and sizes[name] not in fitting)):
            continue
        spoken = [
            each
            for each in dialects
            if _speaks(stored, each)
            and (each.knows(name) or (name == model and name in each.adopted))
        ]
        for dialect in spoken[:1] if stored.numbered_by_place else spoken:
            for found in match(stored, name, dialect):
                fitting |= set() if found.problems or not found.has_head else {sizes[name]}
                yield found


def _speaks(stored: Stored, dialect: Dialect) -> bool:
    if stored.numbered_by_place:  # its names say nothing but the class of a layer
        return True
    return any(re.match(dialect.sign, name) for name in stored.layers)


def _unknown(stored: Stored, model: str | None) -> str:
    names = list(stored.layers)
    wanted = f"as those of {model} are called" if model else "as in a network that is known here"
    return (
        f"{stored.path}: is {stored.form} of {len(names)} layers, which are not called {wanted}: "
        f"the first are {', '.join(names[:SHOWN])}."
    )


def _misfit(stored: Stored, nearest: Match, model: str | None) -> str:
    shown, more = nearest.problems[:SHOWN], len(nearest.problems) - SHOWN
    what = "does not fit" if model else "is no network of the catalogue; the nearest is"
    rest = f"; and {more} more" if more > 0 else ""
    return (
        f"{stored.path}: {what} {nearest.row} ({nearest.dialect.name}): {'; '.join(shown)}{rest}."
    )
