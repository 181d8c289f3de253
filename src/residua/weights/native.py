"""Our own weights files: safetensors whose header says which network, classes and preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from residua.config import parse
from residua.config.schema import NetworkSpec, Preprocessing
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
KINDS = {  # what a header says of its network, and in which types
    "name": (str,),
    "classes": (int,),
    "channels": (int,),
    "ordering": (str, type(None)),
    "shortcut": (str, type(None)),
    "cardinality": (str, type(None)),
    "head": (str, type(None)),
    "stage": (int, type(None)),
    "pool_size": (int, type(None)),
}
LATER = ("cardinality", "head", "stage", "pool_size")  # which old files do not have


@dataclass(frozen=True)
class Metadata:
    """What a weights file says of itself, in its header: enough to use it without the run.

    classes: names in the order of the logits. notes: plain data
    of the writer, such as the epoch, or where a training stands.
    """

    network: NetworkSpec
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    notes: dict[str, Any]


def to_bytes(tensors: Mapping[str, Tensor], metadata: Metadata) -> bytes:
    """The content of a file: the tensors, and the card as JSON in the header."""
    from safetensors.torch import save

    described = {
        "format": FORMAT,
        "network": asdict(metadata.network),
        "classes": metadata.classes,
        "preprocessing": asdict(metadata.preprocessing),
        "notes": metadata.notes,
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


def read_weights(path: Path) -> tuple[dict[str, Tensor], Metadata]:
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
        metadata = json.loads(described)
        if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
            found = metadata.get("format") if isinstance(metadata, dict) else metadata
            raise ResiduaError(
                f"{path}: has format {plain(found)}, expected {FORMAT}: it was written by another "
                "version of residua. Read it with that version, or train again."
            )
        return {name: tensors[name] for name in header if name in tensors}, _metadata(
            path, metadata
        )


def ends_before_head(path: Path, tensors: Mapping[str, Tensor], metadata: Metadata) -> bool:
    """Whether these are the tensors of the card's network but for its head; False if all of them.

    Raises ResiduaError that names the first tensor that does not fit, or whose numbers cannot be
    used.
    """
    from residua.networks.analysis.shapes import on_meta
    from residua.networks.zoo.catalogue import build_from

    with translated(path, f"weights of {metadata.network.name}"):
        with on_meta():
            wanted = build_from(metadata.network).state_dict()
        weights = [name for name in wanted if not name.endswith("num_batches_tracked")]
        missing = [name for name in weights if name not in tensors]
        headless = bool(missing) and missing == [name for name in weights if name[:4] == "head"]
        if missing and not headless:
            raise damaged(path, f"lacks {missing[0]} of {metadata.network.name}")
        if extra := [name for name in tensors if name not in wanted]:
            raise damaged(path, f"holds {extra[0]}, for which {metadata.network.name} has no place")
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


def _metadata(path: Path, metadata: dict[str, Any]) -> Metadata:
    """The card, if every value is of the kind that its writer gave it. Raises ResiduaError."""
    from residua.networks.zoo.catalogue import config_of

    keys = ("network", "classes", "preprocessing", "notes")
    network, classes, prepared, notes = [metadata.get(key) for key in keys]
    if isinstance(network, dict):
        renamed = {"pool_size" if key == "side" else key: value for key, value in network.items()}
        network = dict.fromkeys(LATER) | renamed
    if not _is_network(network):
        raise damaged(path, f"says of its network {network!r}, expected {', '.join(KINDS)}")
    spec = NetworkSpec(**network)
    try:
        config_of(spec)
        if spec.head is not None:
            parse.hidden_of(spec.head)
    except ResiduaError as error:
        raise ResiduaError(f"{path}: {error} It may be of another version of residua.") from error
    outputs = spec.classes
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise damaged(path, f"names its classes {classes!r}, expected a list of names")
    if len(classes) > outputs:
        raise damaged(path, f"names {len(classes)} classes, expected those of {outputs} outputs")
    if not isinstance(prepared, dict) or not all(map(_is_word, prepared.values())):
        raise damaged(path, f"says of its preprocessing {prepared!r}, expected settings")
    if not isinstance(notes, dict):
        raise damaged(path, f"has notes {notes!r}, expected an object")
    preprocessing = parse.preprocessing_from(prepared, str(path))
    if preprocessing.channels != spec.channels:
        raise damaged(
            path,
            f"prepares images of {preprocessing.channels} channels for a network of "
            f"{spec.channels}",
        )
    return Metadata(spec, tuple(classes), preprocessing, notes)


def _is_network(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether these are arguments of `build`."""
    return (
        isinstance(value, dict)
        and value.keys() == KINDS.keys()
        and all(type(value[key]) in kinds for key, kinds in KINDS.items())
        and min(value["classes"], value["channels"]) >= 1
    )


def _is_word(value: object) -> bool:
    """False for texts that are no word: a setting's text is read as YAML, which can grow."""
    return not isinstance(value, str) or value.isidentifier()
