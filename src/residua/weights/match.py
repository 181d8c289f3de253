"""Raw layers and a network -> its state dict, checked tensor by tensor; or why they do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from residua.networks.analysis.shapes import on_meta
from residua.networks.zoo.catalogue import build
from residua.weights.formats.raw import RawWeights, by, dtype_name, numeric_flaw
from residua.weights.key_maps.key_map import KeyMap
from residua.weights.key_maps.layers import (
    WeightLayer,
    from_keras,
    head_layers,
    keras_order,
    tensors_of,
    weight_layers,
)
from residua.weights.own_heads import OWN_HEAD, own_head, unusable_outputs

Names = Mapping[str, tuple[str, ...]]  # our layer -> the stored layers that make it up
AUTOMATIC = {  # kind -> Keras' automatic names of such layers, without their number
    "conv2d": ("conv2d", "convolution2d"),
    "depthwise_conv2d": ("depthwise_conv2d",),
    "separable_conv2d": ("separable_conv2d", "separableconvolution2d"),
    "batch_normalization": ("batch_normalization", "batchnormalization"),
    "dense": ("dense",),
}


@dataclass(frozen=True, eq=False)
class Match:
    """How the layers of a file fit a network of the catalogue.

    network: its name. classes, channels: widths of head and stem, as in the file.
    tensors: the resulting state dict.
    problems: a sentence for everything that does not fit, in the network's order; () if all fits.
    has_head: False where the file ends before the head (include_top=False), which is no problem.
    other_head: the dense layers that such a file has instead and that are not read.
    unusable_head: why the head that a file has does not classify, as a predicate; "" if it does.
    head: the head of a transfer model in place of the network's own, as in NetworkSpec.
    own_head: how it is read, in a sentence.
    names: our layer -> its layers in the file.
    """

    network: str
    key_map: KeyMap
    classes: int
    channels: int
    tensors: Mapping[str, Tensor]
    problems: tuple[str, ...]
    has_head: bool
    other_head: tuple[str, ...]
    names: Names
    unusable_head: str = ""
    head: str | None = None
    own_head: str = ""


def match(raw: RawWeights, name: str, key_map: KeyMap) -> list[Match]:
    """The distinct readings of a file as the network `name` that fit; if none does, the nearest.

    Several fit only where automatic names leave an order open that the shapes do not settle.
    """
    with on_meta():
        network = build(name)
    readings = [
        _fit(raw, network, name, key_map, names) for names in _readings(raw, network, key_map)
    ]
    fitting: list[Match] = []
    for reading in readings:
        if not reading.problems and all(reading.names != other.names for other in fitting):
            fitting.append(reading)
    return fitting or sorted(readings, key=lambda reading: len(reading.problems))[:1]


def _readings(raw: RawWeights, network: nn.Module, key_map: KeyMap) -> Iterator[Names]:
    """Every possible assignment of stored layers; one if their names are known."""
    layers = weight_layers(network, separable=raw.framework == "keras")
    if raw.framework == "pytorch":
        yield {ours: (name,) for ours, name in key_map.names(network, layers).items()}
    elif raw.names_are_positions:
        layers = key_map.as_stored(layers)
        for shortcut_first in (True, False):
            yield _assign(raw, layers, {}, keras_order(network, layers, shortcut_first))
    else:
        names = key_map.names(network, layers)
        for ordered in _creation_orders([layer for layer in layers if layer.name not in names]):
            yield _assign(raw, layers, names, ordered)


def _creation_orders(layers: Sequence[WeightLayer]) -> Iterator[list[WeightLayer]]:
    """The orders in which Keras programs create these layers, which differ in the shortcuts.

    We register a unit's shortcut after its branch; many programs begin with it, some create its
    convolution before the branch's last one.
    """
    yield list(layers)
    if any(".shortcut." in layer.name for layer in layers):
        yield _with_shortcuts_before(min, layers)
        yield _with_shortcuts_before(max, layers)


def _with_shortcuts_before(
    pick: Callable[..., int], layers: Sequence[WeightLayer]
) -> list[WeightLayer]:
    """Each shortcut layer moved before the first (min) or last (max) of its kind in the branch."""
    ordered: list[WeightLayer] = []
    for layer in layers:
        unit, is_shortcut, _ = layer.name.partition(".shortcut.")
        branch = (
            index
            for index, other in enumerate(ordered)
            if other.kind == layer.kind and other.name.startswith(f"{unit}.branch.")
        )
        end = len(ordered)
        ordered.insert(pick(branch, default=end) if is_shortcut else end, layer)
    return ordered


def _assign(
    raw: RawWeights,
    layers: Sequence[WeightLayer],
    known: Mapping[str, str],
    ordered: Sequence[WeightLayer],
) -> Names:
    """Layers with known names to these; the `ordered` ones to automatic names, by number."""
    names: dict[str, tuple[str, ...]] = {
        layer.name: (known[layer.name],) for layer in layers if layer.name in known
    }
    waiting = {kind: numbered(raw.layers, kind) for kind in {layer.kind for layer in ordered}}
    for layer in ordered:
        candidates = waiting[layer.kind]
        count = _slices(layer, raw, candidates)
        names[layer.name] = tuple(candidates[:count])
        del candidates[:count]
    return names


def _slices(layer: WeightLayer, raw: RawWeights, candidates: Sequence[str]) -> int:
    """How many stored layers make up this one: a grouped convolution may be stored in slices."""
    groups = getattr(layer.module, "groups", 1)
    if layer.kind != "conv2d" or groups == 1 or not candidates:
        return 1
    kernel = next(iter(raw.layers[candidates[0]].values()))
    outputs: int = layer.module.out_channels  # type: ignore[assignment]
    return groups if kernel.ndim == 4 and kernel.shape[-1] * groups == outputs else 1


def numbered(names: Iterable[str], kind: str) -> list[str]:
    """The automatic names of layers of a kind, in the order of their numbers."""
    pattern = re.compile(rf"(?:{'|'.join(AUTOMATIC[kind])})(?:_(\d+))?")
    matches = [(int(hit[1] or 0), name) for name in names if (hit := pattern.fullmatch(name))]
    return [name for _, name in sorted(matches)]


def _fit(raw: RawWeights, network: nn.Module, name: str, key_map: KeyMap, names: Names) -> Match:
    layers = weight_layers(network, separable=raw.framework == "keras")
    class_wide = head_layers(network)
    head = [layer.name for layer in layers if re.match(r"head\b", layer.name)]
    has_head = any(stored in raw.layers for ours in head for stored in names.get(ours, ()))
    tensors: dict[str, Tensor] = {}
    problems: list[str] = []
    classes = channels = 0
    for layer in layers:
        if not has_head and layer.name in head:
            continue
        try:
            parts = _parts(raw, layer, names.get(layer.name, ()))
        except _MisfitError as error:
            problems.append(f"{layer.name} {error}")
            continue
        expected = {part: tuple(tensor.shape) for part, tensor in tensors_of(layer).items()}
        if layer.name in class_wide:  # as many classes as the file has
            first = next(iter(parts.values()))
            classes = len(first) if first.ndim else 0
            expected = {part: (classes, *shape[1:]) for part, shape in expected.items()}
        if layer is layers[0] and "weight" in parts and parts["weight"].ndim == 4:
            channels = parts["weight"].shape[1]
            outputs, _, *sides = expected["weight"]
            expected["weight"] = (outputs, channels, *sides)
        problems += _differences(f"{layer.name} ({names[layer.name][0]})", parts, expected)
        problems += _other_settings(raw, layer, names[layer.name])
        tensors |= {f"{layer.name}.{part}": tensor for part, tensor in parts.items()}
    used = {stored for group in names.values() for stored in group}
    extra = [stored for stored in raw.layers if stored not in used and not key_map.ignores(stored)]
    other_head = () if has_head else tuple(stored for stored in extra if _is_dense(raw, stored))
    problems += [
        f"{stored} of the file has no counterpart in the network"
        for stored in extra
        if stored not in other_head
    ]
    new_head, read_as, unusable = None, "", ""
    if other_head and not problems and (own := own_head(raw, name, other_head)) is not None:
        new_head, head_tensors = own
        tensors |= head_tensors
        classes, has_head, other_head = len(list(head_tensors.values())[-1]), True, ()
        read_as = OWN_HEAD
    if raw.config and has_head:
        if not read_as:
            problems += raw.config.unsupported()
        unusable = unusable_outputs(raw.config.final_activation, classes)
    if unusable:
        has_head = False
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("head")}
    return Match(
        network=name,
        key_map=key_map,
        classes=classes,
        channels=channels,
        tensors=tensors,
        problems=tuple(problems),
        has_head=has_head,
        other_head=other_head,
        names=names,
        unusable_head=unusable,
        head=new_head,
        own_head=read_as,
    )


def _other_settings(raw: RawWeights, layer: WeightLayer, names: Sequence[str]) -> Iterator[str]:
    """Settings in a whole model with which the same weights compute something else."""
    if raw.config is None:
        return
    epsilon = getattr(layer.module, "eps", None)
    stride = layer.module.stride[0] if isinstance(layer.module, nn.Conv2d) else None
    for name in names:
        for mismatch in raw.config.mismatches(name, epsilon, stride):
            yield f"{layer.name} ({name}): its {mismatch}"


def _is_dense(raw: RawWeights, name: str) -> bool:
    return next(iter(raw.layers[name].values())).ndim == 2


class _MisfitError(Exception):
    """Why a stored layer does not become ours."""


def _parts(raw: RawWeights, layer: WeightLayer, names: Sequence[str]) -> dict[str, Tensor]:
    """A layer's stored tensors as our state dict of it. Raises _MisfitError."""
    missing = [name for name in names if name not in raw.layers]
    if missing or not names:
        raise _MisfitError(f"({missing[0] if missing else layer.kind}) is missing in the file")
    stored = [raw.layers[name] for name in names]
    parts = dict(stored[0])
    if raw.framework == "pytorch":
        return parts
    try:
        if len(stored) > 1:
            kernels = [next(iter(part.values())) for part in stored]
            parts = {"0": torch.cat(kernels, dim=-1)}
        return from_keras(layer, parts)
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(by(tensor.shape) for tensor in parts.values())
        problem = f"has tensors of {shapes}, which fit no {layer.kind}"
        raise _MisfitError(f"({names[0]}) {problem}") from error


def _differences(
    where: str, parts: dict[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """Every misfit; a convolution over a whole map becomes the linear layer that it is."""
    for name, shape in expected.items():
        if name not in parts:
            yield f"{where}: {name} is missing in the file"
            continue
        tensor = parts[name]
        if tensor.ndim == 4 and len(shape) == 2 and tensor.flatten(1).shape == shape:
            parts[name] = tensor = tensor.flatten(1)
        if tuple(tensor.shape) != shape:
            yield f"{where}: {name} is {by(tensor.shape)}, expected {by(shape)}"
        elif not tensor.is_floating_point():
            yield f"{where}: {name} is {dtype_name(tensor)}, expected floating-point numbers"
        elif flaw := numeric_flaw(name, tensor):
            yield f"{where}: {name} contains {flaw}"
    for name in parts.keys() - expected.keys():
        is_counter = name == "num_batches_tracked" and "running_mean" in expected
        if not is_counter or parts[name].ndim or parts[name].is_floating_point():
            yield f"{where}: {name} of the file has no counterpart in the network"
