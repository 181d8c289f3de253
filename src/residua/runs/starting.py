"""The weights that a training starts from, and what their past means for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from residua.config.schema import AUTO, NONE, Config
from residua.data.prepare import Prepared
from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.runs.sources import IMAGENET, is_published, open_weights
from residua.system.console import Console
from residua.weights.load import Weights


def begun_from(config: Config, console: Console) -> Weights | None:
    """The weights that a training starts from, before any image is read."""
    network = config.network
    if network.weights == NONE:
        return None
    if not network.weights:
        if network.new_head:
            raise ResiduaError("--new-head replaces the head of weights: give --weights too.")
        if network.freeze:
            raise ResiduaError("--freeze keeps stages of weights: give --weights too.")
        return None
    model = None if network.name == AUTO else network.name
    if model is None and network.weights == IMAGENET:
        model = "resnet50" if torch.cuda.is_available() else "resnet18"
    found = open_weights(network.weights, model, console)
    channels = found.metadata.network.channels
    if config.preprocessing.channels not in (AUTO, channels):
        raise ResiduaError(
            f"{found.path}: takes {channels} channels, but preprocessing.channels is "
            f"{config.preprocessing.channels}. Leave it out, or choose other weights."
        )
    return found


def say_start(weights: Weights, prepared: Prepared, console: Console) -> None:
    """From which weights a training starts, and what of them may surprise."""
    if prepared.config.transfer.strategy == "scratch":
        console.print(f"the network of {weights.path}, and nothing that it has learnt")
        return
    held, classes = weights.metadata.classes, prepared.dataset.classes
    new_head = prepared.config.network.new_head
    console.print(
        f"starts from {weights.path} ({weights.form} of {weights.metadata.network.name})"
        + (", with a new head" if new_head else "")
    )
    chosen = {each.setting for each in prepared.choices}
    if weights.assumed_preprocessing and "preprocessing.mean" in chosen:
        console.warn(f"{weights.path.name}: {weights.assumed_preprocessing}")
    if held and held[: len(classes)] != classes and not new_head:
        console.warn(
            f"its head was learnt for {', '.join(held[:3])}, ... and begins as that of "
            f"{', '.join(classes[:3])}, ...: --new-head makes a fresh one"
        )


def note_known(config: Config, prepared: Prepared) -> Prepared:
    """With notes on evaluation images that the initial weights were trained on."""
    source = config.network.weights
    if not source or is_published(source) or config.transfer.strategy == "scratch":
        return prepared
    place = Path(source)
    if place.is_file() and (place.parent / "split.csv").exists():
        place = place.parent
    if not place.is_dir():
        return prepared
    notes = list(prepared.notes)
    earlier = RunFolder.existing(place)
    known_there = earlier.images_used()
    if config.transfer.strategy in ("features", "auto"):
        teaching = [each.sha256 for each in prepared.members if each.split == "train"]
        if known := sum(each in known_there for each in teaching):
            notes.append(
                f"{known:,} of {len(teaching):,} training images trained {earlier.path} or chose "
                "its weights, so what cross-validation says of its features is too good"
            )
    for part in ("validation", "test"):
        judging = [each.sha256 for each in prepared.members if each.split == part]
        if known := sum(each in known_there for each in judging):
            notes.append(
                f"{known:,} of {len(judging):,} {part} images trained {earlier.path} or chose "
                "its weights, so its figures on them are too good: use the same --split-seed and "
                "fractions as there, or other images"
            )
    return dataclasses.replace(prepared, notes=tuple(notes))
