"""A network of the catalogue and real Keras -> how far they are apart, and with planted errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from references import keras_files, keras_networks
from residua.errors import ResiduaError
from residua.inference import network_from
from residua.networks import catalogue
from residua.networks.inception import Inception
from residua.networks.mobilenet import MobileNet
from residua.networks.residual import BOTTLENECK, BOTTLENECK_V1, Kernel, Residual
from residua.networks.xception import Xception
from residua.weights.places import complete
from residua.weights.reading import Weights, read_file

BOUND = 1e-4  # of max(1, the largest reference)
TWINS = {  # the same network, in other files
    "tutorial_resnext50_slices": "tutorial_resnext50",
    "tutorial_resnext50_lambdas": "tutorial_resnext50",
    "my_resnet_32": "tutorial_cifar_resnet32_e",
}


@dataclass(frozen=True)
class Reference:
    """What Keras computes: logits [N, K] and the stages' maps [N, H, W, C] of pictures."""

    name: str
    model: keras.Model
    pictures: np.ndarray
    logits: np.ndarray
    maps: list[np.ndarray]


def ours(name: str) -> str:
    """The name in the catalogue."""
    return TWINS.get(name, name)


def side(name: str) -> int:
    """A small input that still has maps of odd and of even sides."""
    if name.startswith("keras_vgg"):
        return 224  # its first dense layer reads 7 x 7
    if name in ("keras_inception_v3", "keras_xception"):
        return 96
    return keras_networks.defaults(name)[1] if "cifar" in name or "vgg" in name else 72


def reference(name: str, *, classes: int = 7, start: int = 0, size: int | None = None) -> Reference:
    """Keras' network with random weights and statistics, and what it computes of two pictures."""
    size = size or side(name)
    model = keras_networks.build(name, classes, size, start=start)
    keras_networks.randomise(model, seed=1)
    pictures = keras_networks.pictures(name, 2, size)
    logits, maps = keras_networks.outputs(name, model, pictures)
    return Reference(name, model, pictures, logits, maps)


def computed(network: torch.nn.Module, pictures: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """What our network computes, in Keras' layout."""
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, 1)))
    with torch.inference_mode():
        logits, maps = network(x), network.features(x)  # type: ignore[operator]
    return logits.numpy(), [each.movedim(1, -1).numpy() for each in maps]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in units of max(1, the largest reference)."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def distances(network: torch.nn.Module, true: Reference) -> list[float]:
    """Of the logits, then of each stage that Keras' reference has."""
    logits, maps = computed(network, true.pictures)
    by_shape = {each.shape: each for each in maps}
    return [
        distance(logits, true.logits),
        *(distance(by_shape[each.shape], each) for each in true.maps),
    ]


def read(path: Path, name: str) -> Weights:
    """The file, read without saying what it is where its content tells, else with the name."""
    try:
        return read_file(path)
    except ResiduaError as error:
        if "--model" not in str(error):
            raise
        return read_file(path, ours(name))


def forms(name: str) -> list[str]:
    """The forms in which Keras can write this network and residua reads it."""
    found = list(keras_files.FORMS)
    if name == "tutorial_resnet18":
        found = [each for each in found if each not in keras_files.NOT_FOR_SUBCLASSES]
    if name == "tutorial_resnext50_slices":  # Keras 2 had no layer that slices
        found.remove("keras2_whole")
    if name == "tutorial_resnext50_lambdas":  # whole models say that their code is needed
        found = [each for each in found if each.endswith("weights")]
    return found


def planted(plan: Any) -> Iterator[tuple[str, Any]]:
    """The plan with one error each, whose tensors have the same shapes."""
    if getattr(plan, "norm", None) is not None:
        wrong = 1e-5 if plan.norm.epsilon == 1e-3 else 1e-3
        norm = dataclasses.replace(plan.norm, epsilon=wrong)
        yield "epsilon", dataclasses.replace(plan, norm=norm)
    if isinstance(plan, Residual):
        yield from _planted_residual(plan)
    if isinstance(plan, Inception):
        wrong_pool = not plan.pool_counts_padding
        yield "pool", dataclasses.replace(plan, pool_counts_padding=wrong_pool)
    if isinstance(plan, Xception):
        yield "pool", dataclasses.replace(plan, pool_padding="symmetric")
    if isinstance(plan, MobileNet):
        yield "padding", dataclasses.replace(plan, keras_padding=False)


def _planted_residual(plan: Residual) -> Iterator[tuple[str, Residual]]:
    other = {"same": "symmetric", "symmetric": "same"}
    stem = plan.stem
    strided = [each.side for each in plan.branch if each.strided]
    if strided != [1] or stem.stride > 1:  # at stride 1 all rules agree, and a 1x1 needs none
        changed = dataclasses.replace(stem, padding=other[stem.padding])
        yield "padding", dataclasses.replace(plan, padding=other[plan.padding], stem=changed)
    if stem.pool:
        pools = {"valid": "symmetric", "symmetric": "valid", "same": "symmetric"}
        pool = {**pools, "zeros": "symmetric"}[stem.pool_padding]
        changed = dataclasses.replace(stem, pool_padding=pool)
        yield "pool", dataclasses.replace(plan, stem=changed)
    if plan.strided_unit == "last":
        yield "stride", dataclasses.replace(plan, strided_unit="first")
    elif plan.branch in (BOTTLENECK, BOTTLENECK_V1):
        moved = BOTTLENECK if plan.branch == BOTTLENECK_V1 else BOTTLENECK_V1
        yield "stride", dataclasses.replace(plan, branch=moved)
    else:
        basic = (Kernel(3, "output"), Kernel(3, "output", strided=True))
        yield "stride", dataclasses.replace(plan, branch=basic)


def with_error(weights: Weights, plan: Any) -> torch.nn.Module:
    """A network with these weights whose plan is another one."""
    card = weights.card.network
    network = plan.build(card["classes"], card["channels"])
    network.load_state_dict(complete(network, weights.tensors))
    return network.eval()


def network(weights: Weights) -> torch.nn.Module:
    """The network as residua predicts with it."""
    return network_from(weights, torch.device("cpu"))


def errors(name: str, weights: Weights, true: Reference) -> Iterator[tuple[str, float]]:
    """Each planted error and the distance of its logits."""
    for error, plan in planted(catalogue.row(ours(name)).plan):
        logits, _ = computed(with_error(weights, plan), true.pictures)
        yield error, distance(logits, true.logits)
