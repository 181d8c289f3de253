"""Weights files of every container, small and right, to be broken; and how a refusal reads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
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
from residua.networks.zoo.catalogue import build
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
State = dict[str, Tensor]


def refused(path: Path, model: str | None = None) -> str:
    """What reading says of a file that it must refuse: one line that names the file."""
    with pytest.raises(ResiduaError) as caught:
        read_file(path, model)
    return judged(path, str(caught.value))


def judged(path: Path, said: str) -> str:
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    assert said.endswith((".", "--new-head"))
    assert len(said) < 1200
    assert "weights_only" not in said  # the libraries' advice is to let code run
    return said.removeprefix(f"{path}: ")


@pytest.fixture(scope="module")
def state() -> State:
    """A state dict of pytorch_resnet_cifar10, without its wrapper's prefix."""
    from references import torch_networks

    found = torch_networks.state_dict(NAME)
    return {name.removeprefix("module."): each for name, each in found.items()}


@pytest.fixture(scope="module")
def whole(state: State, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A file of each container, with the weights of a small network."""
    from references import keras_files, keras_networks

    folder = tmp_path_factory.mktemp("whole")
    model = keras_networks.build(KERAS_NAME)
    keras_networks.randomise(model, 0)
    return contents(state, model, folder, keras_files.write)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A file of each container, mostly structure: four layers of no network."""
    from references import keras_files
    from references.keras_networks import keras, layers

    folder = tmp_path_factory.mktemp("tiny")
    generator = torch.Generator().manual_seed(0)
    state = {
        "conv1.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn1.weight": torch.ones(4),
        "bn1.running_var": torch.ones(4),
        "fc.weight": torch.randn(2, 4, generator=generator),
    }
    keras.utils.clear_session()
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    return contents(state, keras.Model(inputs, outputs), folder, keras_files.write)


def contents(
    state: State, model: Any, folder: Path, write: Callable[..., Path]
) -> Mapping[str, bytes]:
    old = io.BytesIO()
    torch.save({"state_dict": state}, old, _use_new_zipfile_serialization=False)
    ours = build(NAME, seed=0).state_dict() if len(state) > 4 else state
    forms = {"Keras 2": "keras2_whole", "Keras 3 weights": "keras3_weights"}
    forms |= {"Keras 3 legacy": "keras3_legacy_h5", "Keras 3 model": "keras3_whole"}
    return {
        "pickle": saved({"state_dict": state}),
        "old pickle": old.getvalue(),
        "safetensors": save(state),
        "ours": native(ours),
        **{kind: write(model, folder / form, form).read_bytes() for kind, form in forms.items()},
    }


def saved(content: object, protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, pickle_protocol=protocol)
    return stream.getvalue()


def native(state: State, **changes: object) -> bytes:
    """A file of ours whose card says other things; None leaves them out."""
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
    """Layers as Keras 2 writes them: name -> tensor's name -> array."""
    file.attrs["layer_names"] = np.array([name.encode() for name in layers])
    for name, tensors in layers.items():
        group = file.require_group(name)
        group.attrs["weight_names"] = np.array([each.encode() for each in tensors])
        for each, array in tensors.items():
            if array is not None:
                group[each] = array


@pytest.fixture
def keras_file(whole: Mapping[str, bytes], tmp_path: Path) -> Path:
    """A .weights.h5 of Keras 3 that can be read."""
    return put(tmp_path, "Keras 3 weights", whole["Keras 3 weights"])


def safetensors(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


class Calling:
    """Its pickle calls a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.called


def opened(folder: Path) -> Calling:
    return Calling(open, str(folder / "it-ran"), "w")
