"""A built network and an input size -> its layer table, parameters, multiply-adds, bytes on disk.

Everything is read from the modules and from one forward on the "meta" device.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks.analysis.shapes import REFUSALS, Shapes, on_meta, weightless
from residua.networks.own import Whole
from residua.networks.zoo import catalogue

Size = tuple[int, int, int]  # C, H, W
LARGEST_SIDE = 1024  # smallest_input tries sides up to this


@dataclass(frozen=True)
class Layer:
    """A row of the layer table.

    name: the module's name. An operation that is no module has the name of the module that runs it
        and its own (stages.0.units.0.add). A second call has #2 behind its name, no parameters.
    kind: "Convolution 3x3/2, 32 groups", "Add", ...
    output: shape without the batch.
    parameters: number of weights and BatchNorm statistics.
    connected_to: names of the rows whose outputs it reads, in the order of its arguments.
    multiply_adds: for one image.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    connected_to: tuple[str, ...]
    multiply_adds: int


@dataclass(frozen=True)
class Stage:
    """The layers of the stem, of one entry of `stages`, or of tail and head ("head")."""

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Counts:
    """The totals of a network.

    parameters: as PyTorch counts them.
    trainable: parameters that require gradients.
    buffers: BatchNorm's running means and variances, not its batch counter.
    multiply_adds: of convolutions and linear layers, for one image.
    bytes_on_disk: the tensors of a safetensors file, without its header.
    """

    parameters: int
    trainable: int
    buffers: int
    multiply_adds: int
    bytes_on_disk: int

    @property
    def total(self) -> int:
        """Parameters and buffers, as Keras counts."""
        return self.parameters + self.buffers

    @property
    def non_trainable(self) -> int:
        """Frozen parameters and buffers, as Keras counts."""
        return self.total - self.trainable


@dataclass(frozen=True)
class Cost(Counts):
    """The totals, the layers in order of execution, and the layers by stage.

    stages: empty if the network has no module `stages`.
    """

    layers: tuple[Layer, ...]
    stages: tuple[Stage, ...]


@lru_cache(maxsize=32)
def costs_of(spec: NetworkSpec, size: int) -> Cost:
    """The cost of a spec's network for images of `size` x `size` pixels."""
    return measure(catalogue.outline_of(spec), (spec.channels, size, size))


def measure(network: nn.Module, input: Size) -> Cost:
    """The cost for one image of `input` = (C, H, W).

    The network may be on any device and in any mode; it is not changed. Raises ResiduaError if the
    network does not accept such an image.
    """
    if isinstance(network, Whole):
        return _whole_cost(network, input)
    skeleton, image = weightless(network), torch.empty(1, *input, device="meta")
    recorder = _Recorder(skeleton, image)
    try:
        with torch.no_grad(), recorder:
            skeleton(image)
    except REFUSALS as error:
        raise ResiduaError(
            f"The network accepts no image of {_by(input)} (channels, height, width): it needs "
            f"{_channels(network)} channels, {smallest_input(network)} or more pixels. {error}"
        ) from error
    counts, layers = _counts(network, recorder.multiply_adds), tuple(recorder.layers)
    return Cost(**vars(counts), layers=layers, stages=_stages(layers))


def _whole_cost(network: Whole, input: Size) -> Cost:
    """The cost of a network of the user's own: no layers, and 0 multiply-adds where its code cannot
    run without values."""
    multiply_adds = 0
    with suppress(Exception), on_meta() as shapes:
        weightless(network)(torch.empty(1, *input))
        multiply_adds = shapes.multiply_adds
    return Cost(**vars(_counts(network, multiply_adds)), layers=(), stages=())


def smallest_input(network: nn.Module) -> int:
    """The smallest side of a square image that the network accepts in evaluation mode.

    Raises ResiduaError if there is none up to LARGEST_SIDE.
    """
    skeleton, channels = weightless(network), _channels(network)
    for side in range(1, LARGEST_SIDE + 1):  # no bisection: some networks accept a single size
        with suppress(*REFUSALS), on_meta():
            skeleton(torch.empty(1, channels, side, side))
            return side
    raise ResiduaError(f"The network accepts no square image of 1 to {LARGEST_SIDE} pixels.")


def listing() -> Iterator[tuple[str, Size, Counts]]:
    """Name, input (C, H, W) and totals of every row of the catalogue at its defaults, one
    at a time: each takes about 50 ms."""
    for name, row in catalogue.ROWS.items():
        size = (row.channels, row.size, row.size)
        with on_meta() as shapes:
            network = catalogue.build(name).eval()
            network(torch.empty(1, *size))
        yield name, size, _counts(network, shapes.multiply_adds)


def layer_table(cost: Cost) -> str:
    """The layers (name and kind, output shape, parameters, connections) and the totals as text."""
    longest = max(len(layer.name) for layer in cost.layers)
    rows = [("layer", "output", "params + buffers", "connected to")]
    for layer in cost.layers:
        shape = " x ".join(map(str, layer.output))
        first, *more = layer.connected_to or ("",)
        name = f"{layer.name:<{longest}}  {layer.kind}"
        rows.append((name, shape, f"{layer.parameters:,}", first))
        rows.extend(("", "", "", name) for name in more)
    a, b, c, d = (max(map(len, column)) for column in zip(*rows, strict=True))
    head, *lines = [f"{w:<{a}}  {x:<{b}}  {y:>{c}}  {z}".rstrip() for w, x, y, z in rows]
    rule = "-" * (a + b + c + d + 6)
    totals = (
        f"Parameters:       {cost.parameters:,} ({cost.trainable:,} trainable)",
        f"Buffers:          {cost.buffers:,} (statistics of BatchNorm)",
        f"Multiply-adds:    {cost.multiply_adds:,} (convolutions and linear layers, one image)",
        f"Size on disk:     about {cost.bytes_on_disk / 1e6:,.1f} MB",
    )
    return "\n".join((head, rule, *lines, rule, *totals)) + "\n"


