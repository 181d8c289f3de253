"""Weights and files -> the most likely classes of each, a row for each, in their order."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from residua.config.schema import Preprocessing
from residua.data.augmentation import normalise
from residua.data.dataset import Dataset, Pixels, Unreadable
from residua.data.folder import images_below
from residua.data.image import decode, fit, read_image
from residua.data.open import EMBEDDED, open_dataset
from residua.data.url import is_address, read_address
from residua.errors import ResiduaError
from residua.evaluation.score import name_of, softmax
from residua.system.files import write_atomically
from residua.weights.load import Weights
from residua.weights.network import (
    Logits,
    PooledFeatures,
    build_network,
    default_device,
    predict_logits,
)

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


@dataclass(frozen=True, eq=False)
class Features:
    """values: float32 [N, C], a row for each of the files. unreadable: (file, reason)."""

    files: tuple[str, ...]
    values: npt.NDArray[np.float32]
    unreadable: tuple[tuple[str, str], ...]

    def save(self, file: Path) -> None:
        """Write them, atomically, by the name's end: `files` and `features` as NumPy's .npz, or a
        .parquet table with the columns file, feature0, feature1, ... Raises ResiduaError.
        """
        stream = io.BytesIO()
        if file.suffix == ".parquet":
            _write_parquet(self, stream)
        elif file.suffix == ".npz":
            np.savez(stream, files=np.array(self.files), features=self.values)
        else:
            raise ResiduaError(f"{file}: expected a name that ends in .npz or .parquet.")
        write_atomically(file, stream.getvalue())


def predict_files(
    weights: Weights,
    files: Sequence[str],
    top: int = 3,
    *,
    max_pixels: int,
    allow_private: bool = False,
) -> Iterator[Prediction]:
    """A row for every named file or http(s) address and every image below a named folder.

    What cannot be read keeps its row, with the reason. Raises ResiduaError if top < 1 or the
    weights cannot be used.
    """
    if top < 1:
        raise ResiduaError(f"top = {top}: must be at least 1.")
    device, metadata = default_device(), weights.metadata
    network = build_network(weights, device)
    for file, found in _batched(weights, files, max_pixels, allow_private, sets=False):
        readable = [each for each in found if not isinstance(each, str)]
        chances = iter(
            softmax(_outputs(network, readable, metadata.preprocessing, device)).tolist()
        )
        for name, each in zip(file, found, strict=True):
            if isinstance(each, str):
                yield Prediction(name, (), each)
            else:
                yield Prediction(name, _top(next(chances), top, metadata.classes))


def features_of(
    weights: Weights,
    files: Sequence[str],
    *,
    max_pixels: int,
    stage: int | None = None,
    pool_size: int | None = None,
) -> Features:
    """The feature map of each image after a stage (None: the last, as the head sees it), averaged
    over a grid of P x P fields, P = pool_size (None: as the head of a transferred run reads it,
    else 1): float32 [N, C x P x P].

    Raises ResiduaError if no image can be read or the network has no such stage.
    """
    device = default_device()
    network = build_network(weights, device, require_head=False)
    if stage is not None and not 1 <= stage <= len(network.stages):
        name = weights.metadata.network.name
        raise ResiduaError(f"--stage {stage}: {name} has stages 1 to {len(network.stages)} here.")
    pool_size = pool_size or (network.pool_size if weights.metadata.network.head else 1)
    reader = PooledFeatures(network, stage or len(network.stages), pool_size)
    names: list[str] = []
    values: list[Logits] = []
    unreadable: list[tuple[str, str]] = []
    for batch, found in _batched(weights, files, max_pixels, False, sets=True):
        pairs = list(zip(batch, found, strict=True))
        unreadable += [(name, each) for name, each in pairs if isinstance(each, str)]
        names += [name for name, each in pairs if not isinstance(each, str)]
        readable = [each for each in found if not isinstance(each, str)]
        if readable:
            values.append(_outputs(reader, readable, weights.metadata.preprocessing, device))
    if not names:
        raise ResiduaError(f"{', '.join(files)}: no image could be read.")
    return Features(tuple(names), np.concatenate(values), tuple(unreadable))


def _batched(
    weights: Weights, files: Sequence[str], max_pixels: int, allow_private: bool, *, sets: bool
) -> Iterator[tuple[list[str], list[Pixels | str]]]:
    """Names and images, or why there is none, BATCH at a time; read in a few threads.

    sets: whether a single name may be a data set without image files.
    """
    preprocessing, packed = weights.metadata.preprocessing, _packed(files) if sets else {}
    named = list(packed) or [each for file in files for each in _expand(file)]

    def read(file: str) -> Pixels | str:
        try:
            if packed:
                return _unpacked(*packed[file], preprocessing, max_pixels)
            return read_input(file, preprocessing, max_pixels, allow_private)
        except Unreadable as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=4) as pool:
        for start in range(0, len(named), BATCH):
            batch = named[start : start + BATCH]
            yield batch, list(pool.map(read, batch))


def _packed(files: Sequence[str]) -> dict[str, tuple[Dataset, int]]:
    """Path -> source and number of the images of a data set without image files, else {}."""
    if len(files) != 1 or is_address(files[0]):
        return {}
    path = Path(files[0]).expanduser()
    if (path.exists() or files[0] != EMBEDDED) and (not path.is_dir() or images_below(path)):
        return {}
    try:
        source = open_dataset(files[0])
    except ResiduaError:  # an empty folder, perhaps, which reading images explains
        return {}
    return {entry.path: (source, index) for index, entry in enumerate(source.entries)}


def _unpacked(source: Dataset, index: int, rule: Preprocessing, max_pixels: int) -> Pixels:
    return fit(source.pixels(index, source.content(index), rule.channels, max_pixels), rule)


def read_input(
    file: str, preprocessing: Preprocessing, max_pixels: int, allow_private: bool
) -> Pixels:
    """A file or address as uint8 [size, size, channels] in RGB order. Raises Unreadable."""
    if not is_address(file):
        return read_image(Path(file).expanduser(), preprocessing, max_pixels)
    content = read_address(file, allow_private=allow_private)
    return fit(decode(content, preprocessing.channels, max_pixels), preprocessing)


def parquet() -> Any:
    """The package pyarrow, which writes such files. Raises ResiduaError where it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ResiduaError(
            "a .parquet file needs pyarrow: pip install pyarrow, or name a file that ends in .npz."
        ) from error
    return pyarrow


def _write_parquet(features: Features, stream: io.BytesIO) -> None:
    arrow = parquet()
    columns = {f"feature{place}": values for place, values in enumerate(features.values.T)}
    arrow.parquet.write_table(arrow.table({"file": list(features.files), **columns}), stream)


def _expand(file: str) -> list[str]:
    """A folder's images, or the file itself, whether it is there or not."""
    if is_address(file):
        return [file]
    path = Path(file).expanduser()
    return [str(each) for each in images_below(path)] if path.is_dir() else [file]


def _outputs(
    network: nn.Module,
    readable: Sequence[Pixels],
    preprocessing: Preprocessing,
    device: torch.device,
) -> Logits:
    """uint8 [S, S, C] images -> what the network gives for them, float32 [B, K]."""
    if not readable:
        return np.zeros((0, 1), np.float32)
    pixels = torch.from_numpy(np.stack(readable)).to(device)
    (outputs,) = predict_logits(network, [normalise(pixels, preprocessing)])
    return outputs


def _top(
    chances: Sequence[float], top: int, classes: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    best = sorted(range(len(chances)), key=lambda output: -chances[output])[:top]
    return tuple((name_of(classes, output), chances[output]) for output in best)
