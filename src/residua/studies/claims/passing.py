"""Units and chains of layers -> how images and gradients pass them; the numbers of a study.

All is measured in float64 on modules whose random numbers come from a fixed seed.
Legend: B batch, C channels, H height, W width, L depth.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from residua.config.schema import Ordering
from residua.networks.layers import Convolution
from residua.networks.residual import CIFAR_STEM, ResidualUnit, ResNetConfig, unit_plan

SEED = 1
CHANNELS = 16
FEATURES = 16  # of the linear layers whose shortcuts are looked at
WIDE = 64  # of the chains whose layers are matrices


@dataclass(frozen=True)
class Grown:
    """Largest differences between the logits of A and of B, which is A and units of zeros.

    evaluated, trained: with the norms' own statistics, with the batch's. random: where the added
    units keep their random weights. logits: the largest of A.
    """

    evaluated: float
    trained: float
    random: float
    logits: float


@dataclass(frozen=True)
class Passed:
    """Largest differences between a unit of zeros and its input x of about unit variance.

    positive: for x >= 0; both: for x of both signs; rectified: of that from ReLU(x); trained: for
    x >= 0 where norms use the batch's statistics.
    """

    positive: float
    both: float
    rectified: float
    trained: float


@dataclass(frozen=True)
class Linearity:
    """superposition: the largest |f(ax + by) - af(x) - bf(y)|; outputs: the largest |f(ax + by)|.

    folded: the largest difference from one layer with the weights W + I, where there is one.
    """

    superposition: float
    outputs: float
    folded: float | None


class Shortcut(nn.Module):
    """x -> after(branch(x) + x), of any shape."""

    def __init__(self, branch: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.after = branch, after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.branch(x) + x)  # type: ignore[no-any-return]


def grown(ordering: Ordering, *, exact: bool = False, plain: bool = False) -> Grown:
    """Compare a network of one unit a stage with one of two, the second ones zeros.

    exact: the added norms behind an addition divide by 1, not by sqrt(1 + epsilon). plain: without
    shortcuts, where the added convolutions are the identity kernel and their norms exact.
    """
    shallow, deep = (_network(_config(ordering, count, plain=plain)) for count in (1, 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        _disturb_norms(shallow)
    deep.load_state_dict(shallow.state_dict(), strict=False)  # first units have the same names
    random = copy.deepcopy(deep)
    for stage in deep.get_submodule("stages").children():
        added = stage.get_submodule("units.1")
        (_to_identity if plain else _to_zero)(added.get_submodule("branch"))
        if exact:
            _make_exact(added.get_submodule("after"))
    images = _normal(8, 3, 16, 16)
    with torch.no_grad():
        expected = shallow(images)
        evaluated = _apart(deep(images), expected)
        difference = _apart(random(images), expected)
        trained = _apart(deep.train()(images), shallow.train()(images))
    return Grown(evaluated, trained, difference, float(expected.abs().max()))


def passed(ordering: Ordering, *, exact: bool = False) -> Passed:
    """Send maps through one unit whose branch is zero; exact: see `grown`."""
    with torch.random.fork_rng(devices=[]):
        plan = unit_plan(_config(ordering, 1), 0, CHANNELS, 1, first=False)
        unit = ResidualUnit(plan).double().eval()
    _to_zero(unit.branch)
    if exact:
        _make_exact(unit.after)
    x = _normal(8, CHANNELS, 8, 8)
    with torch.no_grad():
        positive, both = _apart(unit(x.abs()), x.abs()), _apart(unit(x), x)
        rectified = _apart(unit(x), x.relu())
        trained = _apart(unit.train()(x.abs()), x.abs())
    return Passed(positive, both, rectified, trained)


def linearities() -> dict[str, Linearity]:
    """What stands beside a shortcut -> whether the whole is linear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        biased = nn.Linear(FEATURES, FEATURES)
        one, two = (nn.Linear(FEATURES, FEATURES, bias=False) for _ in range(2))
        kernel = Convolution(FEATURES, FEATURES, 3)
    relu = nn.ReLU()
    modules: dict[str, tuple[nn.Module, nn.Module | None]] = {
        "one linear layer": (Shortcut(one), _folded(one)),
        "one 3x3 convolution": (Shortcut(kernel), _folded(kernel)),
        "two linear layers": (Shortcut(nn.Sequential(one, two)), None),
        "one linear layer with a bias": (Shortcut(biased), _folded(biased)),
        "one linear layer and a ReLU behind the addition": (
            Shortcut(one, relu),
            nn.Sequential(_folded(one), relu),
        ),
        "one linear layer and a ReLU before the addition": (
            Shortcut(nn.Sequential(one, relu)),
            None,
        ),
        "a ReLU and then one linear layer": (Shortcut(nn.Sequential(relu, one)), None),
        "two linear layers with a ReLU between": (Shortcut(nn.Sequential(one, relu, two)), None),
    }
    return {name: _linearity(*each) for name, each in modules.items()}


