"""Keras' files, from 2015 to Keras 3 -> their layers in order; no link is followed, no code runs.

A layer's tensors stay as Keras stores them, in the order in which it lists them: kernel and bias;
depthwise and pointwise kernel; gamma, beta, mean and variance. That order is the contract, the
spelling of the names (gamma:0, _running_std) is not.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from residua.errors import ResiduaError
from residua.weights.stored import LARGEST_RATIO, Stored, translated

if TYPE_CHECKING:
    import h5py
    from torch import Tensor

Layers = dict[str, dict[str, "Tensor"]]


def read_hdf5(path: Path) -> Stored:
    """Any HDF5 file of Keras. Raises ResiduaError."""
    h5py = _h5py(path)
    with translated(path, "HDF5"), h5py.File(path, "r") as file:
        return _read(path, file, path.stat().st_size)


def read_archive(path: Path) -> Stored:
    """A .keras file; only its weights are read, its layers are never built. Raises ResiduaError."""
    h5py = _h5py(path)
    with translated(path, "a .keras archive"), zipfile.ZipFile(path) as archive:
        content = archive.read("model.weights.h5")
        if "config.json" in archive.namelist():
            _refuse_lambda(path, archive.read("config.json"))
        with h5py.File(io.BytesIO(content), "r") as file:
            found = _read(path, file, len(content))
    return Stored(path, "keras", "a Keras 3 model", found.layers, found.numbered_by_place)


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ResiduaError(
            f"{path}: is a Keras file, and reading it needs h5py: pip install 'residua[keras]'."
        ) from error
    return h5py


def _read(path: Path, file: h5py.File, size: int) -> Stored:
    reader = _Reader(path, size)
    if "model_config" in file.attrs:
        _refuse_lambda(path, file.attrs["model_config"])
    whole = isinstance(file.get("model_weights", getlink=True), _hard_link())
    root = reader.group(file, "model_weights") if whole else file
    if "layer_names" in root.attrs or "layer_names0" in root.attrs:
        version = root.attrs.get("keras_version", file.attrs.get("keras_version", "1"))
        number = (version.decode() if isinstance(version, bytes) else str(version)).split(".")[0]
        form = f"a Keras {number} {'model' if whole else 'weights file'}"
        return Stored(path, "keras", form, _legacy_layers(reader, root))
    layers, true_names = _keras3_layers(reader, file)
    if not layers:
        raise ResiduaError(
            f"{path}: is an HDF5 file without Keras' layers in it: it holds "
            f"{', '.join(list(file)[:5]) or 'nothing'}. Save weights with model.save_weights."
        )
    return Stored(path, "keras", "a Keras 3 weights file", layers, numbered_by_place=not true_names)


def _legacy_layers(reader: _Reader, root: h5py.Group) -> Layers:
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
        reader.refuse_twice(weights, f"tensor of layer {name!r}")
        for weight in weights:
            parent, _, _ = weight.rpartition("/")
            layer = parent.rpartition("/")[2] if parent else name
            parents = {each.rpartition("/")[0] for each in weights}
            if len(parents) == 1:
                layer = name  # whatever the tensors are called, they are this layer's
            parts = layers.setdefault(layer, {})
            parts[str(len(parts))] = reader.tensor(group, weight)
    return layers


def _keras3_layers(reader: _Reader, file: h5py.File) -> tuple[Layers, bool]:
    """.weights.h5: groups with `vars`, each with its layer's true name, if the writer gave it."""
    layers: Layers = {}
    true_names = True
    for group_path, group in reader.walk(file):
        if not group_path.endswith("/vars") or re.match(r"/?(optimizer|metrics)\b", group_path):
            continue
        if not len(group) or "seed_generator" in group_path:
            continue
        owner = group_path.removesuffix("/vars")
        name = group.attrs.get("name")
        true_names = true_names and name is not None
        name = str(name or owner.rpartition("/")[2])
        if name in layers:
            raise ResiduaError(
                f"{reader.path}: two layers are called {name!r}, so it is unclear which is meant."
            )
        places = sorted(group, key=int)
        layers[name] = {place: reader.tensor(group, place) for place in places}
    return layers, true_names


