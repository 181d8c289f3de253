"""A network of the catalogue and real Keras -> their distance, also with planted errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from references import keras_files, keras_networks
from references.keras_networks import keras
from residua.errors import ResiduaError
from residua.networks.layers import Convolution, MaxPool
from residua.networks.residual import ResidualUnit
from residua.weights.load import Weights, read_file
from residua.weights.network import build_network

BOUND = 1e-4  # of max(1, the largest reference)
TWINS = {  # the same network, in other files
    "tutorial_resnext50_slices": "tutorial_resnext50",
    "tutorial_resnext50_lambdas": "tutorial_resnext50",
    "my_resnet_32": "tutorial_cifar_resnet32_e",
}


@dataclass(frozen=True)
class Reference:
    """Keras' results: logits [N, K] and the stages' maps [N, H, W, C] of images."""

    name: str
    model: keras.Model
    images: np.ndarray
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
    """Keras' network with random weights and statistics, and its results for two images."""
    size = size or side(name)
    model = keras_networks.build(name, classes, size, start=start)
    keras_networks.randomise(model, seed=1)
    images = keras_networks.images(name, 2, size)
    logits, maps = keras_networks.outputs(name, model, images)
    return Reference(name, model, images, logits, maps)


def computed(network: torch.nn.Module, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Our network's results in Keras' layout."""
    x = channels_first(images)
    with torch.inference_mode():
        logits, maps = network(x), network.features(x)  # type: ignore[operator]
    return logits.numpy(), [tensor.movedim(1, -1).numpy() for tensor in maps]


def channels_first(images: np.ndarray) -> torch.Tensor:
    """Keras' [N, H, W, C] as [N, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in units of max(1, the largest reference)."""
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / max(1.0, np.abs(expected).max()))


def distances(network: torch.nn.Module, true: Reference) -> list[float]:
    """Of the logits, then of each stage that Keras' reference has."""
    logits, maps = computed(network, true.images)
    by_shape = {tensor.shape: tensor for tensor in maps}
    return [
        distance(logits, true.logits),
        *(distance(by_shape[tensor.shape], tensor) for tensor in true.maps),
    ]


def read(path: Path, name: str) -> Weights:
    """The file, read without naming its model where the content suffices, else with the name."""
    try:
        return read_file(path)
    except ResiduaError as error:
        if "--model" not in str(error):
            raise
        return read_file(path, ours(name))


def forms(name: str) -> list[str]:
    """The forms in which Keras can write this network and residua reads it."""
    forms = list(keras_files.FORMS)
    if name == "tutorial_resnet18":
        forms = [form for form in forms if form not in keras_files.NOT_FOR_SUBCLASSES]
    if name == "tutorial_resnext50_slices":  # Keras 2 had no layer that slices
        forms.remove("keras2_whole")
    if name == "tutorial_resnext50_lambdas":  # whole models need the user's code
        forms = [form for form in forms if form.endswith("weights")]
    return forms


def network(weights: Weights) -> torch.nn.Module:
    """The network with which residua predicts."""
    return build_network(weights, torch.device("cpu"))


def errors(weights: Weights, true: Reference) -> Iterator[tuple[str, float]]:
    """The planted errors that apply to this network, and the distances of its logits."""
    for error, plant in PLANTED.items():
        wrong = network(weights)
        if plant(list(wrong.modules())):
            with torch.inference_mode():
                logits = wrong(channels_first(true.images)).numpy()
            yield error, distance(logits, true.logits)


Modules = Sequence[torch.nn.Module]


def _other_epsilon(modules: Modules) -> int:
    """Keras' default and PyTorch's, one for the other. Returns the number of changed modules."""
    norms = [
        module
        for module in modules
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)
    ]
    for norm in norms:
        norm.eps = 1e-5 if norm.eps == 1e-3 else 1e-3
    return len(norms)


def _other_padding(modules: Modules) -> int:
    """Where a convolution strides: Keras' "same" and symmetric padding, one for the other."""
    pads = [module for module in modules if isinstance(module, torch.nn.ZeroPad2d)]
    for pad in pads:  # MobileNet's "same", always below and to the right
        pad.padding = (1, 1, 1, 1)
    convolutions = [
        module
        for module in modules
        if isinstance(module, Convolution)
        and module.rule in ("same", "symmetric")
        and module.stride != (1, 1)  # else the rules agree
        and module.kernel_size != (1, 1)
    ]
    for module in convolutions:
        same = module.rule == "same"
        module.rule = "symmetric" if same else "same"
        module.padding = tuple(side // 2 if same else 0 for side in module.kernel_size)
    return len(pads + convolutions)


def _other_pool(modules: Modules) -> int:
    """Other padding of pools; where no window crosses the rim, an average for the maximum."""
    averages = [
        module for module in modules if isinstance(module, torch.nn.AvgPool2d) and module.padding
    ]
    for average in averages:
        average.count_include_pad = not average.count_include_pad
    maxima = [module for module in modules if isinstance(module, MaxPool) and module.kernel > 1]
    for maximum in () if averages else maxima:
        if maximum.kernel == 2:
            maximum.forward = torch.nn.AvgPool2d(2).forward  # type: ignore[method-assign]
        else:
            maximum.rule = "valid" if maximum.rule == "symmetric" else "symmetric"
    return len(averages + maxima)


def _moved_stride(modules: Modules) -> int:
    """In each residual unit that strides, another convolution of its branch does.

    In MobileNet's plain units that is no error: a 1x1 convolution reads the same pixels.
    """
    units = [
        unit for unit in modules if isinstance(unit, ResidualUnit) and unit.shortcut is not None
    ]
    moved = 0
    for unit in units:
        convolutions = [layer for layer in unit.branch if isinstance(layer, Convolution)]
        strides = [conv.stride for conv in convolutions]
        if (2, 2) in strides:
            first = strides.index((2, 2))
            strides[first], strides[0 if first else 1] = (1, 1), (2, 2)
            moved += 1
        for convolution, stride in zip(convolutions, strides, strict=True):
            convolution.stride = stride
    return moved


PLANTED: dict[str, Callable[[Modules], int]] = {
    "epsilon": _other_epsilon,
    "padding": _other_padding,
    "pool": _other_pool,
    "stride": _moved_stride,
}
