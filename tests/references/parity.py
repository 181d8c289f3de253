"""A network of the catalogue and real Keras -> how far they are apart, and with planted errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import torch

from references import keras_files, keras_networks
from residua.errors import ResiduaError
from residua.inference import network_from
from residua.networks.layers import Convolution, MaxPool
from residua.networks.residual import ResidualUnit
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
    return keras_networks.defaults(name)[1] if "cifar" in ours(name) or "vgg" in name else 72


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


def network(weights: Weights) -> torch.nn.Module:
    """The network as residua predicts with it."""
    return network_from(weights, torch.device("cpu"))


def errors(weights: Weights, true: Reference) -> Iterator[tuple[str, float]]:
    """Each planted error that this network can have, and the distance of its logits."""
    for error, plant in PLANTED.items():
        wrong = network(weights)
        if any([plant(module) for module in wrong.modules()]):
            yield error, distance(computed(wrong, true.pictures)[0], true.logits)


def _other_epsilon(module: torch.nn.Module) -> bool:
    """Keras' default and PyTorch's, one for the other."""
    found = isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)
    if found:
        module.eps = 1e-5 if module.eps == 1e-3 else 1e-3
    return found


def _other_padding(module: torch.nn.Module) -> bool:
    """Where a convolution strides: Keras' "same" and symmetric padding, one for the other."""
    if isinstance(module, torch.nn.ZeroPad2d):  # MobileNet's "same", always below and to the right
        module.padding = (1, 1, 1, 1)
        return True
    if not isinstance(module, Convolution) or module.rule not in ("same", "symmetric"):
        return False
    if module.stride == (1, 1) or module.kernel_size == (1, 1):  # there all rules agree
        return False
    symmetric = tuple(side // 2 for side in module.kernel_size)
    module.rule, module.padding = (
        ("symmetric", symmetric) if module.rule == "same" else ("same", (0, 0))
    )
    return True


def _other_pool(module: torch.nn.Module) -> bool:
    """Another padding; where the pool has none, in a VGG, an average in place of the maximum."""
    if isinstance(module, torch.nn.AvgPool2d) and module.padding != 0:
        module.count_include_pad = not module.count_include_pad
    elif isinstance(module, MaxPool) and module.kernel == 3:
        module.rule = "valid" if module.rule == "symmetric" else "symmetric"
    elif isinstance(module, MaxPool) and module.kernel == 2:
        module.forward = torch.nn.AvgPool2d(2).forward  # type: ignore[method-assign]
    else:
        return False
    return True


def _moved_stride(module: torch.nn.Module) -> bool:
    """In each unit that strides, another convolution of the branch does."""
    if not isinstance(module, ResidualUnit):
        return False
    convolutions = [each for each in module.branch if isinstance(each, Convolution)]
    strided = next((n for n, each in enumerate(convolutions) if each.stride != (1, 1)), None)
    if strided is None:
        return False
    one, other = convolutions[strided], convolutions[1 if strided == 0 else 0]
    one.stride, other.stride = other.stride, one.stride
    return True


PLANTED: dict[str, Callable[[torch.nn.Module], bool]] = {
    "epsilon": _other_epsilon,
    "padding": _other_padding,
    "pool": _other_pool,
    "stride": _moved_stride,
}
