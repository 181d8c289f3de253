"""Keras' files, from 2015 to Keras 3 -> their layers in order; no link is followed, no code runs.

A layer's tensors stay as Keras stores them, in the order in which it lists them: kernel and bias;
depthwise and pointwise kernel; gamma, beta, mean and variance. That order is the contract, the
spelling of the names (gamma:0, _running_std) is not.
"""

from __future__ import annotations

import io
import mmap
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
from torch import Tensor

from residua.errors import ResiduaError
from residua.weights.formats.hdf5 import Reader
from residua.weights.formats.keras_config import Described, describe
from residua.weights.formats.raw import LONGEST_NAME, Stored, damaged, member, plain, translated

Layers = dict[str, dict[str, Tensor]]


def read_hdf5(path: Path) -> Stored:
    """Any HDF5 file of Keras. Raises ResiduaError."""
    with translated(path, "HDF5"), path.open("rb") as stream:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            reader = Reader(path, content)
        with h5py.File(path, "r") as file:
            return _read(reader, file)


def read_archive(path: Path) -> Stored:
    """A .keras file; only its weights are read, its layers are never built. Raises ResiduaError."""
    with translated(path, "a .keras archive"), zipfile.ZipFile(path) as archive:
        content = member(archive, "model.weights.h5")
        described = Described()
        if "config.json" in archive.namelist():
            described = describe(path, member(archive, "config.json"))
        with h5py.File(io.BytesIO(content), "r") as file:
            found = _read(Reader(path, content), file)
    return replace(found, form="a Keras 3 model", described=described)


def _read(reader: Reader, file: h5py.File) -> Stored:
    path = reader.path
    described = Described()
    if config := reader.text(file, "model_config"):
        described = describe(path, config)
    whole = isinstance(file.get("model_weights", getlink=True), h5py.HardLink)
    root = reader.group(file, "model_weights") if whole else file
    if "layer_names" in root.attrs or "layer_names0" in root.attrs:
        version = reader.text(root, "keras_version") or reader.text(file, "keras_version") or "1"
        form = f"a Keras {plain(version).partition('.')[0]} {'model' if whole else 'weights file'}"
        layers = _legacy_layers(reader, root)
        return Stored(path, "keras", form, layers, described=described)
    layers, true_names = _keras3_layers(reader, file)
    if not layers:
        raise ResiduaError(
            f"{path}: is an HDF5 file without Keras' layers in it: it holds "
            f"{plain(', '.join(list(file)[:5])) or 'nothing'}. Save weights with "
            "model.save_weights."
        )
    return Stored(path, "keras", "a Keras 3 weights file", layers, numbered_by_place=not true_names)


def _legacy_layers(reader: Reader, root: h5py.Group) -> Layers:
    """Up to Keras 2, and .h5 of Keras 3: attributes list the layers and each layer's tensors.

    What a layer nests (a model, a subclass) lists its tensors under longer names; their parents
    are the layers then.
    """
    layers: Layers = {}
    names = _strings(reader, root, "layer_names")
    reader.refuse_twice(names, "layer")
    for name in names:
        group = reader.group(root, name)
        weights = _strings(reader, group, "weight_names")
        reader.refuse_twice(weights, f"tensor of layer {plain(name)}")
        parents = {each.rpartition("/")[0] for each in weights}
        for weight in weights:
            parent, _, _ = weight.rpartition("/")
            layer = parent.rpartition("/")[2] if parent else name
            if len(parents) == 1:
                layer = name  # whatever the tensors are called, they are this layer's
            parts = layers.setdefault(layer, {})
            parts[str(len(parts))] = reader.tensor(group, weight)
    return layers


def _keras3_layers(reader: Reader, file: h5py.File) -> tuple[Layers, bool]:
    """.weights.h5: groups with `vars`, each with its layer's true name, if the writer gave it."""
    layers: Layers = {}
    true_names = True
    for group_path, group in reader.walk(file):
        if not group_path.endswith("/vars") or re.match(r"/?(optimizer|metrics)\b", group_path):
            continue
        if not len(group) or "seed_generator" in group_path:
            continue
        owner = group_path.removesuffix("/vars")
        name = reader.text(group, "name")
        true_names = true_names and bool(name)
        name = name[: LONGEST_NAME + 1] or owner.rpartition("/")[2]
        if name in layers:
            raise ResiduaError(
                f"{reader.path}: two layers are called {plain(name)}, so it is unclear which is "
                "meant. Give the layers names of their own, and save it again."
            )
        places = [str(place) for place in range(len(group))]
        if missing := set(places) - set(group):
            raise damaged(reader.path, f"{group_path} lacks tensor {min(missing)} of {len(places)}")
        layers[name] = {place: reader.tensor(group, place) for place in places}
    return layers, true_names


def _strings(reader: Reader, group: h5py.Group, name: str) -> list[str]:
    """An attribute of names, put together again where it was too long for one."""
    pieces = [each for each in group.attrs if re.fullmatch(rf"{name}\d*", each)]
    wanted = [name] if name in pieces else [f"{name}{place}" for place in range(len(pieces))]
    if set(pieces) != set(wanted) or not pieces:
        held = ", ".join(sorted(pieces)) or "nothing of it"
        raise damaged(reader.path, f"{group.name} does not have its {name} in whole, it has {held}")
    found: list[str] = []
    for each in wanted:
        found += reader.texts(group, each)
    return found
