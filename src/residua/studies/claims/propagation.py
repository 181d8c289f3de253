"""Depths and seeds -> gradients by layer and the strength of responses.

Plain and residual networks of He et al. 2015, section 4.2, on scikit-learn's digits, enlarged and
standardised. Legend: B batch, S seeds, L layers: the first convolution and those of the branches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.config.schema import Shortcut
from residua.networks.layers import BatchNorm, initialise
from residua.networks.staged import Staged
from residua.networks.zoo.rows import CIFAR
from residua.studies.text import Values
from residua.system.generators import Seeded

Init = Literal["he", "glorot", "small"]

SIDE = 32  # pixels, as in CIFAR-10; the networks halve it twice
TRAINED_SIDE = 16  # pixels of training images, to save time
SMALL = 0.01  # standard deviation of "small", as in AlexNet (Krizhevsky et al. 2012, section 5)
GRADIENT_IMAGES = 32  # in the batch of a gradient
RESPONSE_IMAGES = 256  # in the batch of responses
BATCH_SIZE = 32
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4  # He et al. 2015, section 4.2


@dataclass(frozen=True)
class Gradients:
    """Norms of the gradient of the loss at initialisation, in float64.

    weights, outputs: with respect to each convolution's kernel and to its output, [S, L].
    """

    depth: int
    shortcut: Shortcut
    norm: bool
    init: Init
    weights: Values
    outputs: Values

    @property
    def ratios(self) -> Values:
        """Gradient of the first output over that of the last, [S]."""
        return np.asarray(self.outputs[:, 0] / self.outputs[:, -1])

    @property
    def ratio(self) -> float:
        """Median over the seeds."""
        return float(np.median(self.ratios))


@dataclass(frozen=True)
class Responses:
    """Standard deviations after the norm of each 3x3 layer, before ReLU and addition.

    before, after: training, [S, L - 1]. accuracy: on RESPONSE_IMAGES of the training images, [S].
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


def load_images(count: int, seed: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Digits, float32 [count, 3, side, side] with mean 0 and deviation 1, and labels [count]."""
    from sklearn.datasets import load_digits

    dataset = load_digits()
    chosen = np.random.default_rng(seed).permutation(len(dataset.target))[:count]
    grey = torch.from_numpy(dataset.images[chosen].astype(np.float32))[:, None]
    large = F.interpolate(grey, size=(side, side), mode="bilinear")
    x = (large - large.mean()) / large.std()
    return x.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(dataset.target[chosen])


def build(depth: int, shortcut: Shortcut, seed: int, init: Init = "he") -> Staged:
    """A network of 6n + 2 layers for ten classes. Leaves the global random generator unchanged."""
    units = (depth - 2) // 6
    config = replace(CIFAR.with_units(units, units, units), shortcut=shortcut)
    with Seeded(seed):
        network = config.build(classes=10, channels=3)
        if init == "glorot":
            initialise(network, "glorot")
        elif init == "small":
            for layer in _convolutions(network):
                nn.init.normal_(layer.weight, std=SMALL)
    return network


def remove_norms(network: nn.Module) -> None:
    """Replace each norm by an identity."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNorm):
                setattr(parent, name, nn.Identity())


def gradients(
    depth: int, shortcut: Shortcut, norm: bool, init: Init, seeds: Iterable[int]
) -> Gradients:
    """Gradients at initialisation; each seed has its own weights and images."""
    norms = []
    for seed in seeds:
        network = build(depth, shortcut, seed, init).double()
        if not norm:
            remove_norms(network)
        norms.append(_gradient_norms(network, *load_images(GRADIENT_IMAGES, seed)))
    weights, outputs = np.swapaxes(np.array(norms), 0, 1)
    return Gradients(depth, shortcut, norm, init, weights, outputs)


def responses(depth: int, shortcut: Shortcut, steps: int, seeds: Iterable[int]) -> Responses:
    """Responses before and after a short training."""
    before, after, accuracy = [], [], []
    for seed in seeds:
        network = build(depth, shortcut, seed)
        x, labels = load_images(1_000, seed, TRAINED_SIDE)
        before.append(deviations(network, x[:RESPONSE_IMAGES]))
        _train(network, x, labels, steps, seed)
        after.append(deviations(network, x[:RESPONSE_IMAGES]))
        with torch.no_grad():
            predictions = network.eval()(x[:RESPONSE_IMAGES]).argmax(1)
        accuracy.append(float((predictions == labels[:RESPONSE_IMAGES]).float().mean()))
    return Responses(depth, shortcut, np.array(before), np.array(after), np.array(accuracy))


def deviations(network: Staged, x: Tensor) -> list[float]:
    """Standard deviation about the channel means after each norm of a branch, L - 1 numbers.

    The channels of a layer are pooled, and norms use the statistics of x.
    """
    values: list[float] = []

    def record(_: nn.Module, __: Any, output: Tensor) -> None:
        values.append(math.sqrt(float(output.var((0, 2, 3), correction=0).mean())))

    hooks = [norm.register_forward_hook(record) for norm in _branch_norms(network)]
    with torch.no_grad():
        network.train()(x)
    for hook in hooks:
        hook.remove()
    return values


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """All convolutions in the order in which they run (shortcut A has none)."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def _gradient_norms(network: Staged, x: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Norms of the gradients with respect to the kernels, and to their outputs."""
    outputs: list[Tensor] = []

    def record(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # without a norm, the in-place ReLU would overwrite it

    layers = _convolutions(network)
    for layer in layers:
        layer.register_forward_hook(record)
    loss = F.cross_entropy(network(x.double()), labels)
    grads = torch.autograd.grad(loss, [*(layer.weight for layer in layers), *outputs])
    norms = [float(gradient.norm()) for gradient in grads]
    return norms[: len(layers)], norms[len(layers) :]


def _branch_norms(network: Staged) -> Iterator[BatchNorm]:
    for name, module in network.named_modules():
        if isinstance(module, BatchNorm) and ".branch." in name:
            yield module


def _train(network: Staged, x: Tensor, labels: Tensor, steps: int, seed: int) -> None:
    """Momentum SGD on batches drawn with replacement, with warm-up in the first half.

    The paper warms up its network of 110 layers too; a plain one of 56 needs it in so few steps.
    """
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, 2 * (step + 1) / steps)
        chosen = torch.randint(len(x), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(network(x[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
