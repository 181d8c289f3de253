"""Every row against its published count; every ordering and shortcut against its figure."""

import math
import os
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.config.schema import Ordering
from residua.errors import ResiduaError
from residua.networks.layers import Convolution, MaxPool, initialise, same_padding
from residua.networks.residual import (
    BASIC,
    BOTTLENECK,
    CIFAR_STEM,
    ORDERINGS,
    ResidualUnit,
    ResNetConfig,
    Shortcut,
    unit_plan,
)
from residua.networks.zoo import catalogue

RUN_ON_META = 12_000_000  # parameters; larger rows are not filled with numbers here


pytestmark = pytest.mark.usefixtures("one_thread")


def count(network: torch.nn.Module) -> tuple[int, int]:
    trainable = sum(each.numel() for each in network.parameters())
    statistics = sum(
        each.numel() for name, each in network.named_buffers() if "num_batches" not in name
    )
    return trainable + statistics, trainable


@pytest.mark.parametrize("name", catalogue.ROWS)
def test_published_count(name: str) -> None:
    with torch.device("meta"):
        total, trainable = count(catalogue.build(name))
    published = catalogue.row(name)
    assert trainable == published.trainable
    assert published.total in (None, total)


def size_and_maps(name: str) -> tuple[int, list[int]]:
    """A small input and the sides of its maps, by name, so that no plan is asked about itself."""
    special = {
        "alexnet": (64, [15, 7, 3, 1]),
        "alexnet_2012": (64, [15, 7, 3, 1]),
        "googlenet": (64, [32, 16, 8, 4, 2]),
        "inception_v3": (75, [35, 15, 7, 3, 1]),
        "inception_v4": (75, [35, 15, 7, 3, 1]),
        "keras_inception_v3": (75, [35, 15, 7, 3, 1]),
        "xception": (75, [35, 18, 9, 5, 3]),
        "keras_xception": (75, [35, 18, 9, 5, 3]),
    }
    if name in special:
        return special[name]
    if "mobilenet" in name:
        return 64, [32, 16, 8, 4, 2]
    if "vgg" in name:
        return 32, [16, 8, 4, 2, 1]
    if re.match("tutorial_cifar_resnet(50|101|152)", name):
        return 32, [16, 8, 4, 2]
    if "cifar" in name:
        return 32, [32, 16, 8]
    if re.match(r"keras_resnet\d+v2", name):
        return 64, [8, 4, 2, 2]  # it strides in the last unit of a stage
    if name == "tutorial_resnet50":
        return 64, [15, 8, 4, 2]  # its max pool has no padding: 55 instead of 56 at 224 pixels
    return 64, [16, 8, 4, 2]


@pytest.mark.parametrize("name", catalogue.ROWS)
def test_forward_and_features(name: str) -> None:
    row, (size, sides) = catalogue.row(name), size_and_maps(name)
    small = row.trainable < RUN_ON_META and "1001" not in name
    with torch.device("cpu" if small else "meta"):
        network: Any = catalogue.build(name, seed=0).eval()
        images = torch.randn(2, row.channels, size, size)
    with torch.inference_mode():
        logits, maps = network(images), network.features(images)
        pooled = F.adaptive_avg_pool2d(maps[-1], getattr(network, "side", 1))
        again = network.head(pooled.flatten(1))
    assert logits.shape == (2, row.classes)
    assert [tuple(each.shape[-2:]) for each in maps] == [(side, side) for side in sides]
    if small:
        assert logits.isfinite().all()
        torch.testing.assert_close(again, logits)


@pytest.mark.parametrize("size", [224, 225])
def test_strides_at_the_imagenet_stem(size: int) -> None:
    with torch.device("meta"):
        network: Any = catalogue.build("resnet18").eval()
        sides = [each.shape[-1] for each in network.features(torch.empty(1, 3, size, size))]
    assert sides == [math.ceil(size / stride) for stride in (4, 8, 16, 32)]


# The units ----------------------------------------------------------------------------------------


