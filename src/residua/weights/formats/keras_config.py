"""The configuration in a whole-model file of Keras -> what its layers compute; it is never built.

Equal names and shapes do not make equal networks: another epsilon, stride or activation computes
something else with the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residua.errors import ResiduaError
from residua.weights.formats.raw import LONGEST_HEADER, plain

USUAL = {  # layers of networks that are known here
    *("InputLayer", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "BatchNormalization", "Dense"),
    *("Activation", "ReLU", "Softmax", "ZeroPadding2D", "MaxPooling2D", "AveragePooling2D", "Add"),
    *("GlobalAveragePooling2D", "Concatenate", "Flatten", "Reshape", "Dropout", "GetItem"),
    *("Functional", "Model", "Sequential", "Convolution2D", "Merge"),
}
PREPARING = {"Rescaling", "Normalization", "Resizing", "CenterCrop"}
ACTIVATIONS = {"linear", "relu", "relu6", "softmax", None}


@dataclass(frozen=True)
class Described:
    """layers: name -> its class and settings, those of nested models too. side: of the square
    input; 0 where that is open or nobody says it.
    """

    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    side: int = 0

    @property
    def preparing(self) -> list[str]:
        """Classes of layers that prepare images, which is not done here by layers."""
        return sorted({each["class"] for each in self.layers.values()} & PREPARING)

    def strange(self) -> Iterator[str]:
        """Sentences about layers that no network here has."""
        for called, each in self.layers.items():
            name, kind = plain(called), each["class"]
            if kind in PREPARING or kind.startswith("Random"):
                continue
            activation = each.get("activation")
            if kind not in USUAL:
                yield f"{name} of the file is a layer {plain(kind)}, which it does not have"
            elif not isinstance(activation, str | None) or activation not in ACTIVATIONS:
                yield f"{name} of the file ends in {plain(activation)}, expected relu or softmax"
            elif each.get("negative_slope"):
                yield f"{name} of the file is a leaky ReLU, expected a plain one"

    def wrong(self, name: str, epsilon: float | None, stride: int | None) -> Iterator[str]:
        """How the layer `name` computes otherwise than one with this epsilon and stride."""
        found = self.layers.get(name, {})
        its_epsilon, strides = found.get("epsilon"), found.get("strides")
        if epsilon and its_epsilon is not None and not _near(its_epsilon, epsilon):
            yield f"epsilon is {plain(its_epsilon)}, expected {epsilon:g}"
        if stride is not None and strides is not None and strides not in (stride, [stride] * 2):
            yield f"strides are {plain(strides)}, expected {stride}"


def describe(path: Path, text: str | bytes) -> Described:
    """What a model_config or config.json says.

    Raises ResiduaError that names a Lambda layer: what that computes only its code tells.
    """
    if len(text) > LONGEST_HEADER:
        raise ValueError(f"its configuration has {len(text):,} characters")
    config = json.loads(text)
    layers = {str(each.get("name")): each for each in _layers(config)}
    if found := next((each for each in _everything(config) if _is_lambda(each)), None):
        name = found["config"].get("name") if isinstance(found.get("config"), dict) else "?"
        raise ResiduaError(
            f"{path}: holds the Lambda layer {plain(name)}: what the network computes depends on "
            "its code, and code in a file is never run. If it changes nothing that weights need, "
            "save them alone with model.save_weights."
        )
    return Described(layers, _side(layers))


def _near(found: object, wanted: float) -> bool:
    return isinstance(found, float) and abs(found - wanted) < 1e-4 * wanted


def _is_lambda(value: Mapping[str, Any]) -> bool:
    return value.get("class_name") == "Lambda"


def _everything(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _everything(each)


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Every layer of a functional or sequential model, and of the models in it."""
    inner = config.get("config") if isinstance(config, dict) else None
    listed = inner.get("layers") if isinstance(inner, dict) else inner
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and isinstance(each.get("config"), dict | list):
            settings = each["config"] if isinstance(each["config"], dict) else {}
            yield {**settings, "class": str(each.get("class_name"))}
            yield from _layers(each)


def _side(layers: Mapping[str, Mapping[str, Any]]) -> int:
    for each in layers.values():
        shape = each.get("batch_shape") or each.get("batch_input_shape")
        if isinstance(shape, list) and len(shape) == 4 and shape[1] == shape[2]:
            return shape[1] if isinstance(shape[1], int) and 0 < shape[1] <= 4096 else 0
    return 0
