"""A network of the catalogue -> checks that it trains, pools, measures and restores its weights.

Rows of more than LARGEST parameters are narrowed: fewer units and channels, but the names, layers,
paddings and the way through the package stay those of the row.
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

from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks import alexnet, vgg, xception
from residua.networks.alexnet import AlexNetConfig
from residua.networks.analysis.cost import measure, smallest_input
from residua.networks.analysis.shapes import on_meta
from residua.networks.densenet import DenseNetConfig
from residua.networks.inception import InceptionConfig
from residua.networks.mobilenet import MobileNetConfig
from residua.networks.residual import ResNetConfig
from residua.networks.vgg import VGGConfig
from residua.networks.zoo import catalogue
from residua.networks.zoo.rows import NetworkConfig
from residua.runs.sources import start_from
from residua.weights.load import read_file
from residua.weights.native import Metadata, to_bytes
from residua.weights.network import build_network
from residua.weights.published.defaults import defaults_for

ROWS = dict(catalogue.ROWS)
LARGEST = 100_000
CPU = torch.device("cpu")
PRECISIONS = (torch.bfloat16, torch.float32)
NARROW_XCEPTION = (((16, 16),), ((24, 24),), ((32, 32), (32, 32, 32)), ((32, 48),))


def narrowed(config: NetworkConfig) -> NetworkConfig:
    """Two units in a stage and a quarter of the channels, where the config states them."""

    def quarter(widths: tuple[int, ...]) -> Any:
        return tuple(width // 4 for width in widths)

    if isinstance(config, ResNetConfig):
        return dataclasses.replace(
            config,
            units=tuple(min(count, 2) for count in config.units),
            outputs=quarter(config.outputs),
            inner=quarter(config.inner),
            groups=max(1, config.groups // 4),
            stem=dataclasses.replace(config.stem, width=config.stem.width // 4),
        )
    if isinstance(config, MobileNetConfig):
        return dataclasses.replace(config, width=0.25)
    if isinstance(config, VGGConfig):
        return dataclasses.replace(config, hidden=tuple(64 for _ in config.hidden))
    if isinstance(config, AlexNetConfig):
        return dataclasses.replace(config, widths=quarter(config.widths))
    if isinstance(config, DenseNetConfig):
        layers = tuple(min(count, 2) for count in config.layers)
        return dataclasses.replace(config, layers=layers, growth=8, width=16)
    if isinstance(config, InceptionConfig):
        stages = tuple(
            tuple(re.sub(r":(\d+)", lambda hit: f":{int(hit[1]) // 4}", block) for block in blocks)
            for blocks in config.stages
        )
        return dataclasses.replace(config, stages=stages)
    return config


def narrow_spec(name: str, patch: pytest.MonkeyPatch) -> NetworkSpec:
    """A spec with other classes and channels than the row's, which `patch` makes narrow."""
    row = ROWS[name]
    if row.trainable > LARGEST:
        patch.setitem(catalogue.ROWS, name, dataclasses.replace(row, config=narrowed(row.config)))
        patch.setattr(alexnet, "HIDDEN", 64)
        patch.setattr(vgg, "WIDTHS", tuple(width // 4 for width in vgg.WIDTHS))
        patch.setattr(xception, "STAGES", NARROW_XCEPTION)
        patch.setattr(xception, "TAIL", (32, 64))
    return NetworkSpec(name, 5, 4 - row.channels)


@cache
def smallest_side(name: str) -> int:
    """The smallest input of the row as published."""
    with on_meta():
        return smallest_input(ROWS[name].config.build(2, 3))


def images(spec: NetworkSpec, count: int, side: int | None = None) -> Tensor:
    """Random images; an odd side by default, where a shortcut must round as the branch does."""
    side = max(smallest_side(spec.name), 17) if side is None else side
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, spec.channels, side, side, generator=generator)


def autocast(precision: torch.dtype) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16)