def small_plan(ordering: Ordering, shortcut: Shortcut, **changes: Any) -> ResNetConfig:
    options: dict[str, Any] = {
        "units": (2, 2),
        "outputs": (8, 12),
        "strides": (1, 2),
        "ordering": ordering,
        "shortcut": shortcut,
        "stem": CIFAR_STEM,
    }
    return ResNetConfig(**options | changes)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("branch", [BASIC, BOTTLENECK], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("shortcut", get_args(Shortcut))
@pytest.mark.parametrize("ordering", get_args(Ordering))
def test_learns_in_every_ordering_and_shortcut(
    ordering: Ordering, shortcut: Shortcut, branch: Any, precision: torch.dtype
) -> None:
    outputs = (16, 24)  # not narrower than the stem, which option A could not pad
    network = small_plan(ordering, shortcut, branch=branch, inner=(4, 6), outputs=outputs).build(
        5, 3
    )
    images = torch.randn(4, 3, 9, 9)  # odd: a shortcut must round as the branch does
    before = images.clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = network(images)
    loss = F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3]))
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))  # refuses an unused one
    assert torch.equal(images, before)
    for name, gradient in zip(parameters, gradients, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shortcut", get_args(Shortcut))
@pytest.mark.parametrize("ordering", get_args(Ordering))
@pytest.mark.parametrize("changes", [True, False])
def test_a_unit_leaves_its_input_alone(
    ordering: Ordering, shortcut: Shortcut, changes: bool, training: bool
) -> None:
    config = small_plan(ordering, shortcut)
    plan = unit_plan(config, 1, 8 if changes else 12, 2 if changes else 1, first=False)
    unit = ResidualUnit(plan).train(training)
    x = torch.randn(2, 8 if changes else 12, 6, 6)
    before = x.clone()
    unit(x)
    assert torch.equal(x, before)


class Reader:
    """A unit's weights, for a unit that is written out by hand."""

    def __init__(self, unit: nn.Module, stride: int) -> None:
        self.state, self.stride = unit.state_dict(), stride

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = self.state[f"{name}.weight"]
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias, mean, variance = (
            self.state[f"{name}.{each}"][:, None, None]
            for each in ("weight", "bias", "running_mean", "running_var")
        )
        y: Tensor = (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias
        return y

    def shortcut(self, kind: str, x: Tensor, norm: bool) -> Tensor:
        if kind == "identity":
            return x
        if kind == "A":
            x = x[:, :, :: self.stride, :: self.stride]
            zeros = torch.zeros(x.shape[0], 2, *x.shape[2:])
            return torch.cat([zeros, x, zeros], 1)
        x = self.conv("shortcut.conv", x, self.stride)
        return self.norm("shortcut.norm", x) if norm else x


def unit_a(r: Reader, x: Tensor, kind: str, tap: str) -> Tensor:
    y = F.relu(r.norm("branch.norm1", r.conv("branch.conv1", x, r.stride)))
    y = r.norm("branch.end_norm", r.conv("branch.conv2", y))
    return F.relu(y + r.shortcut(kind, x, norm=True))


def unit_b(r: Reader, x: Tensor, kind: str, tap: str) -> Tensor:
    y = F.relu(r.norm("branch.norm1", r.conv("branch.conv1", x, r.stride)))
    y = r.conv("branch.conv2", y)
    return F.relu(r.norm("after.norm", y + r.shortcut(kind, x, norm=False)))


def unit_c(r: Reader, x: Tensor, kind: str, tap: str) -> Tensor:
    y = F.relu(r.norm("branch.norm1", r.conv("branch.conv1", x, r.stride)))
    y = F.relu(r.norm("branch.end_norm", r.conv("branch.conv2", y)))
    return y + r.shortcut(kind, x, norm=True)


def unit_d(r: Reader, x: Tensor, kind: str, tap: str) -> Tensor:
    ready = F.relu(x)
    y = F.relu(r.norm("branch.norm1", r.conv("branch.conv1", ready, r.stride)))
    y = r.norm("branch.end_norm", r.conv("branch.conv2", y))
    return y + r.shortcut(kind, ready if tap == "before" else x, norm=True)


def unit_e(r: Reader, x: Tensor, kind: str, tap: str) -> Tensor:
    ready = F.relu(r.norm("before.norm", x))
    y = F.relu(r.norm("branch.norm1", r.conv("branch.conv1", ready, r.stride)))
    y = r.conv("branch.conv2", y)
    return y + r.shortcut(kind, ready if tap == "before" else x, norm=False)


BY_HAND: dict[Ordering, Callable[[Reader, Tensor, str, str], Tensor]] = {
    "original": unit_a,
    "bn_after_addition": unit_b,
    "relu_before_addition": unit_c,
    "relu_only_preactivation": unit_d,
    "full_preactivation": unit_e,
}


@pytest.mark.parametrize("tap", ["before", "input"])
@pytest.mark.parametrize("kind", ["identity", "A", "B"])
@pytest.mark.parametrize("ordering", get_args(Ordering))
def test_unit_is_the_papers_figure(ordering: Ordering, kind: Any, tap: Any) -> None:
    """He et al. 2016, figure 4, letter by letter, with statistics that are not 0 and 1."""
    torch.manual_seed(0)
    changes = kind != "identity"
    config = small_plan(
        ordering, kind if changes else "B", projection_tap=tap, first_tap=tap, zero_place="both"
    )
    inputs, stride = (8, 2) if changes else (12, 1)
    unit = ResidualUnit(unit_plan(config, 1, inputs, stride, first=True)).eval()
    for tensor in unit.state_dict().values():
        if tensor.ndim == 1:
            nn.init.uniform_(tensor, 0.2, 2.0)
    x = torch.randn(3, inputs, 8, 8)
    expected = BY_HAND[ordering](Reader(unit, stride), x, kind, tap)
    torch.testing.assert_close(unit(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8, 9])
def test_average_pool_shortcut_at_odd_sizes(size: int) -> None:
    """He 2018's shortcut averages 2x2 places, at an odd edge those that exist."""
    config = small_plan("original", "D", projection_norm=False)
    unit = ResidualUnit(unit_plan(config, 1, 8, 2, first=False)).eval()
    ones = torch.ones(1, 8, size, size)
    assert unit.shortcut is not None
    side = unit.shortcut(ones)
    assert side.shape[-2:] == unit(ones).shape[-2:] == (math.ceil(size / 2),) * 2
    assert torch.allclose(side, side[:, :, :1, :1].expand_as(side), atol=1e-6)


# Names and options --------------------------------------------------------------------------------

KEYS = re.compile(
    r"(stem\.(conv|norm)|tail\.norm|head"
    r"|stages\.\d\.units\.\d+\.(before\.norm|branch\.(conv[123]|norm[12]|end_norm)|after\.norm"
    r"|shortcut\.(conv|norm)))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


@pytest.mark.parametrize("ordering", get_args(Ordering))
def test_checkpoint_keys(ordering: Ordering) -> None:
    with torch.device("meta"):
        network = catalogue.build("resnet50", ordering=ordering)
    keys = network.state_dict().keys()
    assert all(KEYS.fullmatch(key) for key in keys)
    assert {"stem.conv.weight", "head.weight", "head.bias"} < keys
    letters = ORDERINGS[ordering]
    expected = {
        "before.norm": "n" in letters.before,
        "branch.conv1": True,
        "branch.norm1": True,
        "branch.norm2": True,
        "branch.conv3": True,
        "branch.end_norm": "n" in letters.end,
        "after.norm": "n" in letters.after,
        "shortcut.conv": True,
        "shortcut.norm": "n" in letters.end,
    }
    for part, there in expected.items():
        assert (f"stages.1.units.0.{part}.weight" in keys) == there, part
    assert ("tail.norm.weight" in keys) == (ordering == "full_preactivation")
    assert ("stem.norm.weight" in keys) == (ordering != "full_preactivation")
    assert not any("features" in name for name, _ in network.named_modules())


def test_seed_fixes_the_weights_and_leaves_the_global_generator() -> None:
    state = torch.get_rng_state()
    one, same, other = (catalogue.build("cifar_resnet20", seed=seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b in zip(one.state_dict().items(), same.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    stem = "stem.conv.weight"
    assert not torch.equal(one.get_parameter(stem), other.get_parameter(stem))
    catalogue.build("cifar_resnet20")
    assert not torch.equal(torch.get_rng_state(), state)


def test_options_reach_the_network() -> None:
    network = catalogue.build("cifar_resnet20", classes=3, channels=1, ordering="e", shortcut="B")
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 3)
    assert "stages.1.units.0.shortcut.conv.weight" in network.state_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "resnet5O"}, "'resnet5O' .*Did you mean resnet50"),
        ({"name": "ResNeXt50"}, "no known model.*residua models"),
        (
            {"name": "resnet18", "ordering": "f"},
            "ordering 'f' .*original, .*or a, b, c, d, e",
        ),
        ({"name": "resnet18", "shortcut": "C"}, "shortcut 'C' .*none, A, B, D"),
        (
            {"name": "vgg16", "ordering": "e"},
            "vgg16 has no residual units: ordering 'full",
        ),
        ({"name": "vgg16_bn", "shortcut": "none"}, "vgg16_bn has no residual units: shortcut"),
        ({"name": "resnet18", "classes": 0}, "classes = 0"),
        ({"name": "resnet18", "channels": -1}, "channels = -1"),
    ],
)
def test_what_cannot_be_built_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ResiduaError, match=words):
        catalogue.build(**options)