def _strings(reader: _Reader, group: h5py.Group, name: str) -> list[str]:
    """An attribute of names, put together again where it was too long for one."""
    pieces = [name] if name in group.attrs else []
    while not pieces or pieces[-1] != name:
        following = f"{name}{len(pieces)}"
        if following not in group.attrs:
            break
        pieces.append(following)
    if not pieces:
        raise ResiduaError(f"{reader.path}: {group.name} does not list its {name}: it is damaged.")
    found = [each for piece in pieces for each in group.attrs[piece]]
    return [each.decode() if isinstance(each, bytes) else str(each) for each in found]


class _Reader:
    """Takes groups and tensors out of one file, whose bytes must really be in it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.left = path, LARGEST_RATIO * size

    def group(self, parent: h5py.Group, name: str) -> h5py.Group:
        """A group below `parent`. Raises ResiduaError where it lies outside, or is missing."""
        return cast("h5py.Group", self._member(parent, name))

    def tensor(self, parent: h5py.Group, name: str) -> Tensor:
        """A dataset as a tensor of its own. Raises ResiduaError."""
        import h5py
        import torch

        found = self._member(parent, name)
        where = f"{self.path}: {parent.name.rstrip('/')}/{name}"
        if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
            raise ResiduaError(f"{where}: expected numbers, found {found!r}.")
        if found.external or found.is_virtual:
            raise ResiduaError(f"{where}: keeps its numbers in another file, which is not opened.")
        self.left -= found.nbytes
        if found.nbytes > 0 and (self.left < 0 or found.id.get_storage_size() == 0):
            shape = " x ".join(map(str, found.shape))
            raise ResiduaError(
                f"{where}: declares {shape} numbers, {found.nbytes:,} bytes, which are not in the "
                "file: it is damaged or was made to exhaust memory."
            )
        return torch.from_numpy(found[()])

    def walk(self, group: h5py.Group, path: str = "") -> Iterator[tuple[str, h5py.Group]]:
        """Every group below, in the file's order, with its path."""
        import h5py

        for name in group:
            if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                self._refuse_link(group, name)
            found = group[name]
            if isinstance(found, h5py.Group):
                yield f"{path}/{name}", found
                yield from self.walk(found, f"{path}/{name}")

    def refuse_twice(self, names: list[str], what: str) -> None:
        """Raise ResiduaError if a name occurs twice."""
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ResiduaError(
                f"{self.path}: lists the {what} {twice!r} twice, so it is unclear which is meant."
            )

    def _member(self, parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
        import h5py

        found = parent
        for piece in name.split("/"):
            kind = found.get(piece, getclass=True, getlink=True)
            if kind is None:
                raise ResiduaError(
                    f"{self.path}: lists {name!r} in {parent.name}, but holds no such thing: it is "
                    "damaged, or its writing was interrupted."
                )
            if kind is not h5py.HardLink:
                self._refuse_link(found, piece)
            found = found[piece]
        return found

    def _refuse_link(self, group: h5py.Group, name: str) -> None:
        raise ResiduaError(
            f"{self.path}: {group.name.rstrip('/')}/{name} is a link to another place or file, "
            "which Keras never writes; it is not followed."
        )


def _hard_link() -> type[Any]:
    import h5py

    return cast("type[Any]", h5py.HardLink)


def _refuse_lambda(path: Path, config: str | bytes) -> None:
    """A Lambda layer computes what its code says, and code in a file is never run."""

    def lambdas(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if value.get("class_name") == "Lambda":
                inner = value.get("config")
                yield str(
                    (inner or {}).get("name") if isinstance(inner, dict) else value.get("name")
                )
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                yield from lambdas(each)

    if found := next(lambdas(json.loads(config)), None):
        raise ResiduaError(
            f"{path}: holds the Lambda layer {found!r}: what the network computes depends on its "
            "code, and code in a file is never run. If it changes nothing that weights need, save "
            "them alone with model.save_weights."
        )
