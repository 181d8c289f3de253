"""A run folder without its training: the weights of a fresh network, which evaluate in no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from residua.config.parse import with_settings
from residua.config.schema import Config
from residua.data.prepare import prepare
from residua.networks.zoo.catalogue import build_from
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.weights.native import Metadata

SETTINGS = {
    "network.name": "cifar_resnet14",
    "network.head": "linear",
    "network.stage": 1,
    "data.test_fraction": 0.2,
    "training.epochs": 1,
}


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Writes what a training on a data folder writes, but for the training itself."""

    def write(data: Path, name: str = "run", **settings: object) -> RunFolder:
        keywords = {key.replace("__", "."): value for key, value in settings.items()}
        config = with_settings(Config(), {"data.path": str(data), **SETTINGS, **keywords})
        prepared = prepare(config, Console(quiet=True))
        config, classes = prepared.config, prepared.dataset.classes
        network = build_from(config.network_spec, seed=3)
        run = RunFolder.new(str(tmp_path / name), "data")
        run.write_json("classes.json", list(classes))
        run.write_split(prepared.members)
        metadata = Metadata(config.network_spec, classes, config.preprocessing, {})
        run.write_weights("best.safetensors", network.state_dict(), metadata)
        run.write_settings(config, prepared.choices)
        return run

    return write


@pytest.fixture
def run(shapes: Path, write_run: Callable[..., RunFolder]) -> RunFolder:
    """A run on 60 images of three classes, 12 of them for the test."""
    return write_run(shapes)
