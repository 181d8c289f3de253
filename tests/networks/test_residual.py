"""The residual unit's plan and module against the papers' figures and formulas."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from references.architecture_checks import check_torch_reading
from torch import Tensor, nn

from residua.config.schema import ORDERING_LETTERS, Ordering, Shortcut
from residua.networks.residual import (
    BASIC,
    BOTTLENECK,
    BOTTLENECK_V1,
    CIFAR_STEM,
    ORDERINGS,
    ConvPlan,
    ResNetConfig,
    UnitPlan,
    unit_plan,
    unit_plans,
)
from residua.networks.zoo import catalogue

pytestmark = pytest.mark.usefixtures("one_thread")
every_ordering = pytest.mark.parametrize("ordering", get_args(Ordering))
every_shortcut = pytest.mark.parametrize("shortcut", get_args(Shortcut))


def small_config(ordering: Ordering, shortcut: Shortcut, **changes: Any) -> ResNetConfig:
    config = ResNetConfig(
        units=(2, 2),
        outputs=(8, 12),
        strides=(1, 2),
        ordering=ordering,
        shortcut=shortcut,
        stem=CIFAR_STEM,
    )
    return dataclasses.replace(config, **changes)


# Plans, without a network -------------------------------------------------------------------------

# He et al. 2016, figure 4: before the branch, the branch, after the addition
FIGURE_4: dict[Ordering, tuple[str, str, str]] = {
    "original": ("", "cnacn", "a"),
    "bn_after_addition": ("", "cnac", "na"),
    "relu_before_addition": ("", "cnacna", ""),
    "relu_only_preactivation": ("a", "cnacn", ""),
    "full_preactivation": ("na", "cnac", ""),
}
CHANGING = {"none": "none", "A": "zero_pad", "B": "projection", "D": "projection"}


@pytest.mark.parametrize("stride", [1, 2])
@every_shortcut
@every_ordering
def test_a_plan_is_the_papers_figure(ordering: Ordering, shortcut: Shortcut, stride: int) -> None:
    inputs = 12 if stride == 1 else 8
    plan = unit_plan(small_config(ordering, shortcut), 1, inputs, stride)
    assert (plan.before, plan.branch, plan.after) == FIGURE_4[ordering]
    assert (plan.inputs, plan.outputs, plan.stride) == (inputs, 12, stride)
    assert plan.convolutions == (ConvPlan(inputs, 12, 3, stride), ConvPlan(12, 12, 3))
    if stride == 1:
        assert plan.shortcut == ("none" if shortcut == "none" else "identity")
        assert (plan.tap, plan.projection) == ("input", None)
        return
    assert (plan.shortcut, plan.tap) == (
        CHANGING[shortcut],
        "before" if shortcut != "none" else "input",
    )
    if shortcut in ("B", "D"):
        pooled = shortcut == "D"  # He 2018, figure 2c: the average pool takes the stride
        assert plan.projection == ConvPlan(8, 12, 1, stride=1 if pooled else 2)
        norm = "n" if FIGURE_4[ordering][1].endswith(("n", "na")) else ""
        assert plan.projection_letters == ("pc" if pooled else "c") + norm


def test_orderings_have_the_letters_of_the_figure() -> None:
    assert list(ORDERINGS) == list(ORDERING_LETTERS.values()) == list(FIGURE_4)


def test_widths_and_strides_follow_from_the_position() -> None:
    (first, second), (third, fourth) = unit_plans(small_config("original", "B"))
    assert [(p.inputs, p.outputs, p.stride) for p in (first, second, third, fourth)] == [
        (16, 8, 1),
        (8, 8, 1),
        (8, 12, 2),
        (12, 12, 1),
    ]
    assert [p.shortcut for p in (first, second, third, fourth)] == [
        "projection",
        "identity",
        "projection",
        "identity",
    ]


def test_keras_resnet_v2_strides_in_the_last_unit_of_a_stage() -> None:
    """That unit has its width already, so its shortcut only subsamples x."""
    config = catalogue.row("keras_resnet50v2").config
    assert isinstance(config, ResNetConfig)
    plans = unit_plans(config)
    assert [[plan.stride for plan in stage] for stage in plans] == [
        [1, 1, 2],
        [1, 1, 1, 2],
        [1, 1, 1, 1, 1, 2],
        [1, 1, 1],
    ]
    assert [plan.shortcut for plan in plans[1]] == [
        "projection",
        "identity",
        "identity",
        "subsample",
    ]
    assert [plan.tap for plan in plans[1]] == ["before", "input", "input", "input"]
    one_unit = unit_plan(dataclasses.replace(config, units=(1, 1)), 1, 256, 2)
    assert one_unit.shortcut == "projection"


def test_shortcuts_read_x_or_its_preactivation() -> None:
    """He 2016's code: the first unit's identity reads before(x). Tutorial 1, v2: projections x."""
    config = small_config("full_preactivation", "B", first_tap="before", projection_tap="input")
    config = dataclasses.replace(config, outputs=(16, 12))
    taps = [[plan.tap for plan in stage] for stage in unit_plans(config)]
    assert taps == [["before", "input"], ["input", "input"]]
    config = dataclasses.replace(config, first_tap="input", projection_tap="before")
    taps = [[plan.tap for plan in stage] for stage in unit_plans(config)]
    assert taps == [["input", "input"], ["before", "input"]]


@pytest.mark.parametrize(
    ("branch", "strides"), [(BASIC, (2, 1)), (BOTTLENECK_V1, (2, 1, 1)), (BOTTLENECK, (1, 2, 1))]
)
def test_a_branch_strides_where_its_paper_does(branch: Any, strides: tuple[int, ...]) -> None:
    config = small_config("original", "B", branch=branch, inner=(4, 6), groups=2)
    plan = unit_plan(config, 1, 8, 2)
    assert tuple(conv.stride for conv in plan.convolutions) == strides
    groups = [conv.groups for conv in plan.convolutions]
    assert groups == ([1, 1] if branch is BASIC else [1, 2, 1])
    widths = [(conv.inputs, conv.outputs) for conv in plan.convolutions]
    assert widths == ([(8, 12), (12, 12)] if branch is BASIC else [(8, 6), (6, 6), (6, 12)])


def test_another_branch_for_the_units_that_stride() -> None:
    config = catalogue.row("tutorial_cifar_resnet34").config
    assert isinstance(config, ResNetConfig)
    first, second = unit_plans(config)[1][:2]
    assert [conv.kernel for conv in first.convolutions] == [1, 3, 1]
    assert [conv.kernel for conv in second.convolutions] == [3, 3]


def test_biases_where_no_norm_follows() -> None:
    def biases(plan: UnitPlan) -> list[bool]:
        assert plan.projection is not None
        return [conv.bias for conv in (*plan.convolutions, plan.projection)]

    def plan(ordering: Ordering, bias: Any) -> UnitPlan:
        return unit_plan(small_config(ordering, "B", bias=bias), 1, 8, 2)

    assert biases(plan("full_preactivation", "where no norm follows")) == [False, True, True]
    assert biases(plan("original", "where no norm follows")) == [False, False, False]
    assert biases(plan("original", "all")) == [True, True, True]
    assert biases(plan("full_preactivation", "none")) == [False, False, False]


# Modules ------------------------------------------------------------------------------------------


@every_shortcut
@every_ordering
def test_trains_in_every_ordering_and_shortcut(ordering: Ordering, shortcut: Shortcut) -> None:
    """Every parameter gets a gradient in float32 and bfloat16; the images stay as they were."""
    for branch in (BASIC, BOTTLENECK):
        outputs = (16, 24)  # not narrower than the stem, which option A could not pad
        config = small_config(ordering, shortcut, branch=branch, inner=(4, 6), outputs=outputs)
        network = config.build(5, 3)
        images = torch.randn(4, 3, 9, 9)  # odd: a shortcut must round as the branch does
        before = images.clone()
        for bf16 in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = network(images)
            loss = F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3]))
            parameters = dict(network.named_parameters())
            gradients = torch.autograd.grad(loss, list(parameters.values()))  # refuses unused ones
            for name, gradient in zip(parameters, gradients, strict=True):
                assert gradient.isfinite().all(), name
                assert gradient.any(), name
        assert torch.equal(images, before)


@every_shortcut
@every_ordering
def test_a_unit_leaves_its_input_alone(ordering: Ordering, shortcut: Shortcut) -> None:
    for inputs, stride in ((12, 1), (8, 2)):
        plan = unit_plan(small_config(ordering, shortcut), 1, inputs, stride)
        x = torch.randn(2, inputs, 6, 6)
        before = x.clone()
        for training in (True, False):
            plan.build().train(training)(x)
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
            self.state[f"{name}.{key}"][:, None, None]
            for key in ("weight", "bias", "running_mean", "running_var")
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
@every_ordering
def test_a_unit_computes_the_papers_figure(ordering: Ordering, kind: Any, tap: Any) -> None:
    """He et al. 2016, figure 4, letter by letter, with statistics that are not 0 and 1."""
    torch.manual_seed(0)
    changes = kind != "identity"
    config = small_config(ordering, kind if changes else "B", projection_tap=tap, first_tap=tap)
    inputs, stride = (8, 2) if changes else (12, 1)
    unit = unit_plan(config, 1, inputs, stride, first=True).build().eval()
    for tensor in unit.state_dict().values():
        if tensor.ndim == 1:
            nn.init.uniform_(tensor, 0.2, 2.0)
    x = torch.randn(3, inputs, 8, 8)
    expected = BY_HAND[ordering](Reader(unit, stride), x, kind, tap)
    torch.testing.assert_close(unit(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8, 9])
def test_average_pool_shortcut_at_odd_sizes(size: int) -> None:
    """He 2018's shortcut averages 2x2 pixels, at an odd edge those inside the map."""
    config = small_config("original", "D", projection_norm=False)
    unit = unit_plan(config, 1, 8, 2).build().eval()
    ones = torch.ones(1, 8, size, size)
    assert unit.shortcut is not None
    shortcut = unit.shortcut(ones)
    assert shortcut.shape[-2:] == unit(ones).shape[-2:] == (math.ceil(size / 2),) * 2
    assert torch.allclose(shortcut, shortcut[:, :, :1, :1].expand_as(shortcut), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["resnet18d", *(pytest.param(f"resnet{n}d", marks=pytest.mark.slow) for n in (34, 50))]
)
@pytest.mark.parametrize("size", [64, 65])
def test_resnet_d_is_timms_at_every_stage(name: str, size: int) -> None:
    """A deep stem and pooled shortcuts, read anew from timm's names; odd maps too."""
    check_torch_reading(name, catalogue.row(name).config, size)


@pytest.mark.parametrize("ordering", ["original", "full_preactivation"])
def test_a_deep_stem_strides_first_and_ends_as_its_ordering(ordering: Ordering) -> None:
    network = catalogue.build("resnet18d", ordering=ordering)
    stem = dict(network.stem.named_children())
    end = ["end_norm", "end_act"] if ordering == "original" else []
    assert list(stem) == [
        *("conv1", "norm1", "act1", "conv2", "norm2", "act2", "conv3"),
        *(*end, "pool"),
    ]
    convolutions = [stem[f"conv{number}"] for number in (1, 2, 3)]
    assert [(conv.out_channels, conv.stride[0]) for conv in convolutions] == [
        (32, 2),
        (32, 1),
        (64, 1),
    ]


KEYS = re.compile(
    r"(stem\.(conv|norm)|tail\.norm|head"
    r"|stages\.\d\.units\.\d+\.(before\.norm|branch\.(conv[123]|norm[12]|end_norm)|after\.norm"
    r"|shortcut\.(conv|norm)))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


@every_ordering
def test_keys_of_weights_name_stage_and_layer(ordering: Ordering) -> None:
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
