"""The layer table against other ways to find the same: torch.fx, safetensors, arithmetic."""

from typing import Any, cast

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from residua.errors import ResiduaError
from residua.networks.analysis import cost
from residua.networks.analysis.cost import Cost, Size
from residua.networks.zoo import catalogue


def meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return catalogue.build(name, **options)


def measured(name: str, **options: Any) -> Cost:
    row = catalogue.row(name)
    channels = options.get("channels", row.channels)
    return cost.measure(meta(name, **options), (channels, row.size, row.size))


# Sums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        ("resnet18", 1_814_073_344),
        ("resnet50", 4_089_184_256),
        ("vgg16", 15_470_264_320),
        # a 3x3 layer costs 2,359,296 at every size; the first, the two that stride, the head
        ("cifar_resnet20", 16 * 2_359_296 + 3 * 16 * 9 * 32**2 + 2 * 1_179_648 + 64 * 10),
    ],
)
def test_multiply_adds_are_the_published_ones(name: str, multiply_adds: int) -> None:
    assert measured(name).multiply_adds == multiply_adds


def test_grouped_convolution_divides_the_work() -> None:
    layer = nn.Conv2d(128, 128, 3, padding=1, groups=32, bias=False)
    found = cost.measure(nn.Sequential(layer), (128, 10, 20))
    assert found.total == 4_608
    assert found.multiply_adds == 4_608 * 200
    assert found.layers[1].kind == "Convolution 3x3, 32 groups"
    assert found.layers[1].output == (128, 10, 20)


@pytest.mark.parametrize(
    ("name", "totals"),
    [
        ("tutorial_resnet50", (25_636_712, 25_583_592, 53_120)),
        ("tutorial_cifar_resnet32_d", (470_410, 468_042, 2_368)),
        ("tutorial_resnet18", (11_186_186, 11_178_378, 7_808)),
        ("tutorial_vgg19_cifar", (39_002_738, 38_975_326, 27_412)),
    ],
)
def test_totals_in_keras_sense(name: str, totals: tuple[int, int, int]) -> None:
    found = measured(name)
    assert (found.total, found.trainable, found.non_trainable) == totals


def test_frozen_parameters_are_not_trainable() -> None:
    network = meta("resnet18", classes=10)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith("head")
    found = cost.measure(network, (3, 64, 64))
    assert (found.trainable, found.non_trainable) == (5_130, found.total - 5_130)


SOME = (
    "resnet18",
    "vgg16_bn",
    "cifar_preact_resnet164",
    "tutorial_resnet18",
    "tutorial_vgg16_mnist",
)


@pytest.mark.slow
def test_the_listing_has_what_measure_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue's own tests compare every row with its published count."""
    monkeypatch.setattr(catalogue, "ROWS", {name: catalogue.row(name) for name in SOME})
    rows = list(cost.listing())
    assert [name for name, _, _ in rows] == list(SOME)
    for name, size, counts in rows:
        found = measured(name)
        assert cost.to_json(name, found, size) == cost.to_json(name, counts, size)
        assert found.bytes_on_disk == counts.bytes_on_disk


def test_size_on_disk_is_what_safetensors_writes() -> None:
    network = catalogue.build("cifar_resnet20")
    written = len(safetensors.torch.save(network.state_dict()))
    assert cost.measure(network, (3, 32, 32)).bytes_on_disk == pytest.approx(written, rel=0.02)


# Rows and connections -----------------------------------------------------------------------------


