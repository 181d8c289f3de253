"""Data and settings -> a run folder: of a training, or as if there had been one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import residua
from residua.config.parse import flags, with_settings
from residua.config.recipes import compose
from residua.config.schema import Config
from residua.data.prepare import prepare
from residua.experiment import train
from residua.networks.zoo import catalogue
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.weights.native import Metadata

ONE_STAGE = {"network.name": "cifar_resnet14", "network.head": "linear", "network.stage": 1}
FLAGS, QUIET = flags(), Console(quiet=True)


def trained(
    data: Path, out: Path, settings: Mapping[str, object] | None = None, **arguments: object
) -> residua.Run:
    """Train into the new folder `out`; no report, which takes half of a small training.

    settings: dotted name -> value. arguments: those of residua.train.
    """
    named = {
        FLAGS[f"--{name.replace('_', '-')}"]: str(value) if isinstance(value, Path) else value
        for name, value in arguments.items()
    }
    config = compose(data, None, {**named, **(settings or {})})
    return residua.load(train(config, str(out), QUIET, report=False).path)


def untrained(data: Path, out: Path, settings: Mapping[str, object]) -> RunFolder:
    """The run folder of a training, with the weights of a fresh network, a fifth for the test."""
    usual = {**ONE_STAGE, "data.test_fraction": 0.2, "training.epochs": 1}
    config = with_settings(Config(), {"data.path": str(data), **usual, **settings})
    prepared = prepare(config, QUIET)
    config, classes = prepared.config, prepared.dataset.classes
    network = catalogue.build_from(config.network_spec, seed=3)
    run = RunFolder.new(str(out), "data")
    run.write_json("classes.json", list(classes))
    run.write_split(prepared.members)
    metadata = Metadata(config.network_spec, classes, config.preprocessing, {})
    run.write_weights("best.safetensors", network.state_dict(), metadata)
    run.write_settings(config, prepared.choices)
    return run
