"""Weights -> the images that they, and the weights that they started from, were trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from residua.config.schema import NONE, Config
from residua.data.prepared import Prepared
from residua.errors import ResiduaError
from residua.runs.folder import EARLIER, RunFolder
from residua.system.files import csv_text
from residua.system.words import agreeing, counted
from residua.weights.load import Weights

TRAINED_IN = "trained_in"  # note of weights in another file: the folder of their run, or several


def runs_of(weights: Weights) -> list[RunFolder]:
    """The runs that trained the weights: that of the folder of their file, or of a note in it."""
    noted = weights.metadata.notes.get(TRAINED_IN)
    folders = noted if isinstance(noted, list) else [noted]
    noted_runs = [_run_at(Path(folder)) for folder in folders if isinstance(folder, str)]
    own = _run_at(weights.path)
    return [run for run in ([own] if own else noted_runs) if run is not None]


def with_provenance(weights: Weights) -> Weights:
    """The weights with a note of their runs, for a file outside their folders."""
    folders = [str(run.path.resolve()) for run in runs_of(weights)]
    if not folders:
        return weights
    noted = folders if len(folders) > 1 else folders[0]
    notes = {**weights.metadata.notes, TRAINED_IN: noted}
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
    runs = [] if weights is None else runs_of(weights)
    return {digest for run in runs for digest in images_seen(run)}


def write_earlier_images(run: RunFolder, seen: set[str]) -> None:
    """Record the images that a new run's initial weights were trained on."""
    if seen:
        run.write_text(EARLIER, csv_text(("digest",), [(digest,) for digest in sorted(seen)]))


def with_leakage_notes(prepared: Prepared, run: RunFolder) -> Prepared:
    """The data with warnings of images that the run's initial weights have seen, if it has any."""
    notes = leakage_notes(earlier_images(run), prepared.config, prepared)
    return dataclasses.replace(prepared, notes=(*prepared.notes, *notes))


def leakage_notes(seen: set[str], config: Config, prepared: Prepared) -> tuple[str, ...]:
    """Warnings of images that the initial weights have seen. seen: digests of these images."""
    source = config.network.weights
    advice = dict.fromkeys(
        ("validation", "test"),
        "metrics on them are too optimistic: use the same --split-seed and fractions as "
        "that run, or other images",
    )
    if config.transfer.strategy in ("features", "auto"):
        advice = {"train": "cross-validation of its features is too optimistic"} | advice
    notes = []
    for split, consequence in advice.items():
        images = [member for member in prepared.members if member.split == split]
        if leaked := sum(not seen.isdisjoint(member.digests) for member in images):
            name = "training" if split == "train" else split
            notes.append(
                f"{leaked:,} of {counted(len(images), f'{name} image')} "
                f"{agreeing(leaked, 'was', 'were')} used to train {source}, to select its weights, "
                f"or by the weights that it started from, so {consequence}"
            )
    return tuple(notes)


def _run_at(path: Path) -> RunFolder | None:
    folder = path if path.is_dir() else path.parent
    if not RunFolder.is_at(folder):
        return None
    try:
        return RunFolder.existing(folder)
    except ResiduaError:
        return None
