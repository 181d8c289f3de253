"""Data and settings -> a run folder: of a training, or as if there had been one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from residua.config.parse import with_settings
from residua.config.recipes import compose
from residua.config.schema import Config
from residua.data.prepare import prepare
from residua.experiment import train
from residua.networks.zoo import catalogue
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.weights.native import Metadata

ONE_STAGE = {"network.name": "cifar_resnet14", "network.head": "linear", "network.stage": 1}
QUIET = Console(quiet=True)


def trained(data: Path, out: Path, settings: Mapping[str, object]) -> RunFolder:
    """Train by `settings` (dotted name -> value); no report, which takes half of a small training.

    out: a new folder.
    """
    return train(compose(data, None, settings), str(out), QUIET, report=False)


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