def check_training(spec: NetworkSpec) -> None:
    """Every parameter gets a finite gradient in float32 and bfloat16; images stay as they were."""
    network, batch = catalogue.build_from(spec, seed=0), images(spec, 3)
    before, parameters = batch.clone(), dict(network.named_parameters())
    for precision in PRECISIONS:
        with autocast(precision):
            logits = network(batch)
        assert torch.equal(batch, before)
        assert logits.shape == (3, 5)
        loss = F.cross_entropy(logits.float(), torch.tensor([0, 1, 4]))
        gradients = torch.autograd.grad(loss, list(parameters.values()))  # refuses unused ones
        for name, gradient in zip(parameters, gradients, strict=True):
            assert gradient.isfinite().all(), (name, precision)
        assert gradients[0].any(), precision


def check_head(spec: NetworkSpec) -> None:
    """The head reads the average-pooled last feature map."""
    network: Any = catalogue.build_from(spec, seed=0).eval()
    batch = images(spec, 2)
    read: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    for precision in PRECISIONS:
        with torch.no_grad(), autocast(precision):
            logits = network(batch)
            last = network.features(batch)[-1]
        assert logits.isfinite().all(), precision
        side = math.isqrt(read[-1].shape[1] // last.shape[1])
        torch.testing.assert_close(F.adaptive_avg_pool2d(last, side).flatten(1), read[-1])


def check_smallest_image(spec: NetworkSpec) -> None:
    """`smallest_input` runs; one pixel less does not, and `measure` states both."""
    side = smallest_side(spec.name)
    network = catalogue.build_from(spec, seed=0).eval()
    with torch.inference_mode():
        assert network(images(spec, 1, side)).isfinite().all()
        with pytest.raises(RuntimeError):
            network(images(spec, 1, side - 1))
    words = f"needs {spec.channels} channels, {side} or more pixels"
    with pytest.raises(ResiduaError, match=words):
        measure(network, (spec.channels, side - 1, side - 1))


def stored_as(precision: torch.dtype, network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict().items()
    return {key: x.to(precision) if x.is_floating_point() else x for key, x in state}


def assert_same(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        assert tensors[key].dtype == tensor.dtype, key
        assert torch.equal(tensors[key], tensor), key


def check_weights(spec: NetworkSpec, folder: Path) -> None:
    """Weights come back from a file in both precisions, and take a head of another width."""
    network = catalogue.build_from(spec, seed=0)
    batch = images(spec, 2)
    with torch.no_grad():
        network(batch)  # in training mode: the statistics move away from 0 and 1
        logits = network.eval()(batch)
    preprocessing = defaults_for(spec.name, spec.classes, spec.channels).preprocessing
    path = folder / "ours.safetensors"
    for precision in PRECISIONS:
        state = stored_as(precision, network)
        path.write_bytes(to_bytes(state, Metadata(spec, (), preprocessing, {})))
        weights = read_file(path)
        assert weights.metadata.network == spec
        assert_same(weights.tensors, state)
        restored = build_network(weights, CPU)
        assert_same(restored.state_dict(), stored_as(torch.float32, restored))
        assert_same(stored_as(precision, restored), state)
    with torch.inference_mode():
        torch.testing.assert_close(restored(batch), logits, rtol=1e-4, atol=1e-4)

    wider = dataclasses.replace(spec, classes=7)
    with pytest.raises(ResiduaError, match=r"has 5 outputs, but 7 are needed\. --new-head"):
        start_from(weights, wider, new_head=False, seed=1)
    other = start_from(weights, wider, new_head=True, seed=1)
    replaced = other.state_dict()
    wide = {key for key, x in replaced.items() if x.shape != state[key].shape}
    assert {replaced[key].shape[0] for key in wide} == {7}
    fresh = {key.rpartition(".")[0] for key in wide}
    assert all(layer.partition(".")[0] == "head" for layer in fresh)
    body = {key: x for key, x in replaced.items() if key.rpartition(".")[0] not in fresh}
    assert_same(body, {key: state[key] for key in body})
    with torch.inference_mode():
        assert other(batch).shape == (2, 7)
