"""The configuration in a whole-model Keras file -> its layers' settings; nothing is built from it.

Equal names and shapes do not make equal networks: with another epsilon, stride or activation the
same weights compute something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residua.errors import ResiduaError
from residua.weights.formats.guards import MAX_HEADER, one_line

SUPPORTED = {  # layer classes of the networks in the catalogue
    *("InputLayer", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "BatchNormalization", "Dense"),
    *("Activation", "ReLU", "Softmax", "ZeroPadding2D", "MaxPooling2D", "AveragePooling2D", "Add"),
    *("GlobalAveragePooling2D", "Concatenate", "Flatten", "Reshape", "Dropout", "GetItem"),
    *("Functional", "Model", "Sequential", "Convolution2D", "Merge"),
}
PREPROCESSING = {"Rescaling", "Normalization", "Resizing", "CenterCrop"}
ACTIVATIONS = {"linear", "relu", "relu6", "softmax", None}


@dataclass(frozen=True)
class ModelConfig:
    """layers: name -> settings and "class", nested models included.

    input_size: side of the square input in px; None where it is open or not recorded.
    """

    layers: Mapping[str, Mapping[str, Any]]
    input_size: int | None = None

    @property
    def preprocessing_layers(self) -> list[str]:
        """Classes of the layers that preprocess images; they are not read."""
        return sorted({layer["class"] for layer in self.layers.values()} & PREPROCESSING)

    @property
    def final_activation(self) -> object:
        """The activation of the last layer that has one: of the outputs."""
        name = self.last_activation
        return self.layers[name].get("activation") if name else None

    @property
    def last_activation(self) -> str:
        """The name of the last layer that has an activation; "" if none has."""
        kinds = ("Dense", "Activation", "Conv2D", "Convolution2D")
        names = [name for name, layer in self.layers.items() if layer["class"] in kinds]
        return names[-1] if names else ""

    def unsupported(self) -> Iterator[str]:
        """A sentence for each layer that no network of the catalogue has, but for the activation of
        the outputs."""
        for name, layer in self.layers.items():
            kind, activation = layer["class"], layer.get("activation")
            if name == self.last_activation:
                activation = None
            where = f"{one_line(name)} of the file"
            if kind in PREPROCESSING or kind.startswith("Random"):
                continue
            if kind not in SUPPORTED:
                yield f"{where} is a layer {one_line(kind)}, which it does not have"
            elif not isinstance(activation, str | None) or activation not in ACTIVATIONS:
                yield f"{where} ends in {one_line(activation)}, expected relu or softmax"
            elif layer.get("negative_slope"):
                yield f"{where} is a leaky ReLU, expected a plain one"

    def mismatches(self, name: str, epsilon: float | None, stride: int | None) -> Iterator[str]:
        """How the settings of layer `name` differ from this epsilon and stride (None: any)."""
        layer = self.layers.get(name, {})
        stored_epsilon, strides = layer.get("epsilon"), layer.get("strides")
        if epsilon and stored_epsilon is not None and not _near(stored_epsilon, epsilon):
            yield f"epsilon is {one_line(stored_epsilon)}, expected {epsilon:g}"
        if stride is not None and strides is not None and strides not in (stride, [stride] * 2):
            yield f"strides are {one_line(strides)}, expected {stride}"


def parse_config(path: Path, text: str | bytes) -> ModelConfig:
    """Read a model_config attribute or config.json of the file `path`.

    Raises ResiduaError that names a Lambda layer, whose computation only its code defines.
    """
    if len(text) > MAX_HEADER:
        raise ValueError(f"its configuration has {len(text):,} characters")
    config = json.loads(text)
    layers = {str(layer.get("name")): layer for layer in _layers(config)}
    for entry in _objects(config):
        if entry.get("class_name") == "Lambda":
            settings = entry.get("config")
            name = settings.get("name") if isinstance(settings, dict) else "?"
            raise ResiduaError(
                f"{path}: contains the Lambda layer {one_line(name)}: only its code defines what "
                "it computes, and code in a file is never run. If it changes nothing that weights "
                "need, save them alone with model.save_weights."
            )
    return ModelConfig(layers, _input_size(layers))


def _near(value: object, expected: float) -> bool:
    return isinstance(value, float) and abs(value - expected) < 1e-4 * expected


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value, at any depth."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Every layer of a functional or sequential model, nested models included."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else inner
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and isinstance(layer.get("config"), dict | list):
            settings = layer["config"] if isinstance(layer["config"], dict) else {}
            yield {**settings, "class": str(layer.get("class_name"))}
            yield from _layers(layer)


def _input_size(layers: Mapping[str, Mapping[str, Any]]) -> int | None:
    for layer in layers.values():
        shape = layer.get("batch_shape") or layer.get("batch_input_shape")
        if isinstance(shape, list) and len(shape) == 4 and shape[1] == shape[2]:
            side = shape[1]
            return side if isinstance(side, int) and 0 < side <= 4096 else None
    return None
