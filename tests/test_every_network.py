"""The whole catalogue: what every network does, whatever its family.

Shapes are checked on the networks as they are, without memory. Where numbers are needed, rows of
more than LARGEST parameters lend their place to the same plan with fewer units and channels, so
that names, layers, paddings and the way through the package stay those of the row.
"""

from __future__ import annotations

import dataclasses
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks.alexnet import AlexNetConfig
from residua.networks.analysis.cost import measure, smallest_input
from residua.networks.densenet import DenseNetConfig
from residua.networks.inception import InceptionConfig
from residua.networks.residual import ResNetConfig
from residua.networks.vgg import VGGConfig
from residua.networks.zoo import catalogue
from residua.networks.zoo.row import NetworkConfig
from residua.runs.sources import start_from
from residua.weights.load import read_file
from residua.weights.native import Metadata, to_bytes
from residua.weights.network import build_network
from residua.weights.published.defaults import defaults_for

ROWS = dict(catalogue.ROWS)
LARGEST = 5_000_000  # parameters that are filled with numbers here
CPU = torch.device("cpu")
PRECISIONS = (torch.bfloat16, torch.float32)
every_network = pytest.mark.parametrize("name", ROWS)


pytestmark = pytest.mark.usefixtures("one_thread")


def narrowed(plan: NetworkConfig) -> NetworkConfig:
    """The plan with two units in a stage and a quarter of the channels, where it says so itself."""

    def quarter(widths: tuple[int, ...]) -> Any:
        return tuple(each // 4 for each in widths)

    if isinstance(plan, ResNetConfig):
        return dataclasses.replace(
            plan,
            units=tuple(min(each, 2) for each in plan.units),
            outputs=quarter(plan.outputs),
            inner=quarter(plan.inner),
            groups=max(1, plan.groups // 4),
            stem=dataclasses.replace(plan.stem, width=plan.stem.width // 4),
        )
    if isinstance(plan, VGGConfig):
        return dataclasses.replace(plan, hidden=tuple(64 for _ in plan.hidden))
    if isinstance(plan, AlexNetConfig):
        return dataclasses.replace(plan, widths=quarter(plan.widths))
    if isinstance(plan, DenseNetConfig):
        layers = tuple(min(each, 2) for each in plan.layers)
        return dataclasses.replace(plan, layers=layers, growth=8, width=16)
    if isinstance(plan, InceptionConfig):
        thinner = [
            tuple(re.sub(r":(\d+)", lambda hit: f":{int(hit[1]) // 4}", each) for each in sentences)
            for sentences in plan.stages
        ]
        return dataclasses.replace(plan, stages=tuple(thinner))
    return plan


@cache
def smallest(name: str) -> int:
    """Of the row as it is."""
    with torch.device("meta"):
        return smallest_input(ROWS[name].config.build(2, 3))


@pytest.fixture
def small(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of `build` for other classes and channels than the row's, which is made small."""
    row = ROWS[name]
    if row.trainable > LARGEST:
        monkeypatch.setitem(
            catalogue.ROWS, name, dataclasses.replace(row, config=narrowed(row.config))
        )
    other = {"classes": 5, "channels": 4 - row.channels}
    return {"name": name, **other}


def images(arguments: dict[str, Any], count: int, side: int | None = None) -> Tensor:
    """Random images; an odd side by default, where a shortcut must round as the branch does."""
    side = max(smallest(arguments["name"]), 17) if side is None else side
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, arguments["channels"], side, side, generator=generator)


def autocast(precision: torch.dtype) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16)


@every_network
def test_learns(small: dict[str, Any]) -> None:
    """Forward and backward for other classes and channels; every parameter takes part."""
    network = catalogue.build(**small, seed=0)
    parameters = dict(network.named_parameters())
    for precision in PRECISIONS:
        with autocast(precision):
            logits = network(images(small, 3))
        assert logits.shape == (3, 5)
        loss = F.cross_entropy(logits.float(), torch.tensor([0, 1, 4]))
        gradients = torch.autograd.grad(loss, list(parameters.values()))  # refuses an unused one
        for name, gradient in zip(parameters, gradients, strict=True):
            assert gradient.isfinite().all(), (name, precision)
        assert gradients[0].any(), precision


def strides(name: str) -> tuple[int, ...]:
    """Of the feature maps, by family, so that no plan is asked about itself."""
    if re.match("tutorial_cifar_resnet(50|101|152)", name):
        return 2, 4, 8, 16
    if "cifar" in name and "vgg" not in name:
        return 1, 2, 4
    if re.match(r"keras_resnet\d+v2", name):
        return 8, 16, 32, 32  # it strides in the last unit of a stage
    if re.search("resne|densenet|alexnet", name):
        return 4, 8, 16, 32
    return 2, 4, 8, 16, 32


@every_network
def test_maps_shrink_by_the_strides(name: str) -> None:
    row = catalogue.row(name)
    with torch.device("meta"), torch.no_grad():
        network: Any = catalogue.build(name).eval()
        maps = network.features(torch.empty(2, row.channels, row.size, row.size))
    assert len(maps) == len(strides(name))
    for each, stride in zip(maps, strides(name), strict=True):
        height, width = each.shape[-2:]
        # windows without padding lose a rim: 55 of 56 places, 8 of 9
        assert int(0.85 * row.size / stride) <= height == width <= math.ceil(row.size / stride)


@every_network
def test_the_last_map_feeds_the_head(small: dict[str, Any]) -> None:
    network: Any = catalogue.build(**small, seed=0).eval()
    batch = images(small, 2)
    read: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    for precision in PRECISIONS:
        with torch.no_grad(), autocast(precision):
            logits = network(batch)
            last = network.features(batch)[-1]
        assert logits.isfinite().all(), precision
        side = math.isqrt(read[-1].shape[1] // last.shape[1])
        torch.testing.assert_close(F.adaptive_avg_pool2d(last, side).flatten(1), read[-1])


def stored_as(precision: torch.dtype, network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict().items()
    return {key: each.to(precision) if each.is_floating_point() else each for key, each in state}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, each in expected.items():
        assert found[key].dtype == each.dtype, key
        assert torch.equal(found[key], each), key


@every_network
def test_weights_come_back_and_take_another_head(small: dict[str, Any], tmp_path: Path) -> None:
    network = catalogue.build(**small, seed=0)
    batch = images(small, 2)
    with torch.no_grad():
        network(batch)  # in training mode: the statistics move away from 0 and 1
        logits = network.eval()(batch)
    preprocessing = defaults_for(small["name"], small["classes"], small["channels"]).preprocessing
    path = tmp_path / "ours.safetensors"
    for precision in PRECISIONS:
        state = stored_as(precision, network)
        path.write_bytes(to_bytes(state, Metadata(small, (), preprocessing, {})))
        weights = read_file(path)
        assert weights.metadata.network == small
        assert_same(weights.tensors, state)
        again = build_network(weights, CPU)
        assert_same(again.state_dict(), stored_as(torch.float32, again))
        assert_same(stored_as(precision, again), state)
    with torch.inference_mode():
        torch.testing.assert_close(again(batch), logits, rtol=1e-4, atol=1e-4)

    wider = {**small, "classes": 7}
    with pytest.raises(ResiduaError, match=r"has 5 outputs, but 7 are needed\. --new-head"):
        start_from(weights, wider, new_head=False, seed=1)
    other = start_from(weights, wider, new_head=True, seed=1)
    swapped = other.state_dict()
    wide = {key for key, each in swapped.items() if each.shape != state[key].shape}
    assert {swapped[key].shape[0] for key in wide} == {7}
    fresh = {key.rpartition(".")[0] for key in wide}
    assert all(layer.partition(".")[0] == "head" for layer in fresh)
    kept = {key: each for key, each in swapped.items() if key.rpartition(".")[0] not in fresh}
    assert_same(kept, {key: state[key] for key in kept})
    with torch.inference_mode():
        assert other(images).shape == (2, 7)


@every_network
def test_the_smallest_image(small: dict[str, Any]) -> None:
    side = smallest(small["name"])
    network = catalogue.build(**small, seed=0).eval()
    with torch.inference_mode():
        assert network(images(small, 1, side)).isfinite().all()
        with pytest.raises(RuntimeError):
            network(images(small, 1, side - 1))
    words = f"needs {small['channels']} channels, {side} or more pixels"
    with pytest.raises(ResiduaError, match=words):
        measure(network, (small["channels"], side - 1, side - 1))
