"""A built network and an input size -> its layer table, parameters, multiply-adds and size on disk.

Every number is read from the modules and from one forward on the "meta" device, where tensors have
shapes and no memory; nothing is retyped from a plan, so a wrong plan shows here. Works for any
nn.Module that maps [1, C, H, W] to logits, in evaluation mode, and leaves the module as it was.
"""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from residua.errors import ResiduaError
from residua.networks import catalogue
from residua.networks.layers import MaxPool, ZeroPadShortcut

Size = tuple[int, int, int]  # C, H, W
LARGEST_SIDE = 1024  # smallest_input gives up there
_REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)  # of an input that does not fit
_KEEP_SHAPE = {"batch_norm", "fill_", "zero_", "normal_", "uniform_", "kaiming_uniform_"}
_WORDS: dict[type[nn.Module], str] = {
    nn.Conv1d: "Convolution",
    nn.Conv2d: "Convolution",
    nn.BatchNorm1d: "Batch norm",
    nn.BatchNorm2d: "Batch norm",
    MaxPool: "Max pool",
    nn.MaxPool2d: "Max pool",
    nn.AvgPool2d: "Average pool",
    ZeroPadShortcut: "Zero padding",
}


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
    multiply_adds: int = 0


@dataclass(frozen=True)
class Stage:
    """The stem, one entry of `stages`, or the head: what follows the last stage, with the tail."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of its last output, without the batch."""
        return self.layers[-1].output

    @property
    def units(self) -> int:
        """How many residual units it has."""
        prefix = f"{self.name}.units."
        names = (each.name for each in self.layers if each.name.startswith(prefix))
        return len({name.removeprefix(prefix).split(".")[0] for name in names})


@dataclass(frozen=True)
class Counts:
    """The sums of a network.

    trainable: parameters that require gradients. non_trainable, in Keras' sense: frozen parameters
    and BatchNorm's running means and variances, its batch counter never. multiply_adds: of
    convolutions and linear layers, for one picture. bytes_on_disk: about what safetensors writes.
    """

    total: int
    trainable: int
    non_trainable: int
    multiply_adds: int
    bytes_on_disk: int


@dataclass(frozen=True)
class Cost(Counts):
    """The sums, every layer in the order of execution, and the same layers by stage.

    stages is empty for a network that has no `stages`.
    """

    layers: tuple[Layer, ...]
    stages: tuple[Stage, ...]


def measure(network: nn.Module, input: Size) -> Cost:
    """Follow one picture of `input` = (C, H, W) through the network.

    The network may live on any device, in any mode; it is not changed, and nothing is computed.
    Raises ResiduaError where the network does not take such a picture.
    """
    skeleton = _skeleton(network)
    picture = torch.empty(1, *input, device="meta")
    recorder = _Recorder(skeleton, picture)
    try:
        _forward(skeleton, picture, recorder)
    except _REFUSALS as error:
        side, channels = smallest_input(network), _channels(network)
        raise ResiduaError(
            f"The network does not take a picture of {_by(input)} (channels, height, width), its "
            f"smallest square one is {_by((channels, side, side))}. {error}"
        ) from error
    layers = tuple(recorder.layers)
    counts = _counts(network, sum(each.multiply_adds for each in layers))
    return Cost(**vars(counts), layers=layers, stages=_stages(layers))


def smallest_input(network: nn.Module) -> int:
    """The smallest side of a square picture that the network takes (in evaluation mode).

    Raises ResiduaError if there is none up to LARGEST_SIDE.
    """
    skeleton, channels = _skeleton(network), _channels(network)
    for side in range(1, LARGEST_SIDE + 1):  # no bisection: some networks take a single size
        with suppress(*_REFUSALS):
            _forward(skeleton, torch.empty(1, channels, side, side, device="meta"), _Shapes())
            return side
    raise ResiduaError(f"The network takes no square picture of 1 to {LARGEST_SIDE} pixels a side.")


