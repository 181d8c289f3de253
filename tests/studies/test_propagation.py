"""Measured gradients and responses agree with those computed in other ways."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua.studies.claims.propagation import (
    build,
    deviations,
    gradients,
    load_images,
    remove_norms,
    responses,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def test_gradients_are_those_of_finite_differences() -> None:
    """A small step along the gradient of a kernel changes the loss by step times its norm."""
    found = gradients(8, "A", norm=True, init="he", seeds=(3,))
    built = build(8, "A", 3).double()
    x, labels = load_images(32, 3)
    kernel = built.stem.get_submodule("conv").weight
    assert isinstance(kernel, nn.Parameter)
    loss = F.cross_entropy(built(x.double()), labels)
    (gradient,) = torch.autograd.grad(loss, kernel)
    with torch.no_grad():
        step = 1e-8 * gradient / gradient.norm()
        losses = []
        for sign in (1, -1):
            kernel.add_(sign * step)
            losses.append(float(F.cross_entropy(built(x.double()), labels)))
            kernel.sub_(sign * step)
    assert (losses[0] - losses[1]) / 2e-8 == pytest.approx(found.weights[0, 0], rel=1e-4)


@pytest.mark.parametrize(("depth", "layers"), [(8, 7), (20, 19)])
def test_without_norms_kernel_times_gradient_is_the_same_in_each_plain_layer(
    depth: int, layers: int
) -> None:
    """A ReLU network is homogeneous in each kernel, so outputs are compared, not kernels."""
    built = build(depth, "none", 0).double()
    remove_norms(built)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in built.modules())
    x, labels = load_images(32, 0)
    loss = F.cross_entropy(built(x.double()), labels)
    kernels = [layer.weight for layer in built.modules() if isinstance(layer, nn.Conv2d)]
    found = torch.autograd.grad(loss, kernels)
    products = [float((a * b).sum().detach()) for a, b in zip(kernels, found, strict=True)]
    assert len(products) == layers
    np.testing.assert_allclose(products, products[0], rtol=1e-9)
    measured = gradients(depth, "none", norm=False, init="he", seeds=(0,))
    np.testing.assert_allclose(measured.weights[0], [float(each.norm()) for each in found])


def test_the_gradient_of_the_first_output_counts_all_paths() -> None:
    """Against the gradient of a network whose stem is evaluated apart."""
    built = build(8, "A", 1).double()
    remove_norms(built)
    x, labels = load_images(32, 1)
    output = built.stem.get_submodule("conv")(x.double()).detach().requires_grad_()
    maps = torch.relu(output)
    for stage in built.stages:
        maps = stage(maps)
    loss = F.cross_entropy(built.head(built.tail(maps).mean((2, 3))), labels)
    (gradient,) = torch.autograd.grad(loss, output)
    found = gradients(8, "A", norm=False, init="he", seeds=(1,))
    assert found.outputs[0, 0] == pytest.approx(float(gradient.norm()), rel=1e-9)


def test_small_weights_lose_the_gradient_and_norms_remove_the_scale() -> None:
    bare = gradients(20, "none", norm=False, init="small", seeds=(0, 1))
    he = gradients(20, "none", norm=False, init="he", seeds=(0,))
    normed = gradients(20, "none", norm=True, init="small", seeds=(0,))
    assert bare.ratio < 1e-12 < 1e-3 < he.ratio
    assert normed.ratio > 1
    assert bare.ratios.shape == (2,)
    assert bare.ratios[0] != bare.ratios[1]


def test_responses_are_one_before_training_and_the_scales_of_the_norms_after() -> None:
    found = responses(8, "A", steps=6, seeds=(0,))
    assert found.before.shape == found.after.shape == (1, 6)
    np.testing.assert_allclose(found.before, 1, atol=1e-3)
    assert np.abs(found.after - 1).max() > 1e-3

    built = build(8, "none", 0)
    with torch.no_grad():
        for name, layer in built.named_modules():
            if name.endswith("norm1"):
                assert isinstance(layer.weight, nn.Parameter)
                layer.weight.fill_(3)
            elif name.endswith("end_norm"):
                assert isinstance(layer.weight, nn.Parameter)
                layer.weight[::2].fill_(0)  # half of the channels: root of a half
                assert isinstance(layer.bias, nn.Parameter)
                layer.bias.copy_(torch.arange(len(layer.bias)))  # moves means and no deviation
    found_now = deviations(built, load_images(64, 0)[0])
    np.testing.assert_allclose(found_now, [3, math.sqrt(0.5)] * 3, rtol=1e-3)


def test_training_improves_accuracy_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    trained = responses(8, "A", steps=60, seeds=(0,))
    assert torch.equal(before, torch.random.get_rng_state())
    assert trained.accuracy[0] > 0.4  # of ten classes
    first, again = (responses(8, "A", steps=1, seeds=(0, 1)).after for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
