"""The main path on the embedded digits: train, judge, then name ten that were held out."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from residua.api import Run, predict
from residua.config.recipes import compose
from residua.data.open import open_dataset
from residua.evaluation.predict import Prediction
from residua.experiment import train_run
from residua.system.console import Console

SETTINGS = {"data.test_fraction": 0.2, "data.val_fraction": 0.1}
SCALE = 16  # the written images are 128 px instead of 8: something to look at


def demonstrate(
    out: str | None, split_seed: int, console: Console
) -> tuple[list[Prediction], list[str]]:
    """Train in folder `out`; predictions of ten held-out digits, and what they really are.

    The ten are written as PNG files to RUN/held-out/, one of each class.
    """
    config = compose("digits", None, {**SETTINGS, "data.split_seed": split_seed})
    run = Run(train_run(config, out, console))
    files, truths = _write_held_out(run)
    console.print(f"ten held-out digits, as images in {run.path / 'held-out'}:")
    return predict(run, files), truths


def _write_held_out(run: Run) -> tuple[list[Path], list[str]]:
    source = open_dataset("digits")
    place = {entry.path: index for index, entry in enumerate(source.entries)}
    folder = run.path / "held-out"
    folder.mkdir(exist_ok=True)
    files: dict[str, Path] = {}
    for member in run.folder.read_split():
        if member.split == "test" and member.label not in files:
            index = place[member.path]
            pixels = source.pixels(index, source.content(index), 1, 10_000)
            file = folder / f"{member.label}.png"
            side = pixels.shape[0] * SCALE
            Image.fromarray(pixels[:, :, 0]).resize((side, side), Image.Resampling.BOX).save(file)
            files[member.label] = file
    labels = sorted(files)
    return [files[label] for label in labels], labels
