"""A built network and an input size -> its layer table, parameters, multiply-adds and size on disk.

All is read from the modules and one forward on "meta", where tensors have shapes and no memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks.analysis.shapes import REFUSALS, Shapes, on_meta, weightless
from residua.networks.zoo import catalogue

Size = tuple[int, int, int]  # C, H, W
LARGEST_SIDE = 1024  # smallest_input gives up there


@dataclass(frozen=True)
class Layer:
    """A row of the layer table.

    name: the module's name; an operation that is no module has its module's name and its own, as in
        stages.0.units.0.add. What runs again has #2 behind its name and no parameters of its own.
    kind: "Convolution 3x3/2, 32 groups", "Add", ... output: shape without the batch.
    parameters: weights and statistics. connected_to: the rows whose output it reads, in its order.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    connected_to: tuple[str, ...]
    multiply_adds: int


@dataclass(frozen=True)
class Stage:
    """The stem, one entry of `stages`, or the head: what follows the last stage, with the tail."""

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Counts:
    """The sums of a network.

    trainable: parameters that require gradients. non_trainable, in Keras' sense: frozen parameters
    and BatchNorm's running means and variances, its batch counter never. multiply_adds: of
    convolutions and linear layers, for one image. bytes_on_disk: about what safetensors writes.
    """

    total: int
    trainable: int
    non_trainable: int
    multiply_adds: int
    bytes_on_disk: int


@dataclass(frozen=True)
class Cost(Counts):
    """The sums, every layer in the order of execution, and the same by stage if it has `stages`."""

    layers: tuple[Layer, ...]
    stages: tuple[Stage, ...]


def costs_of(spec: NetworkSpec, size: int) -> Cost:
    """The costs of the network of a spec, for images of `size` x `size` pixels."""
    with on_meta():
        network = catalogue.build_from(spec)
    return measure(network, (spec.channels, size, size))


def measure(network: nn.Module, input: Size) -> Cost:
    """Follow one image of `input` = (C, H, W) through the network.

    The network may live on any device, in any mode; it is not changed, and nothing is computed.
    Raises ResiduaError where the network does not take such an image.
    """
    skeleton, image = weightless(network), torch.empty(1, *input, device="meta")
    recorder = _Recorder(skeleton, image)
    try:
        with torch.no_grad(), recorder:
            skeleton(image)
    except REFUSALS as error:
        raise ResiduaError(
            f"The network takes no image of {_by(input)} (channels, height, width): it needs "
            f"{_channels(network)} channels, {smallest_input(network)} or more pixels. {error}"
        ) from error
    counts, layers = _counts(network, recorder.multiply_adds), tuple(recorder.layers)
    return Cost(**vars(counts), layers=layers, stages=_stages(layers))


def smallest_input(network: nn.Module) -> int:
    """The smallest side of a square image that the network takes (in evaluation mode).

    Raises ResiduaError if there is none up to LARGEST_SIDE.
    """
    skeleton, channels = weightless(network), _channels(network)
    for side in range(1, LARGEST_SIDE + 1):  # no bisection: some networks take a single size
        with suppress(*REFUSALS), on_meta():
            skeleton(torch.empty(1, channels, side, side))
            return side
    raise ResiduaError(f"The network takes no square image of 1 to {LARGEST_SIDE} pixels a side.")


def listing() -> list[tuple[str, Size, Counts]]:
    """Name, input (C, H, W) and sums of every row of the catalogue at its defaults, in seconds."""
    rows = []
    for name, row in catalogue.ROWS.items():
        size = (row.channels, row.size, row.size)
        with on_meta() as shapes:
            network = catalogue.build(name).eval()
            network(torch.empty(1, *size))
        rows.append((name, size, _counts(network, shapes.multiply_adds)))
    return rows


def table(cost: Cost) -> str:
    """The table for a terminal: name and kind, output shape, parameters, connected to; the sums."""
    wide = max(len(each.name) for each in cost.layers)
    rows = [("layer", "output", "parameters", "connected to")]
    for each in cost.layers:
        shape = " x ".join(map(str, each.output))
        first, *more = each.connected_to or ("",)
        rows.append((f"{each.name:<{wide}}  {each.kind}", shape, f"{each.parameters:,}", first))
        rows.extend(("", "", "", name) for name in more)
    a, b, c, d = (max(map(len, column)) for column in zip(*rows, strict=True))
    head, *lines = [f"{w:<{a}}  {x:<{b}}  {y:>{c}}  {z}".rstrip() for w, x, y, z in rows]
    rule = "-" * (a + b + c + d + 6)
    sums = (
        f"Total parameters: {cost.total:,}",
        f"Trainable:        {cost.trainable:,}",
        f"Non-trainable:    {cost.non_trainable:,}",
        f"Multiply-adds:    {cost.multiply_adds:,} (convolutions and linear layers, one image)",
        f"Size on disk:     about {cost.bytes_on_disk / 1e6:,.1f} MB",
    )
    return "\n".join((head, rule, *lines, rule, *sums)) + "\n"


def to_json(name: str, counts: Counts, input: Size) -> dict[str, Any]:
    """What `residua models --json` prints of one network."""
    sums = ("total", "trainable", "non_trainable", "multiply_adds")
    return {"name": name, **{key: getattr(counts, key) for key in sums}, "input": list(input)}