# Against Keras ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize("size", [32, 33, 224, 225])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_keras(keras: Any, stride: int, kernel: int, size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, size, size - 1)  # one side even, one odd
    last = x.permute(0, 2, 3, 1)
    theirs = keras.layers.Conv2D(3, kernel, stride, padding="same", data_format="channels_last")
    theirs.build(last.shape)
    ours = Convolution(2, 3, kernel, stride=stride, bias=True, padding="same")
    kernel_weights = ours.weight.permute(2, 3, 1, 0).detach().numpy()
    theirs.set_weights([kernel_weights, ours.state_dict()["bias"].numpy()])
    pool = keras.layers.MaxPooling2D(kernel, stride, padding="same", data_format="channels_last")
    with torch.inference_mode():
        for mine, other in ((ours, theirs), (MaxPool(kernel, stride, "same"), pool)):
            expected = keras.ops.convert_to_numpy(other(last))
            actual = mine(x).permute(0, 2, 3, 1).contiguous()
            torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_same_padding_puts_the_odd_pixel_last() -> None:
    assert same_padding(224, 7, 2) == (2, 3)
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(225, 3, 2) == same_padding(32, 3, 1) == (1, 1)
    assert same_padding(224, 1, 2) == (0, 0)


@pytest.mark.filterwarnings("ignore:__array__")
def test_he_truncated_is_keras_he_normal(keras: Any) -> None:
    torch.manual_seed(0)
    layer = Convolution(64, 512, 3, bias=True)
    initialise(layer, "he_truncated")
    drawn = keras.initializers.HeNormal(seed=1)((3, 3, 64, 512))
    theirs = torch.as_tensor(keras.ops.convert_to_numpy(drawn)).flatten()
    ours = layer.weight.detach().flatten()
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.01)
    assert ours.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.01)
    levels = torch.tensor([0.001, 0.01, 0.1, 0.9, 0.99, 0.999])  # not the extremes: on torch Keras
    torch.testing.assert_close(  # draws four times and then lets a value beyond the cut pass
        ours.quantile(levels), theirs.quantile(levels), rtol=0.015, atol=0
    )
    assert not layer.state_dict()["bias"].any()
