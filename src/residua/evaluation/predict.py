"""Weights and image files -> the most likely classes of each image, or its features."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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
from residua.data.image import decode, read_image, resize
from residua.data.open import EMBEDDED, open_dataset
from residua.data.url import is_address, read_address
from residua.errors import ResiduaError
from residua.evaluation.metrics import softmax
from residua.evaluation.score import class_name
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
THREADS = 4  # that read images

Input = tuple[str, Callable[[], Pixels]]  # the image's name, and how to read it


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    file: path or address as given; paths below a folder for a folder.
    top: (class, probability) of the most likely classes, best first; empty with an error.
    error: why the file cannot be read, or None.
    """

    file: str
    top: tuple[tuple[str, float], ...]
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """The object that `residua predict --format json` prints for the file."""
        top = [{"class": name, "probability": probability} for name, probability in self.top]
        return {"file": self.file, "top": top, "error": self.error}


@dataclass(frozen=True, eq=False)
class Features:
    """The features of some images.

    files: names of the N readable files.
    values: float32 [N, C], one row per file.
    unreadable: (file, reason) of the others.
    """

    files: tuple[str, ...]
    values: npt.NDArray[np.float32]
    unreadable: tuple[tuple[str, str], ...]

    def save(self, file: Path) -> None:
        """Write atomically in the format of the extension: .npz with the arrays `files` and
        `features`, or .parquet with the columns file, feature0, feature1, ... Raises ResiduaError.
        """
        stream = io.BytesIO()
        ending = file.suffix.lower()
        if ending == ".parquet":
            arrow = import_pyarrow()
            columns = {f"feature{index}": column for index, column in enumerate(self.values.T)}
            table = arrow.table({"file": list(self.files), **columns})
            arrow.parquet.write_table(table, stream)
        elif ending == ".npz":
            np.savez(stream, files=np.array(self.files), features=self.values)
        else:
            raise ResiduaError(f"{file}: expected a file name that ends in .npz or .parquet.")
        write_atomically(file, stream.getvalue())


def predict_files(
    weights: Weights,
    files: Sequence[str],
    top: int = 3,
    *,
    max_pixels: int,
    allow_private: bool = False,
) -> Iterator[Prediction]:
    """A prediction for each file and http(s) address and for each image below each folder.

    top: how many classes per image. max_pixels: larger images are refused. allow_private: also
    read addresses in private networks. An unreadable image yields its reason. Raises ResiduaError
    if top < 1 or the weights cannot classify.
    """
    if top < 1:
        raise ResiduaError(f"top = {top}: must be at least 1.")
    device, metadata = default_device(), weights.metadata
    network = build_network(weights, device)
    inputs = _file_inputs(files, metadata.preprocessing, max_pixels, allow_private)
    for batch in _read_batches(inputs):
        readable = [image for _, image in batch if not isinstance(image, str)]
        logits = _forward(network, readable, metadata.preprocessing, device)
        probabilities = iter(softmax(logits).tolist())
        for name, image in batch:
            if isinstance(image, str):
                yield Prediction(name, (), image)
            else:
                yield Prediction(name, _best(next(probabilities), top, metadata.classes))


def features_of(
    weights: Weights,
    files: Sequence[str],
    *,
    max_pixels: int,
    stage: int | None = None,
    pool_size: int | None = None,
) -> Features:
    """The feature map of each image after a stage, average-pooled and flattened: [N, C x P x P].

    files: paths, addresses, folders, or one data set without image files. stage: from 1; None: the
    last. pool_size: P; None: as the weights' new head reads the map, else 1. Raises ResiduaError if
    no image can be read or the network has no such stage.
    """
    device, metadata = default_device(), weights.metadata
    network = build_network(weights, device, require_head=False)
    stages = len(network.stages)
    if stage is not None and not 1 <= stage <= stages:
        raise ResiduaError(f"--stage {stage}: {metadata.network.name} has stages 1 to {stages}.")
    pool_size = pool_size or (network.pool_size if metadata.network.head else 1)
    extractor = PooledFeatures(network, stage or stages, pool_size)
    inputs = _dataset_inputs(files, metadata.preprocessing, max_pixels) or _file_inputs(
        files, metadata.preprocessing, max_pixels, False
    )
    names: list[str] = []
    values: list[Logits] = []
    unreadable: list[tuple[str, str]] = []
    for batch in _read_batches(inputs):
        unreadable += [(name, image) for name, image in batch if isinstance(image, str)]
        names += [name for name, image in batch if not isinstance(image, str)]
        if readable := [image for _, image in batch if not isinstance(image, str)]:
            values.append(_forward(extractor, readable, metadata.preprocessing, device))
    if not names:
        raise ResiduaError(f"{', '.join(files)}: no image could be read.")
    return Features(tuple(names), np.concatenate(values), tuple(unreadable))