def gradient(factor: float, depth: int, *, shortcuts: bool) -> float:
    """d output / d input of L layers y = factor * x, by autograd; with shortcuts y + x instead."""
    weight = torch.tensor([[factor]], dtype=torch.float64)
    return _chain_gradient(1, depth, lambda: weight, shortcuts=shortcuts)


def wide_gradient(factor: float, depth: int, *, shortcuts: bool) -> float:
    """The same for layers of WIDE features, each `factor` times a random rotation: a length.

    It is the length of the gradient at the input for one of length 1 at the output.
    """
    chance = torch.Generator().manual_seed(SEED)

    def rotation() -> Tensor:
        matrix = torch.randn(WIDE, WIDE, generator=chance, dtype=torch.float64)
        q, r = torch.linalg.qr(matrix)
        turned: Tensor = q * r.diagonal().sign()  # without it not all are equally likely
        return factor * turned

    return _chain_gradient(WIDE, depth, rotation, shortcuts=shortcuts)


def _chain_gradient(
    width: int, depth: int, weight: Callable[[], Tensor], *, shortcuts: bool
) -> float:
    layers = nn.Sequential()
    for _ in range(depth):
        with torch.random.fork_rng(devices=[]):
            layer = nn.Linear(width, width, bias=False).double()
        layer.weight = nn.Parameter(weight())
        layers.append(Shortcut(layer) if shortcuts else layer)
    x = torch.ones(1, width, dtype=torch.float64, requires_grad=True)
    direction = torch.full((1, width), width**-0.5, dtype=torch.float64)
    (found,) = torch.autograd.grad(layers(x), x, direction)
    largest = found.abs().max()  # taken out, since the squares of small ones would be zero
    return float(largest * (found / largest).norm())


def _config(ordering: Ordering, units: int, *, plain: bool = False) -> ResNetConfig:
    return ResNetConfig(
        (units,) * 3,
        (CHANNELS, 2 * CHANNELS, 4 * CHANNELS),
        strides=(1, 2, 2),
        ordering=ordering,
        shortcut="none" if plain else "B",
        stem=CIFAR_STEM,
    )


def _network(config: ResNetConfig) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network: nn.Module = config.build(10, 3).double()
    return network.eval()


def _disturb_norms(network: nn.Module) -> None:
    """As if it had learnt: statistics, factors and offsets that are not those of the start."""
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            for values, low, high in (
                (each.running_mean, -0.3, 0.3),
                (each.running_var, 0.5, 1.5),
                (each.weight.data, 0.5, 1.5),
                (each.bias.data, -0.3, 0.3),
            ):
                assert values is not None
                values.uniform_(low, high)


def _to_zero(branch: nn.Module) -> None:
    for each in branch.parameters():
        nn.init.zeros_(each)


def _to_identity(branch: nn.Module) -> None:
    for each in branch.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.dirac_(each.weight)
    _make_exact(branch)


def _make_exact(module: nn.Module) -> None:
    """Norms at their start divide by sqrt(variance + epsilon) with variance 1; this makes it 1."""
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            assert each.running_var is not None
            each.running_var.fill_(1 - each.eps)


def _folded(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """One layer without a shortcut that has the weights W + I and the same bias."""
    folded = copy.deepcopy(layer).double()
    identity = torch.zeros_like(folded.weight)
    if isinstance(layer, nn.Conv2d):
        nn.init.dirac_(identity)
    else:
        nn.init.eye_(identity)
    folded.weight = nn.Parameter(folded.weight.detach() + identity)
    return folded


def _linearity(module: nn.Module, folded: nn.Module | None) -> Linearity:
    maps = any(isinstance(each, nn.Conv2d) for each in module.modules())
    shape = (FEATURES, 8, 8) if maps else (FEATURES,)
    x, y = _normal(2, 32, *shape)
    a, b = 2.0, -3.0
    function = module.double()
    with torch.no_grad():
        whole = function(a * x + b * y)
        apart = _apart(whole, a * function(x) + b * function(y))
        same = None if folded is None else _apart(folded(a * x + b * y), whole)
    return Linearity(apart, float(whole.abs().max()), same)


def _normal(*shape: int) -> Tensor:
    chance = torch.Generator().manual_seed(SEED)
    return torch.randn(shape, generator=chance, dtype=torch.float64)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
