"""Depths and seeds -> gradients by layer and the strength of responses; the numbers of a study.

Plain and residual networks of He et al. 2015, section 4.2, on scikit-learn's digits, enlarged and
standardised. Legend: B batch, S seeds, L layers, those of the branches with the
first convolution before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.networks.layers import BatchNorm, initialise
from residua.networks.residual import CIFAR_STEM, ResNet, ResNetConfig, Shortcut

Values = npt.NDArray[np.float64]
Start = Literal["he", "glorot", "small"]

SIDE = 32  # pixels, as CIFAR-10 has them; the networks halve it twice
TRAINED_SIDE = 16  # of images that are learnt, to save time
SMALL = 0.01  # standard deviation of "small", as AlexNet began (Krizhevsky et al. 2012, section 5)
IMAGES = 32  # in the batch whose gradient is looked at
HELD = 256  # in the batch whose responses are looked at
BATCH = 32  # of a step of training
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-4  # He et al. 2015, section 4.2


@dataclass(frozen=True)
class Gradients:
    """Norms of the loss' gradient at initialisation, in float64.

    weights, responses: of each convolution's kernel and of its output, [S, L].
    """

    depth: int
    shortcut: Shortcut
    norm: bool
    start: Start
    weights: Values
    responses: Values

    @property
    def ratios(self) -> Values:
        """First layer over last, of the responses, [S]: what all layers between multiply."""
        return np.asarray(self.responses[:, 0] / self.responses[:, -1])

    @property
    def ratio(self) -> float:
        """The middle one of all seeds."""
        return float(np.median(self.ratios))


@dataclass(frozen=True)
class Responses:
    """Standard deviations behind each 3x3 layer's norm, before ReLU and addition.

    before, after: training, [S, L] without the first convolution. accuracy: on HELD of the images
    that were learnt, a share for each seed.
    """

    depth: int
    shortcut: Shortcut
    before: Values
    after: Values
    accuracy: Values

    @property
    def mean(self) -> float:
        """Mean over layers and seeds, after training."""
        return float(self.after.mean())


def images(count: int, seed: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Digits, float32 [count, 3, side, side] of mean 0 and deviation 1, and their classes."""
    from sklearn.datasets import load_digits

    held = load_digits()
    chosen = np.random.default_rng(seed).permutation(len(held.target))[:count]
    grey = torch.from_numpy(held.images[chosen].astype(np.float32))[:, None]
    large = F.interpolate(grey, size=(side, side), mode="bilinear")
    x = (large - large.mean()) / large.std()
    return x.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(held.target[chosen])


def network(depth: int, shortcut: Shortcut, seed: int, start: Start = "he") -> ResNet:
    """One of 6n + 2 layers for ten classes. The global random generator stays as it is."""
    units = (depth - 2) // 6
    config = ResNetConfig(
        (units,) * 3, (16, 32, 64), strides=(1, 2, 2), shortcut=shortcut, stem=CIFAR_STEM
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = config.build(classes=10, channels=3)
        if start == "glorot":
            initialise(built, "glorot")
        elif start == "small":
            for layer in convolutions(built):
                nn.init.normal_(layer.weight, std=SMALL)
    return built


def without_norms(built: nn.Module) -> None:
    """Put an identity in place of each norm."""
    for parent in list(built.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNorm):
                setattr(parent, name, nn.Identity())


def convolutions(built: nn.Module) -> list[nn.Conv2d]:
    """All convolutions in the order in which they run (shortcut A has none)."""
    return [each for each in built.modules() if isinstance(each, nn.Conv2d)]


def gradients(
    depth: int, shortcut: Shortcut, norm: bool, start: Start, seeds: Iterable[int]
) -> Gradients:
    """At initialisation, each seed with weights and images of its own."""
    norms = []
    for seed in seeds:
        built = network(depth, shortcut, seed, start).double()
        if not norm:
            without_norms(built)
        norms.append(_norms(built, *images(IMAGES, seed)))
    weights, responses = np.swapaxes(np.array(norms), 0, 1)
    return Gradients(depth, shortcut, norm, start, weights, responses)


def _norms(built: ResNet, x: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Norms of one gradient: of the kernels, of their outputs."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # without a norm the ReLU behind would overwrite what is kept

    layers = convolutions(built)
    for layer in layers:
        layer.register_forward_hook(keep)
    loss = F.cross_entropy(built(x.double()), labels)
    found = torch.autograd.grad(loss, [*(each.weight for each in layers), *outputs])
    sizes = [float(each.norm()) for each in found]
    return sizes[: len(layers)], sizes[len(layers) :]


def responses(depth: int, shortcut: Shortcut, steps: int, seeds: Iterable[int]) -> Responses:
    """Before and after a short training of `steps` steps."""
    before, after, accuracy = [], [], []
    for seed in seeds:
        built = network(depth, shortcut, seed)
        x, labels = images(1_000, seed, TRAINED_SIDE)
        before.append(deviations(built, x[:HELD]))
        _train(built, x, labels, steps, seed)
        after.append(deviations(built, x[:HELD]))
        with torch.no_grad():
            right = built.eval()(x[:HELD]).argmax(1) == labels[:HELD]
        accuracy.append(float(right.float().mean()))
    return Responses(depth, shortcut, np.array(before), np.array(after), np.array(accuracy))


def deviations(built: ResNet, x: Tensor) -> list[float]:
    """Standard deviation about each channel's mean behind every norm of a branch, L - 1 numbers.

    All channels of a layer are pooled, and norms use the statistics of x.
    """
    found: list[float] = []

    def look(_: nn.Module, __: Any, output: Tensor) -> None:
        found.append(math.sqrt(float(output.var((0, 2, 3), correction=0).mean())))

    hooks = [each.register_forward_hook(look) for each in _branch_norms(built)]
    with torch.no_grad():
        built.train()(x)
    for hook in hooks:
        hook.remove()
    return found


def _branch_norms(built: ResNet) -> Iterator[BatchNorm]:
    for name, each in built.named_modules():
        if isinstance(each, BatchNorm) and ".branch." in name:
            yield each


def _train(built: ResNet, x: Tensor, labels: Tensor, steps: int, seed: int) -> None:
    """Momentum SGD, batches drawn with replacement; the rate grows to RATE in the first half.

    The paper warms its network of 110 layers up as well; a plain one of 56 needs it at once.
    """
    optimizer = torch.optim.SGD(built.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    chance = torch.Generator().manual_seed(seed)
    built.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, 2 * (step + 1) / steps)
        chosen = torch.randint(len(x), (BATCH,), generator=chance)
        optimizer.zero_grad()
        F.cross_entropy(built(x[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