def to_json(name: str, counts: Counts, input: Size) -> dict[str, Any]:
    """A network's object in `residua models --json`."""
    keys = ("parameters", "buffers", "total", "trainable", "non_trainable", "multiply_adds")
    return {"name": name, **{key: getattr(counts, key) for key in keys}, "input": list(input)}


class _Recorder(Shapes):
    """Records the layer table of one forward.

    A module without children is a layer, seen by its hooks. The function mode sees the operations
    between layers: each is a row too. Every tensor is the output of one row, its maker.
    """

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.makers: dict[int, str] = {}  # id of a tensor -> name of its row
        self.alive: list[Tensor] = []  # the id of a deleted tensor would be used again
        self.calls: Counter[str] = Counter()
        self.recorded = 0  # multiply-adds of the rows so far
        self.running: list[tuple[str, bool]] = []  # stack of running modules: name, whether a layer
        self.add("input", "Input", (), image)
        for name, module in network.named_modules():
            plain = not name or isinstance(module, nn.Sequential | nn.Identity)
            transparent = plain or any(module.children())
            self._watch(name, module, not transparent)
            if transparent:
                for key, weight in module.named_parameters(name, recurse=False):
                    self.add(key, "Parameter", (), weight[None], weight.numel())
                    self.makers[id(weight)] = key

    def _watch(self, name: str, module: nn.Module, is_layer: bool) -> None:
        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if is_layer:
                if any(output is value for value in args) and not getattr(module, "inplace", False):
                    output = output.view_as(output)  # inactive dropout: make it another tensor
                self.add(name, _kind(module), (args, kwargs), output, _size(module))
            self.running.pop()
            return output

        module.register_forward_pre_hook(lambda *_: self.running.append((name, is_layer)))
        module.register_forward_hook(leave, with_kwargs=True)

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = super().__torch_function__(call, types, args, kwargs)
        between_layers = self.running and not self.running[-1][1]
        if between_layers and any(id(x) in self.makers for x in _tensors((args, kwargs))):
            self.add(*_operation(self.running[-1][0], call, output), (args, kwargs), output)
        return output

    def add(self, name: str, kind: str, read: Any, output: Any, parameters: int = 0) -> None:
        """Add a row if the output holds a tensor (that of x.size() holds none)."""
        if not (made := list(_tensors(output))):
            return
        makers = (self.makers.get(id(x)) for x in _tensors(read))
        connected = tuple(dict.fromkeys(maker for maker in makers if maker is not None))
        self.calls[name] += 1
        if self.calls[name] > 1:
            name, parameters = f"{name}#{self.calls[name]}", 0
        work, self.recorded = self.multiply_adds - self.recorded, self.multiply_adds
        shape = tuple(made[0].shape[1:])
        self.layers.append(Layer(name, kind, shape, parameters, connected, work))
        self.makers.update((id(x), name) for x in made)
        self.alive += made


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _operation(module: str, call: Any, output: Any) -> tuple[str, str]:
    """Name and kind of the row of a function call in `module`."""
    word, more = str(call.__name__).strip("_"), ""
    if word == "adaptive_avg_pool2d":
        word, more = "average_pool", f" to {_by(output.shape[-2:])}"
    return f"{module}.{word}".lstrip("."), word.replace("_", " ").capitalize() + more


def _kind(module: nn.Module) -> str:
    """A layer's kind, such as "Convolution 3x3/2, 32 groups"."""
    text = re.sub(r"[123]d$", "", type(module).__name__)
    text = "Convolution" if text == "Conv" else text.replace("Avg", "Average")
    text = re.sub(r"(?<=[a-z])[A-Z](?=[a-z]{2})", lambda match: f" {match[0].lower()}", text)
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
    statistics = (buffer for name, buffer in module.named_buffers() if "num_batches" not in name)
    return sum(tensor.numel() for tensor in chain(module.parameters(), statistics))


def _counts(network: nn.Module, multiply_adds: int) -> Counts:
    state = network.state_dict().values()
    parameters = sum(weight.numel() for weight in network.parameters())
    trainable = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    size = sum(x.numel() * (4 if x.is_floating_point() else x.itemsize) for x in state)
    return Counts(parameters, trainable, _size(network) - parameters, multiply_adds, size)


def _stages(layers: Sequence[Layer]) -> tuple[Stage, ...]:
    rows: dict[str, list[Layer]] = {}
    name = "stem"
    for layer in layers[1:]:  # the first is the input
        match = re.match(r"stages\.\d+", layer.name)
        name = match[0] if match else "stem" if name == "stem" else "head"
        rows.setdefault(name, []).append(layer)
    return tuple(Stage(name, tuple(rows[name])) for name in rows if rows.keys() != {"stem"})


def _channels(network: nn.Module) -> int:
    return next((conv.in_channels for conv in network.modules() if isinstance(conv, nn.Conv2d)), 3)