def listing() -> list[tuple[str, Size, Counts]]:
    """Name, input (C, H, W) and sums of every row of the catalogue at its defaults, in seconds."""
    rows, found = [], [0]

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        found[0] += _multiply_adds(module, output)

    for name, row in catalogue.ROWS.items():
        with torch.device("meta"), _Shapes():
            network = catalogue.build(name).eval()
        for module in network.modules():
            if isinstance(module, nn.Linear) or _convolves(module):  # no other layer multiplies
                module.register_forward_hook(count)
        size, found[0] = (row.channels, row.size, row.size), 0
        _forward(network, torch.empty(1, *size, device="meta"), _Shapes())
        rows.append((name, size, _counts(network, found[0])))
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
    lines = [f"{w:<{a}}  {x:<{b}}  {y:>{c}}  {z}".rstrip() for w, x, y, z in rows]
    lines.insert(1, "-" * (a + b + c + d + 6))
    lines += [
        lines[1],
        f"Total parameters: {cost.total:,}",
        f"Trainable:        {cost.trainable:,}",
        f"Non-trainable:    {cost.non_trainable:,}",
        f"Multiply-adds:    {cost.multiply_adds:,} (convolutions and linear layers, one picture)",
        f"Size on disk:     about {cost.bytes_on_disk / 1e6:,.1f} MB",
    ]
    return "\n".join(lines) + "\n"


def to_json(name: str, counts: Counts, input: Size) -> dict[str, Any]:
    """What `residua models --json` prints of one network."""
    return {
        "name": name,
        "total": counts.total,
        "trainable": counts.trainable,
        "non_trainable": counts.non_trainable,
        "multiply_adds": counts.multiply_adds,
        "input": list(input),
    }


