"""The weights of two networks -> those of both side by side, as a file in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from residua.config.schema import JOINER, NetworkSpec
from residua.errors import ResiduaError, UsageError
from residua.networks.own import is_own
from residua.networks.side_by_side import FIRST, SCALE, SECOND, SHIFT
from residua.networks.zoo.catalogue import outline_of
from residua.runs.provenance import TRAINED_IN, runs_of
from residua.system.files import cache_folder, is_there, sha256_of, write_atomically
from residua.system.words import counted
from residua.weights.exported import is_exported
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata, Origin, is_native, read_weights, to_bytes

OPTIONS = ("ordering", "shortcut", "cardinality")  # that the name of a network leaves open


def check_parts(sources: Sequence[str]) -> None:
    """Raise UsageError unless these are two different sources."""
    if len(sources) != 2 or "" in sources or sources[0] == sources[1]:
        raise UsageError(
            f"--weights {JOINER.join(sources)}: joins {', '.join(map(repr, sources))}. Expected "
            "two different sources, A+B, each a run, a weights file or imagenet:NAME."
        )


def check_file(source: str, file: Path) -> None:
    """Raise ResiduaError if the file of a source has no layers that residua knows."""
    kind = ""
    if is_exported(file):
        kind = "is an exported file, which has no layers"
    elif is_native(file) and is_own(name := read_weights(file)[1].network.name):
        kind = f"is of {name}, a network of your own"
    if kind:
        raise ResiduaError(
            f"{source}: {kind}, so it cannot be joined with another. Expected a run, a weights "
            "file or imagenet:NAME, of the networks that `residua models` lists."
        )


def joined(sources: Sequence[str], parts: Sequence[Weights]) -> Weights:
    """Two weights side by side, without a head; images are prepared as for the first.

    The file has the name of its content, so it is written once. Origin and runs are not in it: the
    same weights in another place make the same file. Raises ResiduaError if they do not fit.
    """
    for source, weights in zip(sources, parts, strict=True):
        _check_part(JOINER.join(sources), source, weights)
    _check_inputs(sources, parts)
    content = _content(parts)
    digest = hashlib.sha256(content).hexdigest()
    path = cache_folder() / "joined" / f"{digest[:32]}.safetensors"
    if not is_there(path) or sha256_of(path) != digest:
        write_atomically(path, content, "RESIDUA_CACHE names the folder of the cache.")
    weights = read_file(path)
    runs = [str(run.path.resolve()) for part in parts for run in runs_of(part)]
    metadata = dataclasses.replace(
        weights.metadata, origin=_origin(parts), notes={TRAINED_IN: runs} if runs else {}
    )
    return dataclasses.replace(weights, metadata=metadata)


def _check_part(pair: str, source: str, weights: Weights) -> None:
    """Raise ResiduaError unless the weights are of a whole network as in the catalogue."""
    spec = weights.metadata.network
    reason = ""
    if JOINER in spec.name:
        reason = f"is of {spec.name}, which is two networks already"
    elif options := [f"{key} {getattr(spec, key)}" for key in OPTIONS if getattr(spec, key)]:
        reason = f"is of {spec.name} with {', '.join(options)}"
    elif spec.stage is not None:
        count = len(outline_of(NetworkSpec(spec.name, spec.classes, spec.channels)).stages)
        if spec.stage < count:
            reason = f"ends after stage {spec.stage} of the {count} of {spec.name}"
    if reason:
        raise ResiduaError(
            f"{pair}: cannot be joined: {source} {reason}. Expected two whole networks of those "
            "that `residua models` lists."
        )


def _check_inputs(sources: Sequence[str], parts: Sequence[Weights]) -> None:
    """Raise ResiduaError unless both read images of the same channels in the same order."""
    first, second = (part.metadata.preprocessing for part in parts)
    for one, other in (
        [f"with {counted(rule.channels, 'channel')}" for rule in (first, second)],
        [f"in {rule.channel_order} order" for rule in (first, second)],
    ):
        if one != other:
            raise ResiduaError(
                f"{JOINER.join(sources)}: cannot be joined: {sources[0]} reads images {one}, "
                f"{sources[1]} {other}."
            )


def _content(parts: Sequence[Weights]) -> bytes:
    """The file of both, under the prefixes of the network's only stage."""
    first, second = (part.metadata for part in parts)
    tensors = {
        f"{prefix}{name}": tensor
        for prefix, part in zip((FIRST, SECOND), parts, strict=True)
        for name, tensor in part.tensors.items()
        if not name.startswith("head.")
    }
    rule, other = first.preprocessing, second.preprocessing
    std, mean = torch.tensor(rule.std), torch.tensor(rule.mean)
    other_std, other_mean = torch.tensor(other.std), torch.tensor(other.mean)
    tensors[SCALE] = (std / other_std)[:, None, None]
    tensors[SHIFT] = ((mean - other_mean) / other_std)[:, None, None]
    name = JOINER.join((first.network.name, second.network.name))
    spec = NetworkSpec(name, first.network.classes, first.network.channels)
    return to_bytes(tensors, Metadata(spec, (), rule, {}))


def _origin(parts: Sequence[Weights]) -> Origin:
    """Where both come from, and what neither file records."""
    origins = [part.metadata.origin for part in parts]
    assumed = [
        f"{part.path.name}: {part.assumed_preprocessing}"
        for part in parts
        if part.assumed_preprocessing
    ]
    sources = [origin.source or str(part.path) for origin, part in zip(origins, parts, strict=True)]
    return Origin("; ".join(sources), "; ".join(assumed))
