"""A Keras file and images -> how far each of our layers is from the same layer in Keras itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from residua.config.schema import Data, Preprocessing
from residua.data.augmentation import normalise
from residua.data.dataset import Unreadable
from residua.data.image import read_image, resize
from residua.errors import ResiduaError
from residua.weights.formats.guards import one_line
from residua.weights.key_maps.keras import KERAS_MAPS
from residua.weights.key_maps.layers import weight_layers
from residua.weights.load import Weights
from residua.weights.network import build_network

BOUND = 1e-4  # of max(1, the largest reference): the rounding of float32
APPLICATIONS = (
    *("ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"),
    *("VGG16", "VGG19", "Xception", "InceptionV3", "MobileNet"),
    *("DenseNet121", "DenseNet169", "DenseNet201"),
)
Images = npt.NDArray[np.float32]  # [N, C, S, S], normalised


@dataclass(frozen=True)
class Agreement:
    """One layer: our name, Keras' name, the largest difference and the largest value in Keras."""

    ours: str
    keras: str
    difference: float
    largest: float

    @property
    def relative(self) -> float:
        """The difference in units of max(1, the largest value)."""
        return self.difference / max(1.0, self.largest)

    @property
    def good(self) -> bool:
        """Whether rounding explains the difference."""
        return self.relative < BOUND


def images_for(preprocessing: Preprocessing, files: Sequence[Path]) -> Images:
    """Image files, or scikit-learn's two sample photos if there are none, as network inputs.

    Raises ResiduaError.
    """
    if not files:
        from sklearn.datasets import load_sample_images

        photos = load_sample_images().images
        if preprocessing.channels == 1:
            photos = [photo[:, :, 1:2] for photo in photos]  # green is close to grey
        fitted = [resize(np.ascontiguousarray(photo), preprocessing) for photo in photos]
    else:
        try:
            fitted = [read_image(file, preprocessing, Data.max_pixels) for file in files]
        except Unreadable as error:
            raise ResiduaError(f"{', '.join(map(str, files))}: {error}.") from error
    return normalise(torch.from_numpy(np.stack(fitted)), preprocessing).contiguous().numpy()


def table(agreements: Sequence[Agreement]) -> str:
    """A line for each layer, and a verdict with the largest difference."""
    width = max(len(layer.keras) for layer in agreements)
    lines = [f"{'layer in Keras':<{width}}  largest difference  of largest value  our layer"]
    lines += [
        f"{layer.keras:<{width}}  {layer.difference:>18.3g}  {layer.largest:>16.3g}  {layer.ours}"
        + ("" if layer.good else "  <- differs")
        for layer in agreements
    ]
    worst = max(agreements, key=lambda layer: layer.relative)
    verdict = "agree" if worst.good else "DIFFER"
    lines.append(
        f"{len(agreements)} layers {verdict}: at most {worst.difference:.3g}, in {worst.keras} "
        f"(bound {BOUND:g} of the largest value, or of 1)"
    )
    return "\n".join(lines)


def verify(weights: Weights, images: Images) -> list[Agreement]:
    """Run Keras and our network on the same images; a row for each layer, in Keras' order.

    Keras builds the network itself: from a whole-model file, else from keras.applications. Raises
    ResiduaError if Keras is not installed, or cannot build or load it.
    """
    if weights.match is None or weights.match.key_map not in KERAS_MAPS:
        raise ResiduaError(f"{weights.path}: is no Keras file, so Keras cannot read it.")
    keras = _keras()
    model = _model(keras, weights)
    layers = {layer.name: (layer, owner) for layer, owner in _layers(keras, model)}
    ours = _our_outputs(weights, images)
    pairs = [
        (name, stored[0])
        for name, stored in weights.match.names.items()
        if name in ours and len(stored) == 1 and stored[0] in layers
    ]
    if not pairs:
        raise ResiduaError(f"{weights.path}: Keras' model has none of the layers that were read.")
    try:
        outputs = _keras_outputs(keras, layers, [name for _, name in pairs], images)
    except ValueError as error:
        raise ResiduaError(
            f"{weights.path}: Keras' model does not accept the images: {one_line(error)}"
        ) from error
    return [
        _compared(keras, name, layers[stored][0], ours[name], outputs[stored])
        for name, stored in pairs
    ]


def _keras_outputs(
    keras: Any, layers: Mapping[str, tuple[Any, Any]], names: list[str], images: Images
) -> dict[str, Any]:
    """Keras' output of each layer; a nested model is run on its own, as only it has outputs."""
    channels_last = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    outputs: dict[str, Any] = {}
    for owner in {id(owner): owner for _, owner in layers.values()}.values():
        nested = [name for name in names if layers[name][1] is owner]
        if nested:
            probe = keras.Model(owner.inputs[0], [layers[name][0].output for name in nested])
            with torch.inference_mode():
                values = probe(channels_last, training=False)
            outputs |= dict(zip(nested, values, strict=True))
    return outputs


def _our_outputs(weights: Weights, images: Images) -> dict[str, Tensor]:
    """The output of each of our layers with weights."""
    network = build_network(weights, torch.device("cpu"), require_head=False)
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            outputs[name] = output.clone()  # an in-place activation may follow

        return hook

    for layer in weight_layers(network, separable=True):
        layer.module.register_forward_hook(record(layer.name))
    with torch.inference_mode():
        network(torch.from_numpy(images))
    return outputs


def _compared(keras: Any, name: str, layer: Any, ours: Tensor, output: Any) -> Agreement:
    """Compare outputs; the activation at the end of a Keras layer is a layer of its own in ours."""
    expected = keras.ops.convert_to_numpy(output)
    if ours.ndim == 4:
        ours = ours.movedim(1, -1)
    if (activation := getattr(layer, "activation", None)) is not None:
        with torch.inference_mode():
            ours = activation(ours)
    if expected.ndim == 4 and ours.ndim == 2:  # a head that is a 1x1 convolution
        ours = ours[:, None, None]
    difference = float(np.abs(expected - keras.ops.convert_to_numpy(ours)).max())
    return Agreement(name, layer.name, difference, float(np.abs(expected).max()))


def _keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")  # always installed here
    try:
        import keras
    except ImportError as error:
        raise ResiduaError(
            "weights verify --against keras runs Keras, which is not installed: "
            "pip install keras h5py."
        ) from error
    return keras


def _model(keras: Any, weights: Weights) -> Any:
    """The network as Keras builds it, with the weights of the file."""
    path, network = weights.path, weights.metadata.network
    if not path.name.endswith((".keras", ".h5")):
        raise ResiduaError(
            f"{path}: Keras only loads names that end in .keras, .h5 or .weights.h5."
        )
    try:
        if weights.form.endswith("model"):
            return keras.models.load_model(str(path), compile=False, safe_mode=True)
        builders = {f"keras_{name.lower()}": name for name in APPLICATIONS}
        builder = builders.get(network.name.replace("inception_v3", "inceptionv3"))
        if builder is None:
            raise ResiduaError(
                f"{path}: has weights alone, and keras.applications has no {network.name}: verify "
                "the whole model (model.save)."
            )
        side = weights.metadata.preprocessing.size
        model = getattr(keras.applications, builder)(
            weights=None,
            include_top=weights.has_head,
            input_shape=(side, side, network.channels),
            classes=network.classes,
        )
        model.load_weights(str(path))
        return model
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise ResiduaError(f"{path}: Keras itself does not load it: {one_line(error)}") from error


def _layers(keras: Any, model: Any) -> Iterator[tuple[Any, Any]]:
    """Every layer of a functional model and the model that contains it, nested ones included."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(keras, layer)
        else:
            yield layer, model
