"""Weights and images -> the most likely classes of each image, or its features."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from residua.data.dataset import Pixels
from residua.data.table import import_pyarrow
from residua.errors import ResiduaError, UsageError
from residua.evaluation.inputs import Batch, Inputs, read_batches
from residua.evaluation.predictor import Prediction, predictor_of
from residua.evaluation.score import NOT_FINITE
from residua.inference.feature_layers import FeatureLayer
from residua.inference.outputs import feature_outputs
from residua.system.console import Report
from residua.system.files import write_atomically
from residua.system.words import counted
from residua.weights.load import Weights
from residua.weights.network import Logits, build_network, default_device

NO_PARQUET = "choose a file name that ends in .npz"  # without pyarrow


@dataclass(frozen=True, eq=False)
class Features:
    """The features of some images.

    files: names of the N readable images.
    values: float32 [N, C], one row per file.
    unreadable: (file, reason) of the others.
    """

    files: tuple[str, ...]
    values: npt.NDArray[np.float32]
    unreadable: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        rows, columns = self.values.shape
        images, unreadable = counted(rows, "image"), len(self.unreadable)
        return f"Features({images} x {columns:,}, {unreadable:,} unreadable)"

    def save(self, file: Path) -> None:
        """Write atomically in the format of the extension: .npz with the arrays `files` and
        `features`, or .parquet with the columns file, feature0, feature1, ... Raises ResiduaError.
        """
        stream = io.BytesIO()
        ending = file.suffix.lower()
        if ending == ".parquet":
            arrow = import_pyarrow(NO_PARQUET)
            columns = {f"feature{index}": column for index, column in enumerate(self.values.T)}
            table = arrow.table({"file": list(self.files), **columns})
            arrow.parquet.write_table(table, stream)
        elif ending == ".npz":
            np.savez(stream, files=np.array(self.files), features=self.values)
        else:
            raise ResiduaError(f"{file}: expected a file name that ends in .npz or .parquet.")
        write_atomically(file, stream.getvalue())


def predict_images(
    weights: Weights,
    inputs: Inputs,
    top: int = 3,
    *,
    coverage: float | None = None,
    min_probability: float = 0.0,
    device: torch.device | None = None,
    progress: Report | None = None,
    keep: Callable[[Prediction, Pixels], None] | None = None,
) -> Iterator[Prediction]:
    """A prediction for each image, in order, as soon as it is made.

    top: how many classes per image. coverage: see `predictor_of`. min_probability: of the predicted
    class, below which an image is unknown. device: None: see `default_device`. keep: called with
    the pixels of each prediction. An unreadable image yields its reason. Raises ResiduaError if top
    < 1, the weights cannot classify, or have no such sets.
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise UsageError(f"top = {top!r}: must be a whole number of at least 1.")
    if not 0 <= min_probability <= 1:
        raise UsageError(f"min_probability = {min_probability!r}: must be between 0 and 1.")
    device, classes = device or default_device(), weights.metadata.classes
    total, done = len(inputs) if isinstance(inputs, Sequence) else 0, 0
    batches = read_batches(inputs)  # which begins to read, while the network is built
    predict = predictor_of(weights, device, total, coverage)
    for batch in batches:
        outputs = iter(predict(_stacked(batch)))
        for name, image in batch:
            if isinstance(image, str):
                yield Prediction(name, (), image)
                continue
            prediction = next(outputs).prediction(name, top, classes).at_least(min_probability)
            if keep is not None and prediction.error is None:
                keep(prediction, image)
            yield prediction
        done += len(batch)
        if progress is not None and total:
            progress(done, total)


def features_of(
    weights: Weights,
    inputs: Inputs,
    *,
    stage: int | None = None,
    pool_size: int | None = None,
    device: torch.device | None = None,
    progress: Report | None = None,
) -> Features:
    """The feature map of each image after a stage, average-pooled and flattened: [N, C x P x P].

    stage: from 1; None: the last. pool_size: P; None: as the weights' new head reads the map, else
    1. device: None: see `default_device`. Raises ResiduaError if no image can be read or the
    network has no such stage.
    """
    device, metadata = device or default_device(), weights.metadata
    network = build_network(weights, device, require_head=False)
    stages = len(network.stages)
    if stage is not None and not 1 <= stage <= stages:
        raise ResiduaError(f"stage {stage}: {metadata.network.name} has stages 1 to {stages}.")
    layer = FeatureLayer(stage or stages, pool_size or 1)
    if stage is None and pool_size is None and metadata.network.head:
        layer = FeatureLayer(stages, network.pool_size, network.earlier_pools)
    total, done = len(inputs) if isinstance(inputs, Sequence) else 0, 0
    extractor = feature_outputs(network, layer, weights, total)
    names: list[str] = []
    values: list[Logits] = []
    unreadable: list[tuple[str, str]] = []
    for batch in read_batches(inputs):
        rows = iter(extractor.run(_stacked(batch)))
        for name, image in batch:
            row = None if isinstance(image, str) else next(rows)
            if row is not None and np.isfinite(row).all():
                names.append(name)
                values.append(row)
            else:
                unreadable.append((name, image if isinstance(image, str) else NOT_FINITE))
        done += len(batch)
        if progress is not None and total:
            progress(done, total)
    if not names:
        first = f": {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ": there is none"
        raise ResiduaError(f"no image could be read{first}.")
    return Features(tuple(names), np.stack(values), tuple(unreadable))


def _stacked(batch: Batch) -> Pixels:
    """The readable images of a batch, uint8 [B, S, S, C]."""
    images = [image for _, image in batch if not isinstance(image, str)]
    return np.stack(images) if images else np.zeros((0, 1, 1, 1), np.uint8)
