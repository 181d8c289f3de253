"""Weights -> the images that they, and the weights that they started from, were trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from residua.config.schema import NONE
from residua.errors import ResiduaError
from residua.runs.folder import EARLIER, RunFolder
from residua.system.files import csv_text
from residua.weights.load import Weights

TRAINED_IN = "trained_in"  # note of converted weights: the folder of their run


def run_of(weights: Weights) -> RunFolder | None:
    """The run that trained the weights: that of the folder of their file, or of a note in it."""
    noted = weights.metadata.notes.get(TRAINED_IN)
    return _run_at(weights.path) or (_run_at(Path(noted)) if isinstance(noted, str) else None)


def with_provenance(weights: Weights) -> Weights:
    """The weights with a note of their run, for a file outside its folder."""
    run = run_of(weights)
    if run is None:
        return weights
    notes = {**weights.metadata.notes, TRAINED_IN: str(run.path.resolve())}
    return dataclasses.replace(weights, metadata=dataclasses.replace(weights.metadata, notes=notes))


def images_seen(run: RunFolder) -> set[str]:
    """Digests of the images that trained a run's weights or selected them, at any step."""
    return run.images_used() | earlier_images(run)


def earlier_images(run: RunFolder) -> set[str]:
    """Digests of the images that a run's initial weights were trained on."""
    if (run.path / EARLIER).exists():
        return {row["digest"] for row in run.read_csv(EARLIER, ("digest",))}
    config = run.config  # of a version that did not record them
    source = config.network.weights
    if source in ("", NONE) or config.transfer.strategy == "scratch":
        return set()
    initial = _run_at(Path(source))
    if initial is None or initial.path.resolve() == run.path.resolve():
        return set()
    return images_seen(initial)


def images_seen_by(weights: Weights | None) -> set[str]:
    """Digests of the images that trained weights of any origin, as far as they are known."""
    run = run_of(weights) if weights is not None else None
    return images_seen(run) if run is not None else set()


def write_earlier_images(run: RunFolder, seen: set[str]) -> None:
    """Record the images that a new run's initial weights were trained on."""
    if seen:
        run.write_text(EARLIER, csv_text(("digest",), [(digest,) for digest in sorted(seen)]))


def _run_at(path: Path) -> RunFolder | None:
    folder = path if path.is_dir() else path.parent
    if not RunFolder.is_at(folder):
        return None
    try:
        return RunFolder.existing(folder)
    except ResiduaError:
        return None
