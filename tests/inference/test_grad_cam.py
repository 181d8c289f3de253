"""Heat maps are where the evidence is, for every family of networks, and nowhere without any."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from references.weights_files import PREPARED

from residua.config.schema import NetworkSpec
from residua.data.augmentation import normalise
from residua.errors import ResiduaError
from residua.inference.grad_cam import grad_cam
from residua.networks.staged import Staged
from residua.networks.zoo import catalogue
from residua.weights.load import Weights
from residua.weights.native import Metadata

CPU = torch.device("cpu")
PATCH = 6  # px


def weights_of(network: Staged, spec: NetworkSpec, size: int) -> Weights:
    preprocessing = dataclasses.replace(PREPARED, size=size, channels=spec.channels)
    classes = tuple(f"class{k}" for k in range(spec.classes))
    metadata = Metadata(spec, classes, preprocessing, {})
    return Weights(Path("w.safetensors"), network.eval().state_dict(), metadata, "")


def patched(random: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise uint8 [N, 32, 32, 3] and corners int [N, 2] of white squares, in each second image."""
    pixels = random.integers(60, 180, (number, 32, 32, 3)).astype(np.uint8)
    corners = random.integers(0, 32 - PATCH, (number, 2))
    for image, (top, left) in zip(pixels[1::2], corners[1::2], strict=True):
        image[top : top + PATCH, left : left + PATCH] = 255
    return pixels, corners


def gain_in_patch(weights: Weights, pixels: np.ndarray, corners: np.ndarray) -> float:
    """Heat at the squares, 4 px wider, relative to a uniform map; median over the images."""
    heats, _ = grad_cam(weights, CPU)(pixels[1::2], np.ones(len(pixels) // 2, np.int64))
    gains = []
    for heat, (top, left) in zip(heats, corners[1::2], strict=True):
        box = np.s_[max(0, top - 4) : top + PATCH + 4, max(0, left - 4) : left + PATCH + 4]
        gains.append(heat[box].mean() / max(heat.mean(), 1e-9))
    return float(np.median(gains))


@pytest.mark.slow
def test_a_planted_shortcut_lights_up_but_not_with_random_weights(one_thread: None) -> None:
    random = np.random.default_rng(0)
    spec = NetworkSpec("cifar_resnet14", 2, 3)
    network = catalogue.build_from(spec, seed=0)
    held_out, corners = patched(random, 30)
    before = gain_in_patch(weights_of(network, spec, 32), held_out, corners)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for _ in range(25):
        pixels, _ = patched(random, 16)
        logits = network(normalise(torch.from_numpy(pixels), PREPARED))
        loss = F.cross_entropy(logits, torch.arange(16) % 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = weights_of(network, spec, 32)
    _, logits = grad_cam(weights, CPU)(held_out, None)
    assert (logits.argmax(1) == np.arange(30) % 2).mean() >= 0.9
    after = gain_in_patch(weights, held_out, corners)
    assert after > 3
    assert before < 1.5


LARGE = (("vgg16", 64), ("alexnet", 128))
FAMILIES = [  # one network of each family, at a small size that leaves a map
    *(("cifar_resnet20", 32), ("resnet18", 64), ("mobilenet_v2", 64), ("efficientnet_lite0", 64)),
    *(("densenet121", 64), ("xception", 96)),
    *(pytest.param(name, size, marks=pytest.mark.slow) for name, size in LARGE),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_every_family_has_maps(name: str, size: int, one_thread: None) -> None:
    spec = NetworkSpec(name, 3, 3)
    network = catalogue.build_from(spec, seed=1)
    pixels = np.random.default_rng(1).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    explain = grad_cam(weights_of(network, spec, size), CPU)
    for output in range(3):
        heats, logits = explain(pixels, np.array([output]))
        assert heats.shape == (1, size, size)
        assert logits.shape == (1, 3)
        assert heats.min() >= 0
        assert heats.max() == pytest.approx(1) or not heats.any()


def test_of_an_averaging_head_it_is_the_paper_s_map(one_thread: None) -> None:
    """Selvaraju 2017, section 3.1: then the weights of the channels are those of the head."""
    spec = NetworkSpec("cifar_resnet14", 4, 3)
    network = catalogue.build_from(spec, seed=2)
    pixels = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    heats, logits = grad_cam(weights_of(network, spec, 32), CPU)(pixels, np.array([3, 0]))
    with torch.no_grad():
        images = normalise(torch.from_numpy(pixels), PREPARED)
        last = network.between(images, 0, len(network.stages))
        expected = network.leave(last, len(network.stages))
        head = network.get_parameter("head.weight")[[3, 0]]
        maps = torch.einsum("nc,nchw->nhw", head, last).relu()
    assert logits == pytest.approx(expected.numpy(), abs=1e-4)
    for heat, small in zip(heats, maps.numpy(), strict=True):
        scaled = F.interpolate(torch.from_numpy(small)[None, None], (32, 32), mode="bilinear")[0, 0]
        assert heat == pytest.approx((scaled / scaled.max()).numpy(), abs=1e-3)


@pytest.mark.slow
def test_of_a_head_that_reads_several_stages_it_is_the_sum_of_what_each_place_adds(
    one_thread: None,
) -> None:
    """The mean of the unscaled evidence over all places is the logit less the bias."""
    spec = NetworkSpec("cifar_resnet14", 2, 3, head="linear", earlier_pools=(1, 1))
    network = catalogue.build_from(spec, seed=4).eval()
    pixels = np.random.default_rng(4).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    heats, _ = grad_cam(weights_of(network, spec, 32), CPU)(pixels, np.array([1]))
    with torch.no_grad():
        maps = network.head_maps(normalise(torch.from_numpy(pixels), PREPARED), 0)
        parts = network.get_parameter("head.weight")[1].split([x.shape[1] for x in maps])
        places = sum(
            F.interpolate(torch.einsum("c,nchw->nhw", part, x)[:, None], (32, 32), mode="bilinear")
            for part, x in zip(parts, maps, strict=True)
        )
        assert isinstance(places, torch.Tensor)
        expected = places[0, 0].relu() / places.relu().max()
    assert heats[0] == pytest.approx(expected.numpy(), abs=1e-3)


def test_a_head_that_reads_a_grid_of_an_early_stage_points_to_the_right_field() -> None:
    """Weights of one field alone: the map is 0 in all others."""
    spec = NetworkSpec("cifar_resnet14", 2, 3, head="linear", stage=1, pool_size=4)
    network = catalogue.build_from(spec, seed=3).eval()
    head = network.get_submodule("head")
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        weight = torch.zeros(2, head.in_features // 16, 4, 4)
        weight[1, :, 0, 3] = 1  # the field at the top right
        head.weight.copy_(weight.flatten(1))
    pixels = np.random.default_rng(3).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    (heat,), _ = grad_cam(weights_of(network, spec, 32), CPU)(pixels, np.array([1]))
    assert heat[:8, 24:].max() == 1
    assert not heat[9:].any()
    assert not heat[:, :23].any()


def test_a_map_of_one_position_explains_nothing() -> None:
    spec = NetworkSpec("resnet18", 2, 3)
    weights = weights_of(catalogue.build_from(spec, seed=0), spec, 32)
    with pytest.raises(ResiduaError, match=r"single position before its head.* \(--size\)"):
        grad_cam(weights, CPU)(np.zeros((1, 32, 32, 3), np.uint8), None)
