"""A run and files -> the most likely classes of each, one row per file, in the order they came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from residua.config import Preprocessing
from residua.data.augmentation import normalise
from residua.data.folder import pictures_below
from residua.data.pictures import read_picture
from residua.data.source import Pixels, Unreadable
from residua.errors import ResiduaError
from residua.evaluation import name_of, softmax
from residua.inference import default_device, load_network, logits_of
from residua.run import RunFolder

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """One file: its most likely classes with probabilities, best first, or why there are none."""

    file: str
    top: tuple[tuple[str, float], ...]
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """The row that `residua predict --format json` prints."""
        top = [{"class": name, "probability": chance} for name, chance in self.top]
        return {"file": self.file, "top": top, "error": self.error}


def predict_files(run: RunFolder, files: Sequence[str], top: int = 3) -> Iterator[Prediction]:
    """A row for every named file and every picture below a named folder.

    A file that cannot be read keeps its row, with the reason. Raises ResiduaError if top < 1 or the
    run cannot be used.
    """
    if top < 1:
        raise ResiduaError(f"top = {top}: must be at least 1.")
    device, max_pixels = default_device(), run.config.data.max_pixels
    network, card = load_network(run.weights, device)
    named = [each for file in files for each in _expand(file)]

    def read(file: str) -> Pixels | str:
        try:
            return read_picture(Path(file).expanduser(), card.preprocessing, max_pixels)
        except Unreadable as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=4) as pool:
        for start in range(0, len(named), BATCH):
            batch = named[start : start + BATCH]
            found = list(pool.map(read, batch))
            chances = iter(_chances(network, found, card.preprocessing, device))
            for file, each in zip(batch, found, strict=True):
                if isinstance(each, str):
                    yield Prediction(file, (), each)
                else:
                    yield Prediction(file, _top(next(chances), top, card.classes))


def _expand(file: str) -> list[str]:
    """A folder's pictures, or the file itself, whether it is there or not."""
    path = Path(file).expanduser()
    return [str(each) for each in pictures_below(path)] if path.is_dir() else [file]


def _chances(
    network: nn.Module,
    found: Sequence[Pixels | str],
    preprocessing: Preprocessing,
    device: torch.device,
) -> Sequence[Sequence[float]]:
    readable = [each for each in found if not isinstance(each, str)]
    if not readable:
        return []
    pixels = torch.from_numpy(np.stack(readable)).to(device)
    (logits,) = logits_of(network, [normalise(pixels, preprocessing)])
    chances: list[list[float]] = softmax(logits).tolist()
    return chances


def _top(
    chances: Sequence[float], top: int, classes: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    best = sorted(range(len(chances)), key=lambda output: -chances[output])[:top]
    return tuple((name_of(classes, output), chances[output]) for output in best)