class _Recorder(Shapes):
    """Writes the layer table of one forward.

    A module without children is a layer. What runs between layers is seen by the function mode: an
    operation on tensors outside of any layer is a row too. Each tensor has one maker, its row.
    """

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.makers: dict[int, str] = {}  # id of a tensor -> name of the row that made it
        self.kept: list[Tensor] = []  # an id is only unique while its tensor lives
        self.calls: Counter[str] = Counter()
        self.listed = 0  # multiply-adds of the rows so far
        self.running: list[tuple[str, bool]] = []  # modules now running: name, whether a layer
        self.add("input", "Input", (), image)
        for name, module in network.named_modules():
            passes = not name or isinstance(module, nn.Sequential | nn.Identity)
            transparent = passes or any(module.children())
            self._watch(name, module, not transparent)
            if transparent:
                for own, weight in module.named_parameters(name, recurse=False):
                    self.add(own, "Parameter", (), weight[None], weight.numel())
                    self.makers[id(weight)] = own

    def _watch(self, name: str, module: nn.Module, is_layer: bool) -> None:
        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if is_layer:
                if any(output is each for each in args) and not getattr(module, "inplace", False):
                    output = output.view_as(output)  # dropout at rest: a tensor of its own
                self.add(name, _kind(module), (args, kwargs), output, _size(module))
            self.running.pop()
            return output

        module.register_forward_pre_hook(lambda *_: self.running.append((name, is_layer)))
        module.register_forward_hook(leave, with_kwargs=True)

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = super().__torch_function__(call, types, args, kwargs)
        between_layers = self.running and not self.running[-1][1]
        if between_layers and any(id(each) in self.makers for each in _tensors((args, kwargs))):
            self.add(*_operation(self.running[-1][0], call, output), (args, kwargs), output)
        return output

    def add(self, name: str, kind: str, read: Any, output: Any, parameters: int = 0) -> None:
        """One more row, if there is an output (a question about a shape has none)."""
        if not (made := list(_tensors(output))):
            return
        readable = [id(each) for each in _tensors(read) if id(each) in self.makers]
        connected = tuple(dict.fromkeys(self.makers[each] for each in readable))
        self.calls[name] += 1
        if self.calls[name] > 1:
            name, parameters = f"{name}#{self.calls[name]}", 0
        work, self.listed = self.multiply_adds - self.listed, self.multiply_adds
        shape = tuple(made[0].shape[1:])
        self.layers.append(Layer(name, kind, shape, parameters, connected, work))
        self.makers.update((id(each), name) for each in made)
        self.kept += made


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each)


def _operation(module: str, call: Any, output: Any) -> tuple[str, str]:
    """Name and kind of the row of a function that ran in `module`."""
    word, more = str(call.__name__).strip("_"), ""
    if word == "adaptive_avg_pool2d":
        word, more = "average_pool", f" to {_by(output.shape[-2:])}"
    return f"{module}.{word}".lstrip("."), word.replace("_", " ").capitalize() + more


def _kind(module: nn.Module) -> str:
    """What a layer is and does: "Convolution 3x3/2, 32 groups"."""
    text = re.sub(r"[123]d$", "", type(module).__name__)
    text = "Convolution" if text == "Conv" else text.replace("Avg", "Average")
    text = re.sub(r"(?<=[a-z])[A-Z](?=[a-z]{2})", lambda found: f" {found[0].lower()}", text)
    if kernel := getattr(module, "kernel_size", getattr(module, "kernel", None)):
        text += f" {_by(kernel)}"
    if (stride := getattr(module, "stride", 1)) not in (1, (1,), (1, 1)):
        text += f"/{stride if isinstance(stride, int) else _by(dict.fromkeys(stride))}"
    if (groups := getattr(module, "groups", 1)) > 1:
        text += (
            ", depthwise" if groups == getattr(module, "in_channels", 0) else f", {groups} groups"
        )
    return text


def _by(sides: int | Iterable[int]) -> str:
    return "x".join(map(str, (sides, sides) if isinstance(sides, int) else sides))


def _size(module: nn.Module) -> int:
    statistics = (each for name, each in module.named_buffers() if "num_batches" not in name)
    return sum(each.numel() for each in chain(module.parameters(), statistics))


def _counts(network: nn.Module, multiply_adds: int) -> Counts:
    total, stored = _size(network), network.state_dict().values()
    trainable = sum(each.numel() for each in network.parameters() if each.requires_grad)
    size = sum(each.numel() * (4 if each.is_floating_point() else each.itemsize) for each in stored)
    return Counts(total, trainable, total - trainable, multiply_adds, size)


def _stages(layers: Sequence[Layer]) -> tuple[Stage, ...]:
    rows: dict[str, list[Layer]] = {}
    name = "stem"
    for each in layers[1:]:  # the first is the input
        found = re.match(r"stages\.\d+", each.name)
        name = found[0] if found else "stem" if name == "stem" else "head"
        rows.setdefault(name, []).append(each)
    return tuple(Stage(name, tuple(rows[name])) for name in rows if rows.keys() != {"stem"})


def _channels(network: nn.Module) -> int:
    return next((each.in_channels for each in network.modules() if isinstance(each, nn.Conv2d)), 3)