class Leaves(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not any(module.children())


def edges_of_fx(network: nn.Module) -> list[tuple[str, list[str]]]:
    """The calls of a symbolic trace in order, each with the calls whose output it reads."""
    names: dict[fx.Node, str] = {}
    rows: list[tuple[str, list[str]]] = []
    for node in Leaves().trace(network).nodes:
        reads = [names[source] for source in node.all_input_nodes]
        passes = node.op == "call_module" and isinstance(
            network.get_submodule(str(node.target)), nn.Identity | nn.Sequential
        )
        if passes or node.op == "output":
            names[node] = reads[0]
            continue
        names[node] = f"{len(rows)}" if node.op == "call_function" else str(node.target)
        names[node] = "input" if node.op == "placeholder" else names[node]
        rows.append((names[node], reads))
    return rows


CASES: list[tuple[str, dict[str, Any]]] = [
    ("resnet18", {}),
    ("resnet50", {"shortcut": "D"}),
    ("resnet18", {"shortcut": "none", "ordering": "b"}),
    ("cifar_resnext29_8x64d", {"ordering": "c"}),
    ("cifar_resnet20", {}),
    ("tutorial_cifar_resnet32_d", {}),
    ("tutorial_cifar_resnet32_d_v2", {}),
    ("tutorial_cifar_resnet34", {}),
    ("vgg11_bn", {}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_connections_are_those_of_a_symbolic_trace(name: str, options: dict[str, Any]) -> None:
    network = meta(name, **options).eval()
    expected = edges_of_fx(network)
    row = catalogue.row(name)
    layers = cost.measure(network, (row.channels, row.size, row.size)).layers
    ours = {each.name: str(place) for place, each in enumerate(layers)}
    theirs = {each: str(place) for place, (each, _) in enumerate(expected)}
    assert [[ours[name] for name in layer.connected_to] for layer in layers] == [
        [theirs[name] for name in reads] for _, reads in expected
    ]
    modules = dict(network.named_modules())
    assert [layer.name for layer in layers if layer.name in modules] == [
        each for each, _ in expected if each in modules
    ]


def test_rows_of_a_residual_unit() -> None:
    found = measured("tutorial_resnet50")
    rows = {layer.name: layer for layer in found.layers}
    assert len(found.layers) == 176  # Keras has 177: its zero padding is a layer of its own
    assert sum(layer.kind == "Add" for layer in found.layers) == 16
    assert rows["stages.0.units.0.add"].connected_to == (
        "stages.0.units.0.branch.end_norm",
        "stages.0.units.0.shortcut.norm",
    )
    assert rows["stages.0.units.1.add"].connected_to == (
        "stages.0.units.1.branch.end_norm",
        "stages.0.units.0.after.act",
    )
    assert rows["stem.pool"].output == (64, 55, 55)
    assert rows["stem.conv"].kind == "Convolution 7x7/2"
    assert rows["stem.conv"].parameters == 9_472
    assert rows["average_pool"].kind == "Average pool to 1x1"
    assert rows["flatten"].connected_to == ("average_pool",)
    assert rows["head"].output == (1000,)


@pytest.mark.parametrize("name", ["resnext50_32x4d", "tutorial_cifar_resnet32_e", "vgg13_bn"])
def test_rows_sum_to_the_totals(name: str) -> None:
    found = measured(name)
    assert sum(layer.parameters for layer in found.layers) == found.total
    assert sum(layer.multiply_adds for layer in found.layers) == found.multiply_adds
    assert len({layer.name for layer in found.layers}) == len(found.layers)


def test_projections_read_x_or_its_preactivation() -> None:
    for name, maker in (("e", "stages.1.units.0.before.act"), ("e_v2", "stages.0.units.4.add")):
        rows = {layer.name: layer for layer in measured(f"tutorial_cifar_resnet32_{name}").layers}
        assert rows["stages.1.units.0.shortcut.conv"].connected_to == (maker,)


def test_layers_are_grouped_by_stage() -> None:
    stages = measured("preact_resnet18").stages
    assert [stage.name for stage in stages] == ["stem", *(f"stages.{i}" for i in range(4)), "head"]
    assert [stage.layers[-1].output for stage in stages][:3] == [
        (64, 56, 56),
        (64, 56, 56),
        (128, 28, 28),
    ]
    assert [stage.name for stage in stages[-1].layers] == [
        "tail.norm",
        "tail.act",
        "average_pool",
        "flatten",
        "head",
    ]
    assert [stage.name for stage in measured("vgg11").stages] == [
        *(f"stages.{i}" for i in range(5)),
        "head",
    ]


class Foreign(nn.Module):
    """What a network from elsewhere may do: functions, a layer used twice, a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, (3, 1), stride=(2, 1), padding=(1, 0), groups=4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        y = F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1] * self.scale
        y += self.drop(x)
        y = torch.cat([self.depthwise(self.relu(y)), F.max_pool2d(x, (2, 1))], 1)
        return cast(Tensor, self.fc(y.mean((2, 3))))


def test_a_network_from_elsewhere() -> None:
    found = cost.measure(Foreign(), (3, 8, 8))
    rows = [(layer.name, layer.kind, layer.connected_to) for layer in found.layers]
    assert rows == [
        ("input", "Input", ()),
        ("scale", "Parameter", ()),
        ("conv", "Convolution 3x3", ("input",)),
        ("relu", "ReLU", ("conv",)),
        ("pad", "Pad", ("relu",)),
        ("getitem", "Getitem", ("pad",)),
        ("mul", "Mul", ("getitem", "scale")),
        ("drop", "Dropout", ("relu",)),
        ("add", "Add", ("mul", "drop")),
        ("relu#2", "ReLU", ("add",)),
        ("depthwise", "Convolution 3x1/2x1, depthwise", ("relu#2",)),
        ("max_pool2d", "Max pool2d", ("relu",)),
        ("cat", "Cat", ("depthwise", "max_pool2d")),
        ("mean", "Mean", ("cat",)),
        ("fc", "Linear", ("mean",)),
    ]
    assert found.stages == ()
    assert sum(layer.parameters for layer in found.layers) == found.total
    assert found.multiply_adds == 64 * 4 * 27 + 32 * 4 * 3 + 40


class Constants(nn.Module):
    """Adds new tensors, which may get the ids of those that are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(20))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            y = layer(x)
            x = layer(y)
            del y
            x = x + torch.zeros(x.shape, device=x.device)
        return x


def test_a_constant_has_no_maker() -> None:
    rows = cost.measure(Constants(), (2, 4, 4)).layers
    added = [layer.connected_to for layer in rows if layer.kind == "Add"]
    assert added == [(f"layers.{number}#2",) for number in range(20)]


class FunctionalNorm(nn.Module):
    """What the trace skips for speed must still give a tensor of its own."""

    def forward(self, x: Tensor) -> Tensor:
        zeros, ones = torch.zeros(3, device=x.device), torch.ones(3, device=x.device)
        return F.batch_norm(x, zeros, ones) + x


def test_a_skipped_function_is_a_row() -> None:
    rows = cost.measure(FunctionalNorm(), (3, 4, 4)).layers
    assert [(layer.name, layer.connected_to) for layer in rows] == [
        ("input", ()),
        ("batch_norm", ("input",)),
        ("add", ("batch_norm", "input")),
    ]


def test_the_measured_network_is_left_as_it_was() -> None:
    network = catalogue.build("cifar_resnet20", seed=0).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    cost.measure(network, (3, 32, 32))
    cost.smallest_input(network)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for module in network.modules():
        assert module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())


def test_half_precision_is_measured_as_float32() -> None:
    half = catalogue.build("cifar_resnet20").half()
    assert cost.measure(half, (3, 32, 32)) == measured("cifar_resnet20")


# What does not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side"),
    [("vgg16", 32), ("resnet18", 1), ("tutorial_resnet50", 5), ("cifar_preact_resnet110", 1)],
)
def test_the_smallest_input_is_the_networks_own(name: str, side: int) -> None:
    assert cost.smallest_input(meta(name)) == side