def read_input(
    file: str, preprocessing: Preprocessing, max_pixels: int, allow_private: bool
) -> Pixels:
    """A file or address as uint8 [size, size, channels] in RGB order. Raises Unreadable."""
    if not is_address(file):
        return read_image(Path(file).expanduser(), preprocessing, max_pixels)
    content = read_address(file, allow_private=allow_private)
    return resize(decode(content, preprocessing.channels, max_pixels), preprocessing)


def import_pyarrow() -> Any:
    """The package pyarrow, which writes .parquet files. Raises ResiduaError if it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ResiduaError(
            "a .parquet file needs pyarrow: pip install pyarrow, or choose a file name that ends "
            "in .npz."
        ) from error
    return pyarrow


def _file_inputs(
    files: Sequence[str], preprocessing: Preprocessing, max_pixels: int, allow_private: bool
) -> list[Input]:
    """Every file and address, and every image below every folder."""
    names: list[str] = []
    for file in files:
        path = Path(file).expanduser()
        is_folder = not is_address(file) and path.is_dir()
        names += map(str, images_below(path)) if is_folder else [file]
    return [
        (name, partial(read_input, name, preprocessing, max_pixels, allow_private))
        for name in names
    ]


def _dataset_inputs(
    files: Sequence[str], preprocessing: Preprocessing, max_pixels: int
) -> list[Input]:
    """The images of a single data set without image files; empty for anything else."""
    if len(files) != 1 or is_address(files[0]):
        return []
    path = Path(files[0]).expanduser()
    if (path.exists() or files[0] != EMBEDDED) and (not path.is_dir() or images_below(path)):
        return []
    try:
        dataset = open_dataset(files[0])
    except ResiduaError:  # such as an empty folder, which reading its images explains
        return []
    return [
        (entry.path, partial(_dataset_image, dataset, index, preprocessing, max_pixels))
        for index, entry in enumerate(dataset.entries)
    ]


def _dataset_image(
    dataset: Dataset, index: int, preprocessing: Preprocessing, max_pixels: int
) -> Pixels:
    content = dataset.content(index)
    return resize(dataset.pixels(index, content, preprocessing.channels, max_pixels), preprocessing)


def _read_batches(inputs: Sequence[Input]) -> Iterator[list[tuple[str, Pixels | str]]]:
    """Names with images, or with the reason why there is none, BATCH at a time."""

    def read(item: Input) -> tuple[str, Pixels | str]:
        name, read_pixels = item
        try:
            return name, read_pixels()
        except Unreadable as error:
            return name, str(error)

    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        for start in range(0, len(inputs), BATCH):
            yield list(pool.map(read, inputs[start : start + BATCH]))


def _forward(
    network: nn.Module,
    images: Sequence[Pixels],
    preprocessing: Preprocessing,
    device: torch.device,
) -> Logits:
    """uint8 [S, S, C] images -> outputs of the network, float32 [B, K]."""
    if not images:
        return np.zeros((0, 1), np.float32)
    pixels = torch.from_numpy(np.stack(images)).to(device)
    (outputs,) = predict_logits(network, [normalise(pixels, preprocessing)])
    return outputs


def _best(
    probabilities: Sequence[float], top: int, classes: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    best = sorted(range(len(probabilities)), key=lambda output: -probabilities[output])[:top]
    return tuple((class_name(classes, output), probabilities[output]) for output in best)
