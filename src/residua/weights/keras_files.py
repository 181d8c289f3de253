"""Keras' files, from 2015 to Keras 3 -> their layers in order; no link is followed, no code runs.

A layer's tensors stay as Keras stores them, in the order in which it lists them: kernel and bias;
depthwise and pointwise kernel; gamma, beta, mean and variance. That order is the contract, the
spelling of the names (gamma:0, _running_std) is not.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from residua.errors import ResiduaError
from residua.weights.stored import (
    LARGEST_RATIO,
    LONGEST_HEADER,
    LONGEST_NAME,
    Stored,
    first_twice,
    member,
    plain,
    translated,
)

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
        content = member(archive, "model.weights.h5")
        if "config.json" in archive.namelist():
            _refuse_lambda(path, member(archive, "config.json"))
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
    if config := reader.text(file, "model_config"):
        _refuse_lambda(path, config)
    whole = isinstance(file.get("model_weights", getlink=True), _hard_link())
    root = reader.group(file, "model_weights") if whole else file
    if "layer_names" in root.attrs or "layer_names0" in root.attrs:
        version = reader.text(root, "keras_version") or reader.text(file, "keras_version") or "1"
        form = f"a Keras {plain(version)[:1]} {'model' if whole else 'weights file'}"
        return Stored(path, "keras", form, _legacy_layers(reader, root))
    layers, true_names = _keras3_layers(reader, file)
    if not layers:
        raise ResiduaError(
            f"{path}: is an HDF5 file without Keras' layers in it: it holds "
            f"{plain(', '.join(list(file)[:5])) or 'nothing'}. Save weights with "
            "model.save_weights."
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
        name = reader.text(group, "name")
        true_names = true_names and bool(name)
        name = name or owner.rpartition("/")[2]
        if name in layers:
            raise ResiduaError(
                f"{reader.path}: two layers are called {plain(name)}, so it is unclear which is "
                "meant. Save it again with layer names of your own."
            )
        places = [str(place) for place in range(len(group))]
        if missing := set(places) - set(group):
            raise ResiduaError(
                f"{reader.path}: {plain(group_path)} lacks tensor {min(missing)} of {len(places)}: "
                "it is damaged, or its writing was interrupted. Download or save it again."
            )
        layers[name] = {place: reader.tensor(group, place) for place in places}
    return layers, true_names


def _strings(reader: _Reader, group: h5py.Group, name: str) -> list[str]:
    """An attribute of names, put together again where it was too long for one."""
    where = f"{reader.path}: {plain(group.name)}"
    pieces = [each for each in group.attrs if re.fullmatch(rf"{name}\d*", each)]
    wanted = [name] if name in pieces else [f"{name}{place}" for place in range(len(pieces))]
    if set(pieces) != set(wanted) or not pieces:
        held = f"only {', '.join(map(plain, sorted(pieces)))}" if pieces else "none"
        raise ResiduaError(
            f"{where} does not list its {name} in whole (it has {held}): it is damaged, or its "
            "writing was interrupted. Download or save it again."
        )
    if odd := next((each for each in wanted if _is_no_list(group.attrs.get_id(each))), None):
        raise ResiduaError(
            f"{where} has {plain(odd)} of another kind than the list of short names that Keras "
            "writes. Download or save it again."
        )
    return [each.decode() for piece in wanted for each in group.attrs[piece]]


def _is_no_list(attribute: h5py.h5a.AttrID) -> bool:
    """Texts without a fixed length may all be one long text, which would be read each time."""
    return len(attribute.shape) != 1 or (attribute.shape[0] > 0 and attribute.dtype.kind != "S")


class _Reader:
    """Takes groups and tensors out of one file, whose bytes must really be in it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.left = path, LARGEST_RATIO * size
        self.walked: set[int] = set()

    def group(self, parent: h5py.Group, name: str) -> h5py.Group:
        """A group below `parent`. Raises ResiduaError where it lies outside, or is missing."""
        return cast("h5py.Group", self._member(parent, name))

    def tensor(self, parent: h5py.Group, name: str) -> Tensor:
        """A dataset as a tensor of its own. Raises ResiduaError."""
        import h5py
        import numpy as np
        import torch

        found = self._member(parent, name)
        where = f"{self.path}: {plain(parent.name.rstrip('/'))}/{plain(name)}"
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise ResiduaError(f"{where}: expected numbers, found none. Save it again.")
        # NumPy has no bfloat16: Keras 3 says so beside two bytes
        brain = found.dtype == "V2" and self.text(found, "dtype") == "bfloat16"
        if not brain and (found.dtype.kind not in "fiu" or found.dtype.itemsize > 8):
            raise ResiduaError(
                f"{where}: expected numbers of up to 64 bits, found {plain(found.dtype)}. "
                "Convert it and save it again."
            )
        if found.external or found.is_virtual:
            raise ResiduaError(
                f"{where}: keeps its numbers in another file, which is not opened. Save them "
                "in one file with model.save_weights."
            )
        self._claim(found, where)
        if brain:
            return torch.from_numpy(found[()].view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(np.asarray(found[()], found.dtype.newbyteorder("=")))

    def _claim(self, found: h5py.Dataset, where: str) -> None:
        """Raise ResiduaError if not every number is stored, or they were packed too tightly."""
        unpacked = found.nbytes
        if found.chunks is None:
            whole = found.id.get_storage_size() >= unpacked
        else:
            sides = zip(found.shape, found.chunks, strict=True)
            count = math.prod(-(-side // chunk) for side, chunk in sides)
            whole = found.id.get_num_chunks() >= count
            unpacked = count * math.prod(found.chunks) * found.dtype.itemsize
        self.left -= unpacked
        if self.left < 0 or not whole:
            shape = " x ".join(map(str, found.shape))
            raise ResiduaError(
                f"{where}: declares {shape} numbers, {unpacked:,} bytes, which are not in the "
                "file: it is damaged or was made to exhaust memory. Download or save it again."
            )

    def text(self, owner: h5py.Group | h5py.Dataset, name: str) -> str:
        """An attribute that is one text; "" if there is none. Raises ResiduaError."""
        import h5py

        if name not in owner.attrs:
            return ""
        kept = owner.attrs.get_id(name)
        if kept.shape != () or h5py.check_string_dtype(kept.dtype) is None:
            raise ResiduaError(
                f"{self.path}: {plain(owner.name)} has a {name} that is no text: it is damaged. "
                "Download or save it again."
            )
        found = owner.attrs[name]
        return found.decode() if isinstance(found, bytes) else str(found)

    def walk(self, group: h5py.Group, path: str = "") -> Iterator[tuple[str, h5py.Group]]:
        """Every group below, in the file's order, with its path."""
        import h5py

        self.walked.add(h5py.h5o.get_info(group.id).addr)
        for name in group:
            if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                self._refuse_link(group, name)
            found = group[name]
            if isinstance(found, h5py.Group):
                if h5py.h5o.get_info(found.id).addr in self.walked:  # a circle, or a maze
                    self._refuse_link(group, name)
                yield f"{path}/{name}", found
                yield from self.walk(found, f"{path}/{name}")

    def refuse_twice(self, names: list[str], what: str) -> None:
        """Raise ResiduaError if a name occurs twice."""
        if twice := first_twice(names):
            raise ResiduaError(
                f"{self.path}: lists the {what} {plain(twice)} twice, so it is unclear which is "
                "meant. Download or save it again."
            )

    def _member(self, parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
        import h5py

        found = parent
        for piece in name.split("/"):
            known = piece not in ("", ".") and isinstance(found, h5py.Group) and piece in found
            kind = found.get(piece, getclass=True, getlink=True) if known else None
            if kind is None:
                raise ResiduaError(
                    f"{self.path}: lists {plain(name)} in {plain(parent.name)}, but holds no such "
                    "thing: it is damaged, or its writing was interrupted. Download or save it "
                    "again."
                )
            if kind is not h5py.HardLink:
                self._refuse_link(found, piece)
            found = found[piece]
        return found

    def _refuse_link(self, group: h5py.Group, name: str) -> None:
        where = f"{self.path}: {plain(group.name.rstrip('/'))}/{plain(name)}"
        raise ResiduaError(
            f"{where} is a link to another place or file, which Keras never writes; it is not "
            "followed. Save the weights with model.save_weights."
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

    if len(config) > LONGEST_HEADER:
        raise ValueError(f"its configuration has {len(config):,} characters")
    if found := next(lambdas(json.loads(config)), None):
        raise ResiduaError(
            f"{path}: holds the Lambda layer {plain(found)}: what the network computes depends on its "
            "code, and code in a file is never run. If it changes nothing that weights need, save "
            "them alone with model.save_weights."
        )