@pytest.mark.slow
def test_smallest_input_is_the_smallest_that_runs() -> None:
    network = catalogue.build("tutorial_vgg16_mnist").eval()
    side = cost.smallest_input(network)
    with torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, side - 1, side - 1))


def test_smallest_input_where_a_single_size_fits() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 19 * 19, 3))
    assert cost.smallest_input(network) == 21


@pytest.mark.parametrize(
    ("input", "words"),
    [
        ((3, 20, 20), "3x20x20.* needs 3 channels, 32 or more pixels"),
        ((1, 64, 64), "1x64x64.* needs 3 channels, 32 or more pixels"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(input: Size, words: str) -> None:
    with pytest.raises(ResiduaError, match=words):
        cost.measure(meta("vgg11"), input)


def test_a_network_that_accepts_no_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LARGEST_SIDE", 40)
    with pytest.raises(ResiduaError, match="no square image of 1 to 40"):
        cost.smallest_input(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Linear(7, 7), nn.Linear(8, 8)))


# Output -------------------------------------------------------------------------------------------


def test_the_layer_table_lists_layers_and_totals() -> None:
    found = measured("tutorial_cifar_resnet32_e")
    text = cost.layer_table(found)
    lines = text.splitlines()
    columns = [lines[0].index(word) for word in ("layer", "output", "connected")]
    for layer in found.layers:
        line = next(line for line in lines if line.startswith(f"{layer.name} "))
        assert f"{layer.parameters:,}" in line
        assert line[columns[1] :].startswith(" x ".join(map(str, layer.output)))
        assert line[columns[2] :] == "".join(layer.connected_to[:1])
    place = next(i for i, line in enumerate(lines) if line.startswith("stages.1.units.0.add"))
    assert lines[place + 1].strip() == "stages.1.units.0.shortcut.conv"
    assert text.endswith("\n")
    for words in (
        "Parameters:       467,946 (467,946 trainable)",
        "Buffers:          2,272 (statistics of BatchNorm)",
        f"{found.multiply_adds:,}",
        "about 1.9 MB",
    ):
        assert words in text


def test_json_has_the_totals() -> None:
    assert cost.to_json("resnet50", measured("resnet50"), (3, 224, 224)) == {
        "name": "resnet50",
        "parameters": 25_557_032,
        "buffers": 53_120,
        "total": 25_610_152,
        "trainable": 25_557_032,
        "non_trainable": 53_120,
        "multiply_adds": 4_089_184_256,
        "input": [3, 224, 224],
    }
