"""A Keras model -> a file in every form that Keras has written since 2015.

Keras 3 writes its own three forms. The older ones are written with h5py as Keras 2 and Keras 1 did:
attribute `layer_names`, a group for each layer with attribute `weight_names`, datasets under these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from references.keras_networks import NUMBERED, keras
from references.keras_tutorials import ResNet

FORMS = {  # and how the names of their files end
    "keras3_weights": ".weights.h5",
    "keras3_whole": ".keras",
    "keras3_legacy_h5": ".h5",
    "keras2_weights": ".h5",
    "keras2_whole": ".h5",
    "keras1_weights": ".h5",
}
NOT_FOR_SUBCLASSES = ("keras3_legacy_h5", "keras2_whole", "keras1_weights")
HEADER_LIMIT = 64512  # bytes that Keras puts into one attribute
KERAS1_VARIABLES = {
    "kernel": "W",
    "bias": "b",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",  # it holds the variance all the same
}
KERAS1_LAYERS = {"conv2d": "convolution2d", "add": "merge", "input_layer": "input"}
ONLY_KERAS3 = {
    *("module", "registered_name", "quantization_config", "synchronized", "optional"),
    *("input_axes", "output_axes"),
}


def write(model: keras.Model, path: Path, form: str, names: dict[str, str] | None = None) -> Path:
    """Write `model` in one of FORMS to `path` plus the form's ending; returns the file's path.

    names: for the three older forms, the layers to write, in order, and what each is called in the
    file. None: all layers under their own names, automatic ones as that Keras spelt them.
    Raises ValueError where no Keras can write the form.
    """
    if isinstance(model, ResNet) and form in NOT_FOR_SUBCLASSES:
        raise ValueError(f"{form} cannot hold a subclassed model")
    path = path.with_name(path.name + FORMS[form])
    if form == "keras3_weights":
        model.save_weights(path)
    elif form.startswith("keras3"):
        sgd = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
        model.compile(sgd, loss="categorical_crossentropy", metrics=["accuracy"])
        sgd.build(model.trainable_variables)
        model.save(path)
    else:
        names = names or {each.name: _old_name(each.name, form) for each in model.layers}
        with h5py.File(path, "w") as file:
            if form == "keras2_whole":
                _write_whole(model, file, names)
            else:
                _write_layers(model, file, form, names)
    return path


def old_resnet50_names(model: keras.Model) -> dict[str, str]:
    """tutorial_resnet50's or keras_resnet50's layers -> their names in the file of 2015-2017.

    In that file's order: a block's third convolution comes before the one on its shortcut.
    """
    names = []
    for name in (each.name for each in model.layers):
        tutorial = re.fullmatch(r"(\d)([a-f])_[a-z]+_block_(?:res_)?(conv|bn)(\d?)", name)
        keras3 = re.fullmatch(r"conv(\d)_block(\d)_(\d)_(conv|bn)", name)
        if tutorial:
            stage, letter, kind, number = tutorial.groups()
        elif keras3:
            stage, block, number, kind = keras3.groups()
            letter = "abcdef"[int(block) - 1]
        else:
            fixed = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1", "predictions": "fc1000"}
            names.append((name, fixed.get(name, name)))
            continue
        branch = {"1": "2a", "2": "2b", "3": "2c"}.get(number, "1")
        kind = {"conv": "res"}.get(kind, kind)
        names.append((name, f"{kind}{stage}{letter}_branch{branch}"))
    for place in range(1, len(names)):
        if names[place - 1][1] == names[place][1].replace("_branch2c", "_branch1"):
            names[place - 1 : place + 1] = names[place], names[place - 1]
    return dict(names)


def _old_name(name: str, form: str) -> str:
    """An automatic name as Keras 2 or Keras 1 gave it; any other name as it is."""
    automatic = re.fullmatch(rf"({'|'.join(NUMBERED)})(?:_(\d+))?", name)
    if not automatic:
        return name
    kind, number = automatic[1], int(automatic[2] or 0) + 1
    if form == "keras1_weights":  # counts from 1, without underscores in a class
        return f"{KERAS1_LAYERS.get(kind, kind.replace('_', ''))}_{number}"
    return f"input_{number}" if kind == "input_layer" else name


def _write_layers(model: keras.Model, group: h5py.Group, form: str, names: dict[str, str]) -> None:
    _write_names(group, "layer_names", names.values())
    if form != "keras1_weights":
        _write_version(group)
    for own, name in names.items():
        layer = model.get_layer(own)
        variables = layer.trainable_weights + layer.non_trainable_weights  # the old order
        places = [_place(each, layer, name, form) for each in variables]
        layer_group = group.create_group(name)
        _write_names(layer_group, "weight_names", places)
        for place, variable in zip(places, variables, strict=True):
            layer_group.create_dataset(place, data=keras.ops.convert_to_numpy(variable))


def _place(variable: Any, layer: keras.Layer, name: str, form: str) -> str:
    """Where a layer's group holds a variable, and what its weight_names say."""
    kind = variable.name
    if isinstance(layer, keras.layers.DepthwiseConv2D) and kind == "kernel":
        kind = "depthwise_kernel"
    if form == "keras1_weights":
        return f"{name}_{KERAS1_VARIABLES.get(kind, kind)}:0"
    outer, _, inner = variable.path.rpartition(f"{layer.name}/")
    nested = inner.removesuffix(variable.name)  # inside a subclass: residual/conv2d_3/
    return f"{outer}{name}/{nested}{kind}:0"


