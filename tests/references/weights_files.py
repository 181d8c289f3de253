"""Small valid weights files in every format, to be damaged; and how a refusal reads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from residua.config.schema import NetworkSpec, Preprocessing
from residua.errors import ResiduaError
from residua.weights.load import read_file
from residua.weights.native import FORMAT

CPU = torch.device("cpu")
NAME, KERAS_NAME = "cifar_resnet20", "tutorial_cifar_resnet32_e"
NETWORK = NetworkSpec(NAME, 10, 3)
SPEC = asdict(NETWORK)
PREPARED = Preprocessing(
    size=32,
    channels=3,
    resize="crop",
    crop=1.0,
    channel_order="rgb",
    mean=(125.0, 123.0, 114.0),
    std=(63.0, 62.0, 67.0),
    interpolation="antialias",
)
SUFFIXES = {
    "pickle": ".pth",
    "old pickle": ".th",
    "safetensors": ".safetensors",
    "ours": ".safetensors",
    "Keras 2": ".h5",
    "Keras 3 legacy": ".h5",
    "Keras 3 weights": ".weights.h5",
    "Keras 3 model": ".keras",
}
KERAS_FORMS = {  # kind -> form of references.keras_files
    "Keras 2": "keras2_whole",
    "Keras 3 legacy": "keras3_legacy_h5",
    "Keras 3 weights": "keras3_weights",
    "Keras 3 model": "keras3_whole",
}
KINDS = [  # parameters of a test of every format
    pytest.param(kind, marks=pytest.mark.slow) if kind in KERAS_FORMS else kind for kind in SUFFIXES
]
State = dict[str, Tensor]


def refused(path: Path, model: str | None = None) -> str:
    """The message with which reading refuses a file: one line that names the file first."""
    with pytest.raises(ResiduaError) as caught:
        read_file(path, model)
    return checked(path, str(caught.value))


def checked(path: Path, message: str) -> str:
    """A message without the path in front, after checking that it can be printed as it is."""
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert message.endswith((".", "--new-head"))
    assert len(message) < 1200
    assert "weights_only" not in message  # the libraries' advice is to let code run
    return message.removeprefix(f"{path}: ")


def cifar_state() -> State:
    """A state dict as pytorch_resnet_cifar10 publishes it, without its wrapper's prefix."""
    from references import torch_networks

    state = torch_networks.state_dict(NAME)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


class Files(Mapping[str, bytes]):
    """The content of a valid file by format; Keras is imported only when it has to write one.

    state: what the PyTorch files contain. ours: under our names. build: makes the Keras model.
    """

    def __init__(self, state: State, ours: State, build: Callable[[], Any], folder: Path) -> None:
        self.state, self.ours, self.build, self.folder = state, ours, build, folder
        self.written: dict[str, bytes] = {}

    def __getitem__(self, kind: str) -> bytes:
        if kind not in self.written:
            self.written[kind] = self._write(kind)
        return self.written[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(SUFFIXES)

    def __len__(self) -> int:
        return len(SUFFIXES)

    def _write(self, kind: str) -> bytes:
        if kind in KERAS_FORMS:
            from references import keras_files

            if "model" not in self.__dict__:
                self.model = self.build()
            form = KERAS_FORMS[kind]
            return keras_files.write(self.model, self.folder / form, form).read_bytes()
        if kind == "old pickle":
            stream = io.BytesIO()
            content = {"state_dict": self.state}
            torch.save(content, stream, _use_new_zipfile_serialization=False)
            return stream.getvalue()
        if kind == "pickle":
            return saved({"state_dict": self.state})
        return save(self.state) if kind == "safetensors" else native(self.ours)


def saved(content: object, protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, pickle_protocol=protocol)
    return stream.getvalue()


def native(state: State, **changes: object) -> bytes:
    """One of our files with changes in its metadata; None leaves an entry out."""
    plain = json.loads(json.dumps(PREPARED.__dict__))
    metadata = {
        "format": FORMAT,
        "network": SPEC,
        "classes": list("abcdefghij"),
        "preprocessing": plain,
        "notes": {},
        **changes,
    }
    kept = {key: value for key, value in metadata.items() if value is not None}
    return save(state, {"residua": json.dumps(kept)})


def put(folder: Path, kind: str, content: bytes) -> Path:
    path = folder / f"file{SUFFIXES.get(kind, '')}"
    path.write_bytes(content)
    return path


def hdf5(folder: Path, fill: Callable[[h5py.File], None], name: str = "file.h5") -> Path:
    with h5py.File(folder / name, "w") as file:
        fill(file)
    return folder / name


def legacy(file: h5py.File, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Layers as Keras 2 writes them: name -> part -> array."""
    file.attrs["layer_names"] = np.array([name.encode() for name in layers])
    for name, tensors in layers.items():
        group = file.require_group(name)
        group.attrs["weight_names"] = np.array([part.encode() for part in tensors])
        for part, array in tensors.items():
            if array is not None:
                group[part] = array


def safetensors(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


class Calling:
    """An object whose pickle calls a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.called


def opened(folder: Path) -> Calling:
    return Calling(open, str(folder / "it-ran"), "w")
