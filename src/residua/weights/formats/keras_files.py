"""A Keras file, from 2015 to Keras 3 -> its layers in order; no link is followed, no code runs.

A layer's tensors stay as Keras stores them, in the order in which Keras lists them: kernel, bias;
depthwise and pointwise kernel; gamma, beta, mean, variance. That order is reliable, the spelling
of the names (gamma:0, _running_std) is not.
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
from residua.weights.formats.guards import MAX_NAME, damaged, one_line, read_member, translated
from residua.weights.formats.hdf5 import Reader
from residua.weights.formats.keras_config import parse_config
from residua.weights.formats.raw import RawWeights

Layers = dict[str, dict[str, Tensor]]


def read_hdf5(path: Path) -> RawWeights:
    """Any HDF5 file of Keras. Raises ResiduaError."""
    with translated(path, "HDF5"), path.open("rb") as stream:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            reader = Reader(path, content)
        with h5py.File(path, "r") as file:
            return _read(reader, file)


def read_archive(path: Path) -> RawWeights:
    """The weights in a .keras file; its layers are never built. Raises ResiduaError."""
    with translated(path, "a .keras archive"), zipfile.ZipFile(path) as archive:
        content = read_member(archive, "model.weights.h5")
        config = None
        if "config.json" in archive.namelist():
            config = parse_config(path, read_member(archive, "config.json"))
        with h5py.File(io.BytesIO(content), "r") as file:
            raw = _read(Reader(path, content), file)
    return replace(raw, form="a Keras 3 model", config=config)


def _read(reader: Reader, file: h5py.File) -> RawWeights:
    path = reader.path
    text = reader.text(file, "model_config")
    config = parse_config(path, text) if text else None
    is_model = isinstance(file.get("model_weights", getlink=True), h5py.HardLink)
    root = reader.group(file, "model_weights") if is_model else file
    if "layer_names" in root.attrs or "layer_names0" in root.attrs:
        version = reader.text(root, "keras_version") or reader.text(file, "keras_version") or "1"
        kind = "model" if is_model else "weights file"
        form = f"a Keras {one_line(version).partition('.')[0]} {kind}"
        return RawWeights(path, "keras", form, _legacy_layers(reader, root), config=config)
    layers, are_named = _keras3_layers(reader, file)
    if not layers:
        raise ResiduaError(
            f"{path}: is an HDF5 file without Keras layers: it contains "
            f"{one_line(', '.join(list(file)[:5])) or 'nothing'}. Save weights with "
            "model.save_weights."
        )
    return RawWeights(path, "keras", "a Keras 3 weights file", layers, not are_named)


def _legacy_layers(reader: Reader, root: h5py.Group) -> Layers:
    """Up to Keras 2, and .h5 of Keras 3: attributes list the layers and each layer's tensors.

    A nested model or subclass lists its tensors under longer names; their parents are the layers.
    """
    layers: Layers = {}
    names = _names(reader, root, "layer_names")
    reader.refuse_duplicates(names, "layer")
    for name in names:
        group = reader.group(root, name)
        weights = _names(reader, group, "weight_names")
        reader.refuse_duplicates(weights, f"tensor of layer {one_line(name)}")
        parents = {weight.rpartition("/")[0] for weight in weights}
        for weight in weights:
            layer = weight.rpartition("/")[0].rpartition("/")[2] if len(parents) > 1 else name
            parts = layers.setdefault(layer or name, {})
            parts[str(len(parts))] = reader.tensor(group, weight)
    return layers


def _keras3_layers(reader: Reader, file: h5py.File) -> tuple[Layers, bool]:
    """.weights.h5: the layers, one for each group `vars`; whether the writer stored their names."""
    layers: Layers = {}
    are_named = True
    for path, group in reader.walk(file):
        if not path.endswith("/vars") or re.match(r"/?(optimizer|metrics)\b", path):
            continue
        if not len(group) or "seed_generator" in path:
            continue
        name = reader.text(group, "name")
        are_named = are_named and bool(name)
        name = name[: MAX_NAME + 1] or path.removesuffix("/vars").rpartition("/")[2]
        if name in layers:
            raise ResiduaError(
                f"{reader.path}: two layers are called {one_line(name)}, which is ambiguous. Give "
                "the layers distinct names, and save it again."
            )
        parts = [str(number) for number in range(len(group))]
        if missing := set(parts) - set(group):
            raise damaged(reader.path, f"{path} lacks tensor {min(missing)} of {len(parts)}")
        layers[name] = {part: reader.tensor(group, part) for part in parts}
    return layers, are_named


def _names(reader: Reader, group: h5py.Group, attribute: str) -> list[str]:
    """A list of names, joined where it was too long for one attribute."""
    pieces = [name for name in group.attrs if re.fullmatch(rf"{attribute}\d*", name)]
    numbered = [f"{attribute}{number}" for number in range(len(pieces))]
    expected = [attribute] if attribute in pieces else numbered
    if set(pieces) != set(expected) or not pieces:
        has = ", ".join(sorted(pieces)) or "nothing of it"
        raise damaged(reader.path, f"{group.name} has only a part of its {attribute}: {has}")
    return [name for piece in expected for name in reader.texts(group, piece)]