class _Shapes(TorchFunctionMode):
    """Skips what fills or normalises a tensor: on meta it changes no shape and takes most time."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function.__name__ in _KEEP_SHAPE:
            tensor = next(chain(args, (kwargs or {}).values()))
            return tensor.view_as(tensor)  # of its own, as the function would
        return function(*args, **(kwargs or {}))


class _Recorder(_Shapes):
    """Writes the layer table of one forward.

    A module without children is a layer. What runs between layers is seen by the function mode: an
    operation on tensors outside of any layer is a row too. Each tensor has one maker, its row.
    """

    def __init__(self, network: nn.Module, picture: Tensor) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.makers: dict[int, str] = {}  # id of a tensor -> name of the row that made it
        self.kept: list[Tensor] = []  # an id is only unique while its tensor lives
        self.calls: Counter[str] = Counter()
        self.running: list[tuple[str, bool]] = []  # modules now running: name, whether a layer
        self.add("input", "Input", (), picture)
        for name, module in network.named_modules():
            transparent = isinstance(module, nn.Sequential | nn.Identity) or any(module.children())
            self._watch(name, module, not transparent)
            if transparent:
                for own, weight in module.named_parameters(name, recurse=False):
                    self.add(own, "Parameter", (), weight[None], weight.numel())
                    self.makers[id(weight)] = own

    def _watch(self, name: str, module: nn.Module, is_layer: bool) -> None:
        def enter(*_: object) -> None:
            self.running.append((name, is_layer))

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if is_layer and (made := next(_tensors(output), None)) is not None:
                if any(output is each for each in args) and not getattr(module, "inplace", False):
                    output = output.view_as(output)  # dropout at rest: a tensor of its own
                sums = _size(module), _multiply_adds(module, made)
                self.add(name, _kind(module), (args, kwargs), output, *sums)
            self.running.pop()
            return output

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, with_kwargs=True)

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = super().__torch_function__(function, types, args, kwargs)
        between_layers = self.running and not self.running[-1][1]
        if between_layers and any(id(each) in self.makers for each in _tensors((args, kwargs))):
            self.add(*_operation(self.running[-1][0], function, output), (args, kwargs), output)
        return output

    def add(
        self, name: str, kind: str, read: Any, output: Any, parameters: int = 0, work: int = 0
    ) -> None:
        """One more row, if there is an output (a question about a shape has none)."""
        made = list(_tensors(output))
        if not made:
            return
        makers = (self.makers.get(id(each)) for each in _tensors(read))
        connected = tuple(dict.fromkeys(maker for maker in makers if maker))
        self.calls[name] += 1
        if self.calls[name] > 1:
            name, parameters = f"{name}#{self.calls[name]}", 0
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


def _operation(module: str, function: Any, output: Any) -> tuple[str, str]:
    """Name and kind of the row of a function that ran in `module`."""
    word = str(function.__name__).strip("_")
    if word == "adaptive_avg_pool2d":
        word, kind = "average_pool", f"Average pool to {_by(output.shape[-2:])}"
    else:
        kind = word.replace("_", " ").capitalize()
    return f"{module}.{word}".lstrip("."), kind


def _kind(module: nn.Module) -> str:
    """What a layer is and does: "Convolution 3x3/2, 32 groups"."""
    words = (word for kind, word in _WORDS.items() if isinstance(module, kind))
    text = next(words, type(module).__name__)
    if kernel := getattr(module, "kernel_size", getattr(module, "kernel", None)):
        text += f" {_by(kernel)}"
    text += _over(getattr(module, "stride", 1))
    if (groups := getattr(module, "groups", 1)) > 1:
        text += ", depthwise" if groups == module.in_channels else f", {groups} groups"
    return text


def _by(sides: int | Sequence[int]) -> str:
    return "x".join(map(str, (sides, sides) if isinstance(sides, int) else sides))


def _over(stride: int | Sequence[int]) -> str:
    strides = [stride] if isinstance(stride, int) else list(dict.fromkeys(stride))
    return "" if strides == [1] else "/" + "x".join(map(str, strides))


def _convolves(module: nn.Module) -> TypeGuard[nn.Conv1d | nn.Conv2d]:
    return isinstance(module, nn.Conv1d | nn.Conv2d)


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    """Each place of the output (all but the batch and the channels) reads all weights once."""
    if _convolves(module):
        return math.prod(output.shape[2:]) * module.weight.numel()
    if isinstance(module, nn.Linear):
        return math.prod(output.shape[1:-1]) * module.weight.numel()
    return 0


def _size(module: nn.Module) -> int:
    statistics = (each for name, each in module.named_buffers() if "num_batches" not in name)
    return sum(each.numel() for each in chain(module.parameters(), statistics))


def _counts(network: nn.Module, multiply_adds: int) -> Counts:
    total = _size(network)
    trainable = sum(each.numel() for each in network.parameters() if each.requires_grad)
    stored = network.state_dict().values()
    size = sum(each.numel() * (4 if each.is_floating_point() else each.itemsize) for each in stored)
    return Counts(total, trainable, total - trainable, multiply_adds, size)


def _stages(layers: Sequence[Layer]) -> tuple[Stage, ...]:
    groups: dict[str, list[Layer]] = {}
    name = "stem"
    for each in layers[1:]:  # the first is the input
        if stage := re.match(r"stages\.\d+", each.name):
            name = stage[0]
        elif name != "stem":
            name = "head"
        groups.setdefault(name, []).append(each)
    known = set(groups) - {"stem"}
    return tuple(Stage(name, tuple(rows)) for name, rows in groups.items() if known)


def _skeleton(network: nn.Module) -> nn.Module:
    """A copy for evaluation that holds no memory: float32 tensors on the meta device."""
    memo: dict[int, Any] = {}
    for each in chain(network.parameters(), network.buffers()):
        dtype = torch.float32 if each.is_floating_point() else each.dtype
        empty = torch.empty_like(each, dtype=dtype, device="meta", requires_grad=False)
        parameter = isinstance(each, nn.Parameter)
        memo[id(each)] = nn.Parameter(empty, each.requires_grad) if parameter else empty
    return copy.deepcopy(network, memo).eval()


def _channels(network: nn.Module) -> int:
    return next((each.in_channels for each in network.modules() if _convolves(each)), 3)


def _forward(network: nn.Module, picture: Tensor, mode: _Shapes) -> None:
    with torch.no_grad(), mode:
        network(picture)
