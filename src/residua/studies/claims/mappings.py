"""Residual units and chains of layers -> how close they are to the identity, or linear; gradients.

Everything is measured in float64 on modules whose random numbers have a fixed seed.
Legend: B batch, C channels, H height, W width, L depth.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from residua.config.schema import Ordering
from residua.networks.layers import Convolution
from residua.networks.residual import ResNetConfig, unit_plan
from residua.networks.zoo.rows import CIFAR
from residua.system.generators import Seeded

SEED = 1
CHANNELS = 16  # of the first stage
FEATURES = 16  # of the linear layers with a shortcut
WIDE = 64  # features of the chains whose layers are matrices


class NetworkDifference(NamedTuple):
    """Largest differences between the logits of network A and of B, which is A with zero units.

    evaluation, training: with running and with batch statistics. random: with random added units.
    logits: the largest logit of A.
    """

    evaluation: float
    training: float
    random: float
    logits: float


class UnitDifference(NamedTuple):
    """Largest differences between the output of a zero unit and its input x ~ N(0, 1).

    positive: for x >= 0. both: for x of both signs. rectified: of the latter from ReLU(x).
    training: for x >= 0 with batch statistics.
    """

    positive: float
    both: float
    rectified: float
    training: float


class Linearity(NamedTuple):
    """superposition: the largest |f(ax + by) - af(x) - bf(y)|. outputs: the largest |f(ax + by)|.

    folded: the largest difference from one layer with weights W + I, where there is one.
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


def network_difference(
    ordering: Ordering, *, exact: bool = False, plain: bool = False
) -> NetworkDifference:
    """Compare a network of one unit per stage with one of two, where the second unit is zero.

    exact: the added norms after the addition divide by 1, not by sqrt(1 + epsilon). plain: without
    shortcuts; the added convolutions are identity kernels and their norms exact.
    """
    shallow, deep = (_network(_config(ordering, count, plain=plain)) for count in (1, 2))
    with Seeded(SEED):
        _randomise_norms(shallow)
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
        evaluation = _distance(deep(images), expected)
        control = _distance(random(images), expected)
        training = _distance(deep.train()(images), shallow.train()(images))
    return NetworkDifference(evaluation, training, control, float(expected.abs().max()))


def unit_difference(ordering: Ordering, *, exact: bool = False) -> UnitDifference:
    """Apply one unit whose branch is zero to random maps; exact: see `network_difference`."""
    with Seeded(0):
        unit = unit_plan(_config(ordering, 1), 0, CHANNELS, 1).build().double().eval()
    _to_zero(unit.branch)
    if exact:
        _make_exact(unit.after)
    x = _normal(8, CHANNELS, 8, 8)
    with torch.no_grad():
        positive, both = _distance(unit(x.abs()), x.abs()), _distance(unit(x), x)
        rectified = _distance(unit(x), x.relu())
        training = _distance(unit.train()(x.abs()), x.abs())
    return UnitDifference(positive, both, rectified, training)


def linearities() -> dict[str, Linearity]:
    """The layers that a shortcut bypasses -> whether the whole is linear."""
    with Seeded(SEED):
        biased = nn.Linear(FEATURES, FEATURES)
        one, two = (nn.Linear(FEATURES, FEATURES, bias=False) for _ in range(2))
        kernel = Convolution(FEATURES, FEATURES, 3)
    relu = nn.ReLU()
    modules: dict[str, tuple[nn.Module, nn.Module | None]] = {
        "one linear layer": (Shortcut(one), _folded(one)),
        "one 3x3 convolution": (Shortcut(kernel), _folded(kernel)),
        "two linear layers": (Shortcut(nn.Sequential(one, two)), None),
        "one linear layer with a bias": (Shortcut(biased), _folded(biased)),
        "one linear layer, with a ReLU after the addition": (
            Shortcut(one, relu),
            nn.Sequential(_folded(one), relu),
        ),
        "one linear layer, with a ReLU before the addition": (
            Shortcut(nn.Sequential(one, relu)),
            None,
        ),
        "a ReLU, then one linear layer": (Shortcut(nn.Sequential(relu, one)), None),
        "two linear layers with a ReLU between": (Shortcut(nn.Sequential(one, relu, two)), None),
    }
    return {name: _linearity(*pair) for name, pair in modules.items()}


