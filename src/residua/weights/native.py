"""Our own weights files: safetensors whose header says which network, classes and preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from residua.config import parse
from residua.config.schema import Preprocessing
from residua.errors import ResiduaError
from residua.weights.formats.raw import (
    FLOATS,
    damaged,
    first_bytes,
    flaw_of,
    is_safetensors,
    plain,
    safetensors_header,
    translated,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # of weights and state files
NETWORK = {  # what a card says of its network, and in which types
    "name": (str,),
    "classes": (int,),
    "channels": (int,),
    "ordering": (str, type(None)),
    "shortcut": (str, type(None)),
    "cardinality": (str, type(None)),
    "head": (str, type(None)),
    "stage": (int, type(None)),
    "side": (int, type(None)),
}
LATER: dict[str, Any] = dict.fromkeys(("cardinality", "head", "stage", "side"))  # not in old files


@dataclass(frozen=True)
class Card:
    """What a weights file says of itself, in its header: enough to use it without the run.

    network: the arguments of `build`. classes: names in the order of the logits. notes: plain data
    of the writer, such as the epoch, or where a training stands.
    """

    network: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    notes: dict[str, Any]


def to_bytes(tensors: Mapping[str, Tensor], card: Card) -> bytes:
    """The content of a file: the tensors, and the card as JSON in the header."""
    from safetensors.torch import save

    described = {
        "format": FORMAT,
        "network": card.network,
        "classes": card.classes,
        "preprocessing": asdict(card.preprocessing),
        "notes": card.notes,
    }
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return save(plain, {"residua": json.dumps(described, ensure_ascii=False)})


def is_native(path: Path) -> bool:
    """Whether a file is safetensors with a card of ours. Raises ResiduaError if it is no file."""
    start = first_bytes(path)
    if not is_safetensors(start):
        return False
    with path.open("rb") as stream:
        return b'"residua"' in stream.read(8 + int.from_bytes(start[:8], "little"))


def read_weights(path: Path) -> tuple[dict[str, Tensor], Card]:
    """Tensors and card of a file of ours. Raises ResiduaError that names the file."""
    from safetensors.torch import load

    first_bytes(path)
    with translated(path, "safetensors"):
        tensors = load(path.read_bytes())
        header = safetensors_header(path)
        described = header.get("__metadata__", {}).get("residua")
        if described is None:
            raise ResiduaError(
                f"{path}: was not written by residua: no description in it. Expected weights of a "
                "run, or what `residua weights convert` writes."
            )
        card = json.loads(described)
        if not isinstance(card, dict) or card.get("format") != FORMAT:
            found = card.get("format") if isinstance(card, dict) else card
            raise ResiduaError(
                f"{path}: has format {plain(found)}, expected {FORMAT}: it was written by another "
                "version of residua. Read it with that version, or train again."
            )
        return {name: tensors[name] for name in header if name in tensors}, _card(path, card)


def ends_before_head(path: Path, tensors: Mapping[str, Tensor], card: Card) -> bool:
    """Whether these are the tensors of the card's network but for its head; False if all of them.

    Raises ResiduaError that names the first tensor that does not fit, or whose numbers cannot be
    used.
    """
    from residua.networks.analysis.shapes import on_meta
    from residua.networks.zoo.catalogue import build

    with translated(path, f"weights of {card.network['name']}"):
        with on_meta():
            wanted = build(**card.network).state_dict()
        weights = [name for name in wanted if not name.endswith("num_batches_tracked")]
        missing = [name for name in weights if name not in tensors]
        headless = bool(missing) and missing == [name for name in weights if name[:4] == "head"]
        if missing and not headless:
            raise damaged(path, f"lacks {missing[0]} of {card.network['name']}")
        if extra := [name for name in tensors if name not in wanted]:
            raise damaged(path, f"holds {extra[0]}, for which {card.network['name']} has no place")
        for name in (each for each in wanted if each in tensors):
            found, expected = tensors[name], wanted[name]
            is_weight = expected.is_floating_point()
            kinds = FLOATS if is_weight else (_kind(expected),)
            if found.shape != expected.shape or _kind(found) not in kinds:
                has, needs = [f"{_kind(each)} {list(each.shape)}" for each in (found, expected)]
                raise damaged(path, f"{name} holds {has}, expected {needs}")
            if is_weight and (flaw := flaw_of(name, found)):
                raise ResiduaError(
                    f"{path}: {name} holds {flaw}, so it cannot tell anything. Use weights of an "
                    "earlier epoch, or train again with a lower rate."
                )
    return headless


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _card(path: Path, card: dict[str, Any]) -> Card:
    """The card, if every value is of the kind that its writer gave it. Raises ResiduaError."""
    from residua.networks.surgery.heads import hidden_of
    from residua.networks.zoo.catalogue import plan

    keys = ("network", "classes", "preprocessing", "notes")
    network, classes, prepared, notes = [card.get(key) for key in keys]
    if isinstance(network, dict):
        network = LATER | network
    if not _is_network(network):
        raise damaged(path, f"says of its network {network!r}, expected {', '.join(NETWORK)}")
    try:
        plan(**{key: network[key] for key in ("name", "ordering", "shortcut", "cardinality")})
        if network["head"] is not None:
            hidden_of(network["head"])
    except ResiduaError as error:
        raise ResiduaError(f"{path}: {error} It may be of another version of residua.") from error
    outputs = network["classes"]
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise damaged(path, f"names its classes {classes!r}, expected a list of names")
    if len(classes) > outputs:
        raise damaged(path, f"names {len(classes)} classes, expected those of {outputs} outputs")
    if not isinstance(prepared, dict) or not all(map(_is_word, prepared.values())):
        raise damaged(path, f"says of its preprocessing {prepared!r}, expected settings")
    if not isinstance(notes, dict):
        raise damaged(path, f"has notes {notes!r}, expected an object")
    preprocessing = parse.preprocessing_from(prepared, str(path))
    if preprocessing.channels != network["channels"]:
        raise damaged(
            path,
            f"prepares pictures of {preprocessing.channels} channels for a network of "
            f"{network['channels']}",
        )
    return Card(network, tuple(classes), preprocessing, notes)


def _is_network(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether these are arguments of `build`."""
    return (
        isinstance(value, dict)
        and value.keys() == NETWORK.keys()
        and all(type(value[key]) in kinds for key, kinds in NETWORK.items())
        and min(value["classes"], value["channels"]) >= 1
    )


def _is_word(value: object) -> bool:
    """False for texts that are no word: a setting's text is read as YAML, which can grow."""
    return not isinstance(value, str) or value.isidentifier()