def _write_names(group: h5py.Group, attribute: str, names: Iterable[str]) -> None:
    """As bytes of one length, split into attribute0, attribute1, ... where they are too many."""
    texts = np.array([each.encode() for each in names])
    parts = [texts]
    while any(part.nbytes > HEADER_LIMIT for part in parts):
        parts = np.array_split(texts, len(parts) + 1)
    for number, part in enumerate(parts):
        group.attrs[attribute if len(parts) == 1 else f"{attribute}{number}"] = part


def _write_version(group: h5py.Group) -> None:
    group.attrs["backend"] = b"tensorflow"
    group.attrs["keras_version"] = b"2.2.4"


def _write_whole(model: keras.Model, file: h5py.File, names: dict[str, str]) -> None:
    """Layers, configurations and the optimizer's state, as Keras 2.2.4's model.save."""
    sgd = {"lr": 0.1, "momentum": 0.9, "decay": 0.0, "nesterov": True}
    training = {
        "optimizer_config": {"class_name": "SGD", "config": sgd},
        "loss": "categorical_crossentropy",
        "metrics": ["accuracy"],
        "sample_weight_mode": None,
        "loss_weights": None,
    }
    _write_version(file)
    file.attrs["model_config"] = json.dumps(_old_config(model, names)).encode()
    file.attrs["training_config"] = json.dumps(training).encode()
    _write_layers(model, file.create_group("model_weights"), "keras2_whole", names)
    state = file.create_group("optimizer_weights")
    arrays = {"SGD/iterations:0": np.array(391, np.int64)}
    for number, variable in enumerate(model.trainable_weights):  # momenta, shaped as the weights
        arrays[f"training/SGD/Variable_{number}:0"] = -keras.ops.convert_to_numpy(variable)
    _write_names(state, "weight_names", arrays)
    for place, array in arrays.items():
        state.create_dataset(place, data=array)


def _old_config(model: keras.Model, names: dict[str, str]) -> dict[str, Any]:
    """Keras 3's configuration of a functional model, said as Keras 2.2.4 said it."""
    config = model.get_config()
    old_layers = []
    for layer in config["layers"]:
        if layer["name"] not in names:
            raise ValueError(f"Keras 2 has no layer {layer['class_name']} ({layer['name']})")
        settings = {**_plain(layer["config"]), "name": names[layer["name"]]}
        if "batch_shape" in settings:
            settings["batch_input_shape"] = settings.pop("batch_shape")
        if layer["class_name"] == "Lambda":
            code = settings["function"]["config"]
            settings["function"] = [code["code"], code["defaults"], code["closure"]]
            settings |= {"function_type": "lambda", "output_shape_type": "raw"}
        nodes = [
            [[names[each], 0, 0, {}] for each in _sources(node["args"])]
            for node in layer["inbound_nodes"]
        ]
        old_layers.append(
            {
                "name": settings["name"],
                "class_name": layer["class_name"],
                "config": settings,
                "inbound_nodes": nodes,
            }
        )
    ends = {
        side: [[names[config[side][0]], *config[side][1:]]]
        for side in ("input_layers", "output_layers")
    }
    return {"class_name": "Model", "config": {"name": model.name, "layers": old_layers, **ends}}


def _plain(value: Any) -> Any:
    """A configuration without what only Keras 3 says."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return value["config"]["name"]
        return {key: _plain(each) for key, each in value.items() if key not in ONLY_KERAS3}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _sources(value: Any) -> list[str]:
    """The layers whose outputs a call reads, in its order."""
    if isinstance(value, dict):
        return [value["config"]["keras_history"][0]]
    return [name for each in value for name in _sources(each)]