def gradient(factor: float, depth: int, *, shortcuts: bool) -> float:
    """d output / d input of L layers y = factor * x, or y = factor * x + x, by autograd."""
    weight = torch.tensor([[factor]], dtype=torch.float64)
    return _chain_gradient(1, depth, lambda: weight, shortcuts=shortcuts)


def wide_gradient(factor: float, depth: int, *, shortcuts: bool) -> float:
    """The same for L layers of WIDE features, each `factor` times a random rotation.

    Returns the norm of the gradient at the input for a gradient of norm 1 at the output.
    """
    generator = torch.Generator().manual_seed(SEED)

    def rotation() -> Tensor:
        matrix = torch.randn(WIDE, WIDE, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(matrix)
        rotated: Tensor = q * r.diagonal().sign()  # makes all rotations equally likely
        return factor * rotated

    return _chain_gradient(WIDE, depth, rotation, shortcuts=shortcuts)


def _chain_gradient(
    width: int, depth: int, weight: Callable[[], Tensor], *, shortcuts: bool
) -> float:
    layers = nn.Sequential()
    for _ in range(depth):
        with Seeded(0):
            layer = nn.Linear(width, width, bias=False).double()
        layer.weight = nn.Parameter(weight())
        layers.append(Shortcut(layer) if shortcuts else layer)
    x = torch.ones(1, width, dtype=torch.float64, requires_grad=True)
    direction = torch.full((1, width), width**-0.5, dtype=torch.float64)
    (grad,) = torch.autograd.grad(layers(x), x, direction)
    largest = grad.abs().max()  # factored out, since squares of tiny values underflow
    return float(largest * (grad / largest).norm())


def _config(ordering: Ordering, units: int, *, plain: bool = False) -> ResNetConfig:
    config = CIFAR.with_units(units, units, units)
    return replace(config, ordering=ordering, shortcut="none" if plain else "B")


def _network(config: ResNetConfig) -> nn.Module:
    with Seeded(SEED):
        network: nn.Module = config.build(10, 3).double()
    return network.eval()


def _randomise_norms(network: nn.Module) -> None:
    """Statistics, scales and offsets that differ from their initial values, as after training."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.running_mean, -0.3, 0.3),
                (norm.running_var, 0.5, 1.5),
                (norm.weight.data, 0.5, 1.5),
                (norm.bias.data, -0.3, 0.3),
            ):
                assert values is not None
                values.uniform_(low, high)


def _to_zero(branch: nn.Module) -> None:
    for parameter in branch.parameters():
        nn.init.zeros_(parameter)


def _to_identity(branch: nn.Module) -> None:
    for layer in branch.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight)
    _make_exact(branch)


def _make_exact(module: nn.Module) -> None:
    """Initial norms divide by sqrt(variance + epsilon) with variance 1; this makes the sum 1."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_var is not None
            norm.running_var.fill_(1 - norm.eps)


def _folded(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """One layer without a shortcut, with weights W + I and the same bias."""
    folded = copy.deepcopy(layer).double()
    identity = torch.zeros_like(folded.weight)
    if isinstance(layer, nn.Conv2d):
        nn.init.dirac_(identity)
    else:
        nn.init.eye_(identity)
    folded.weight = nn.Parameter(folded.weight.detach() + identity)
    return folded


def _linearity(module: nn.Module, folded: nn.Module | None) -> Linearity:
    maps = any(isinstance(layer, nn.Conv2d) for layer in module.modules())
    shape = (FEATURES, 8, 8) if maps else (FEATURES,)
    x, y = _normal(2, 32, *shape)
    a, b = 2.0, -3.0
    function = module.double()
    with torch.no_grad():
        whole = function(a * x + b * y)
        superposition = _distance(whole, a * function(x) + b * function(y))
        difference = None if folded is None else _distance(folded(a * x + b * y), whole)
    return Linearity(superposition, float(whole.abs().max()), difference)


def _normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())
