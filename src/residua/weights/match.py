"""Stored layers and a network -> its state dict, checked tensor by tensor; or why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from residua.networks.analysis.shapes import on_meta
from residua.networks.zoo.catalogue import build
from residua.weights.formats.raw import Stored, flaw_of
from residua.weights.key_maps.dialect import Dialect
from residua.weights.key_maps.layers import Place, from_keras, head_layers, places, tensors_of
from residua.weights.key_maps.order import keras_order

Names = Mapping[str, tuple[str, ...]]  # our layer -> the stored ones that are its parts


@dataclass(frozen=True, eq=False)
class Match:
    """How a file's layers fit a network of the catalogue.

    tensors: the state dict that came out. problems: sentences about what does not fit, in the
    order of the network; none if all does. has_head: False where the file ends
    before the head (include_top=False). beside: the dense layers that it has instead,
    of a transfer model. names: our layer -> its places in the file.
    """

    row: str
    dialect: Dialect
    classes: int
    channels: int
    tensors: Mapping[str, Tensor]
    problems: tuple[str, ...]
    has_head: bool
    beside: tuple[str, ...]
    names: Names


def match(stored: Stored, row: str, dialect: Dialect) -> list[Match]:
    """The distinct readings of a file as this network in this dialect, those that fit first.

    More than one reading fits only where automatic names leave an order open that the shapes do not
    tell. The width of head and stem are the file's.
    """
    with on_meta():
        network = build(row)
    readings = [
        _fit(stored, network, row, dialect, names) for names in _namings(stored, network, dialect)
    ]
    fitting: list[Match] = []
    for each in readings:
        if not each.problems and all(dict(each.names) != dict(other.names) for other in fitting):
            fitting.append(each)
    return fitting or sorted(readings, key=lambda each: len(each.problems))[:1]


def _namings(stored: Stored, network: nn.Module, dialect: Dialect) -> Iterator[Names]:
    """Every reading of the names, one if names carry meaning."""
    found = places(network, separable=stored.framework == "keras")
    if stored.framework == "pytorch":
        yield {each: (name,) for each, name in dialect.names(network, found).items()}
        return
    if stored.numbered_by_place:
        found = dialect.as_there(found)
        for shortcut_first in (True, False):
            ordered = keras_order(network, found, shortcut_first)
            yield _by_order(stored, found, {}, ordered)
        return
    named = dialect.names(network, found)
    automatic = [each for each in found if each.name not in named]
    for ordered in _creation_orders(automatic):
        yield _by_order(stored, found, named, ordered)


def _creation_orders(found: Sequence[Place]) -> Iterator[list[Place]]:
    """In which order a Keras program may have made these layers: by where it makes shortcuts.

    As registered, a unit's shortcut comes behind its branch; many programs begin with it, some make
    its convolution before the branch's last one.
    """
    yield list(found)
    if any(".shortcut." in each.name for each in found):
        yield _with_shortcuts_before(min, found)
        yield _with_shortcuts_before(max, found)


def _with_shortcuts_before(pick: Callable[..., int], found: Sequence[Place]) -> list[Place]:
    """Each layer of a shortcut before the first (min) or last (max) of its kind in the branch."""
    result: list[Place] = []
    for place in found:
        unit, is_shortcut, _ = place.name.partition(".shortcut.")
        branch = (
            number
            for number, each in enumerate(result)
            if each.kind == place.kind and each.name.startswith(f"{unit}.branch.")
        )
        result.insert(pick(branch, default=len(result)) if is_shortcut else len(result), place)
    return result


def _by_order(
    stored: Stored, found: Sequence[Place], named: Mapping[str, str], ordered: Sequence[Place]
) -> Names:
    """Names that carry meaning as they are; the others by class and number."""
    names: dict[str, tuple[str, ...]] = {
        each.name: (named[each.name],) for each in found if each.name in named
    }
    waiting = {kind: numbered(stored.layers, kind) for kind in {each.kind for each in ordered}}
    for each in ordered:
        left = waiting[each.kind]
        count = _slices(each, stored, left)
        names[each.name] = tuple(left[:count])
        del left[:count]
    return names


def _slices(place: Place, stored: Stored, waiting: Sequence[str]) -> int:
    """How many stored layers make one of ours: a grouped convolution may lie in slices."""
    groups = getattr(place.module, "groups", 1)
    if place.kind != "conv2d" or groups == 1 or not waiting:
        return 1
    kernel = next(iter(stored.layers[waiting[0]].values()))
    outputs: int = place.module.out_channels  # type: ignore[assignment]
    return groups if kernel.ndim == 4 and kernel.shape[-1] * groups == outputs else 1


AUTOMATIC = {
    "conv2d": ("conv2d", "convolution2d"),
    "depthwise_conv2d": ("depthwise_conv2d",),
    "separable_conv2d": ("separable_conv2d", "separableconvolution2d"),
    "batch_normalization": ("batch_normalization", "batchnormalization"),
    "dense": ("dense",),
}


def numbered(names: Iterable[str], kind: str) -> list[str]:
    """Names that Keras gave by itself to layers of a kind, in the order of their numbers."""
    pattern = re.compile(rf"(?:{'|'.join(AUTOMATIC[kind])})(?:_(\d+))?")
    found = [(int(hit[1] or 0), name) for name in names if (hit := pattern.fullmatch(name))]
    return [name for _, name in sorted(found)]


def _fit(stored: Stored, network: nn.Module, row: str, dialect: Dialect, names: Names) -> Match:
    found = places(network, separable=stored.framework == "keras")
    first, last = found[0].name, head_layers(network)
    top = [each.name for each in found if re.match(r"head\b", each.name)]
    has_head = any(name in stored.layers for each in top for name in names.get(each, ()))
    tensors: dict[str, Tensor] = {}
    problems: list[str] = []
    classes = channels = 0
    for place in found:
        if not has_head and place.name in top:
            continue
        try:
            parts = _parts(stored, place, names.get(place.name, ()))
        except _MisfitError as error:
            problems.append(f"{place.name} {error}")
            continue
        expected = {name: tuple(each.shape) for name, each in tensors_of(place).items()}
        if place.name in last:
            first_part = next(iter(parts.values()))
            classes = len(first_part) if first_part.ndim else 0
            expected = {name: (classes, *shape[1:]) for name, shape in expected.items()}
        if place.name == first and "weight" in parts and parts["weight"].ndim == 4:
            channels = parts["weight"].shape[1]
            outputs, _, *sides = expected["weight"]
            expected["weight"] = (outputs, channels, *sides)
        problems += _differences(place.name, names[place.name], parts, expected)
        problems += _otherwise(stored, place, names[place.name])
        tensors |= {f"{place.name}.{name}": each for name, each in parts.items()}
    used = {name for each in names.values() for name in each}
    extra = [each for each in stored.layers if each not in used and not dialect.spares(each)]
    beside = tuple(each for each in extra if not has_head and _is_dense(stored.layers[each]))
    problems += [
        f"{each} of the file has no place in the network" for each in extra if each not in beside
    ]
    if stored.described and has_head:
        problems += stored.described.strange()
    return Match(row, dialect, classes, channels, tensors, tuple(problems), has_head, beside, names)


def _otherwise(stored: Stored, place: Place, names: Sequence[str]) -> Iterator[str]:
    """How a layer of a whole model computes otherwise with the same weights."""
    if stored.described is None:
        return
    epsilon = getattr(place.module, "eps", None)
    stride = place.module.stride[0] if isinstance(place.module, nn.Conv2d) else None
    for name in names:
        for each in stored.described.wrong(name, epsilon, stride):
            yield f"{place.name} ({name}): its {each}"


def _is_dense(parts: Mapping[str, Tensor]) -> bool:
    return next(iter(parts.values())).ndim == 2


class _MisfitError(Exception):
    """Why a stored layer does not become ours."""


def _parts(stored: Stored, place: Place, names: Sequence[str]) -> dict[str, Tensor]:
    """One layer's tensors under our names. Raises _MisfitError."""
    missing = [name for name in names if name not in stored.layers]
    if missing or not names:
        raise _MisfitError(f"({missing[0] if missing else place.kind}) is missing in the file")
    layers = [stored.layers[name] for name in names]
    if stored.framework == "pytorch":
        return dict(layers[0])
    parts = dict(layers[0])
    try:
        if len(layers) > 1:
            parts = {"0": torch.cat([next(iter(each.values())) for each in layers], dim=-1)}
        return from_keras(place, parts)
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(_by(each.shape) for each in parts.values())
        raise _MisfitError(f"({names[0]}) holds tensors of {shapes}, as no {place.kind}") from error


def _differences(
    ours: str,
    theirs: Sequence[str],
    parts: dict[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
) -> Iterator[str]:
    """What does not fit; a convolution over a whole map becomes the linear layer that it is."""
    where = f"{ours} ({theirs[0]})"
    for name, shape in expected.items():
        if name not in parts:
            yield f"{where}: {name} is missing in the file"
            continue
        found = parts[name]
        if found.ndim == 4 and len(shape) == 2 and found.flatten(1).shape == shape:
            parts[name] = found = found.flatten(1)
        if tuple(found.shape) != shape:
            yield f"{where}: {name} is {_by(found.shape)}, expected {_by(shape)}"
        elif not found.is_floating_point():
            kind = str(found.dtype).removeprefix("torch.")
            yield f"{where}: {name} holds {kind}, expected floating-point numbers"
        elif flaw := flaw_of(name, found):
            yield f"{where}: {name} holds {flaw}"
    for name in parts.keys() - expected.keys():
        counts = name == "num_batches_tracked" and "running_mean" in expected
        if not counts or parts[name].ndim or parts[name].is_floating_point():
            yield f"{where}: {name} of the file has no place in the network"


def _by(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
