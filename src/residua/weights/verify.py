"""A Keras file and images -> how far our layers are from those that Keras itself computes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
from residua.data.image import fit, read_image
from residua.errors import ResiduaError
from residua.weights.key_maps.layers import places
from residua.weights.load import Weights
from residua.weights.network import build_network

BOUND = 1e-4  # of max(1, the largest reference): what float32 leaves open
APPLICATIONS = (
    *("ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"),
    *("VGG16", "VGG19", "Xception", "InceptionV3", "MobileNet"),
    *("DenseNet121", "DenseNet169", "DenseNet201"),
)
Images = npt.NDArray[np.float32]  # [N, C, S, S], as the network sees them


@dataclass(frozen=True)
class Agreement:
    """One layer: its two names, the largest difference and the largest value in Keras."""

    ours: str
    theirs: str
    difference: float
    largest: float

    @property
    def good(self) -> bool:
        """Whether the difference is what float32 leaves open."""
        return self.difference < BOUND * max(1.0, self.largest)


def images_for(preprocessing: Preprocessing, files: Sequence[Path]) -> Images:
    """Image files, else scikit-learn's two sample photos, as the network sees them.

    Raises ResiduaError.
    """
    if not files:
        from sklearn.datasets import load_sample_images

        photos = load_sample_images().images
        if preprocessing.channels == 1:
            photos = [photo[:, :, 1:2] for photo in photos]  # green is nearly grey
        fitted = [fit(np.ascontiguousarray(photo), preprocessing) for photo in photos]
    else:
        try:
            fitted = [read_image(file, preprocessing, Data.max_pixels) for file in files]
        except Unreadable as error:
            raise ResiduaError(f"{', '.join(map(str, files))}: {error}.") from error
    return normalise(torch.from_numpy(np.stack(fitted)), preprocessing).contiguous().numpy()


def table(found: Sequence[Agreement]) -> str:
    """A line for each layer, and the largest difference."""
    wide = max(len(each.theirs) for each in found)
    lines = [f"{'layer in Keras':<{wide}}  largest difference  of largest value  our layer"]
    lines += [
        f"{each.theirs:<{wide}}  {each.difference:>18.3g}  {each.largest:>16.3g}  {each.ours}"
        + ("" if each.good else "  <- differs")
        for each in found
    ]
    worst = max(found, key=lambda each: each.difference / max(1.0, each.largest))
    verdict = "agree" if all(each.good for each in found) else "DIFFER"
    lines.append(
        f"{len(found)} layers {verdict}: at most {worst.difference:.3g}, in {worst.theirs} "
        f"(bound {BOUND:g} of the largest value, or of 1)"
    )
    return "\n".join(lines)


def verify(weights: Weights, images: Images) -> list[Agreement]:
    """Run Keras and our network on the same images; a row for each layer, in Keras' order.

    Keras builds the network itself: from a whole-model file, else as keras.applications has it.
    Raises ResiduaError if Keras is not installed, or cannot build or load it.
    """
    if weights.match is None or weights.match.dialect.framework != "keras":
        raise ResiduaError(f"{weights.path}: is no Keras file, so Keras cannot read it.")
    keras = _keras()
    model = _model(keras, weights)
    theirs = {layer.name: (layer, owner) for layer, owner in _layers(keras, model)}
    network = build_network(weights, torch.device("cpu"), require_head=False)
    seen = _watched(network, images)
    pairs = [
        (ours, names[0])
        for ours, names in weights.match.names.items()
        if ours in seen and len(names) == 1 and names[0] in theirs
    ]
    if not pairs:
        raise ResiduaError(f"{weights.path}: Keras' model has none of the layers that were read.")
    channels_last = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    outputs: dict[str, Any] = {}
    try:
        for owner in {id(owner): owner for _, owner in theirs.values()}.values():
            names = [name for _, name in pairs if theirs[name][1] is owner]
            if names:  # a nested model is fed by itself: only there its layers have outputs
                tap = keras.Model(owner.inputs[0], [theirs[name][0].output for name in names])
                with torch.inference_mode():
                    found = tap(channels_last, training=False)
                outputs |= dict(zip(names, found, strict=True))
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        raise ResiduaError(f"{weights.path}: Keras' model does not take them: {said}") from error
    return [
        _compared(keras, ours, theirs[name][0], seen[ours], outputs[name]) for ours, name in pairs
    ]


def _compared(keras: Any, ours: str, layer: Any, seen: Tensor, output: Any) -> Agreement:
    """A layer of Keras may end in an activation, where ours is a layer of its own."""
    expected = keras.ops.convert_to_numpy(output)
    activation = getattr(layer, "activation", None)
    mine = seen.movedim(1, -1) if seen.ndim == 4 else seen
    if activation is not None:
        with torch.inference_mode():
            mine = activation(mine)
    if expected.ndim == 4 and mine.ndim == 2:  # a head that is a 1x1 convolution
        mine = mine[:, None, None]
    difference = float(np.abs(expected - keras.ops.convert_to_numpy(mine)).max())
    return Agreement(ours, layer.name, difference, float(np.abs(expected).max()))


def _watched(network: nn.Module, images: Images) -> dict[str, Tensor]:
    """What each layer with weights gives, by its name."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            seen[name] = output.clone()  # the activation behind it may overwrite it

        return keep

    for place in places(network, separable=True):
        place.module.register_forward_hook(watch(place.name))
    with torch.inference_mode():
        network(torch.from_numpy(images))
    return seen


def _keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")  # present wherever residua is
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
    path = weights.path
    whole = weights.form.endswith("model")
    name, classes = weights.metadata.network.name, weights.metadata.network.classes
    try:
        if whole:
            return keras.models.load_model(_named(path), compile=False, safe_mode=True)
        builders = dict(_applications(keras))
        if name not in builders:
            raise ResiduaError(
                f"{path}: holds weights alone, and keras.applications has no {name}: verify the "
                "whole model (model.save)."
            )
        side, channels = weights.metadata.preprocessing.size, weights.metadata.network.channels
        model = builders[name](
            weights=None,
            include_top=weights.has_head,
            input_shape=(side, side, channels),
            classes=classes,
        )
        model.load_weights(_named(path))
        return model
    except (ValueError, TypeError, OSError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise ResiduaError(f"{path}: Keras itself does not load it: {said}") from error


def _named(path: Path) -> str:
    """Keras tells forms by the name alone."""
    if path.name.endswith((".keras", ".h5")):
        return str(path)
    raise ResiduaError(f"{path}: Keras only loads names that end in .keras, .h5 or .weights.h5.")


def _applications(keras: Any) -> Iterator[tuple[str, Any]]:
    """Our name and Keras' builder."""
    for found in APPLICATIONS:
        name = "inception_v3" if found == "InceptionV3" else found.lower()
        yield f"keras_{name}", getattr(keras.applications, found)


def _layers(keras: Any, model: Any) -> Iterator[tuple[Any, Any]]:
    """Every layer of a functional model with the model that it is part of, nested ones too."""
    for each in model.layers:
        if isinstance(each, keras.Model):
            yield from _layers(keras, each)
        else:
            yield each, model
