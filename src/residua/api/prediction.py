"""A run or weights, and images -> predictions, features, or the input of the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch

from residua.config.schema import Data
from residua.config.start import is_published
from residua.data.dataset import Pixels
from residua.data.pixels import ImageLike, Transform, checked_range
from residua.data.value_range import ValueRange
from residua.errors import ResiduaError, UsageError
from residua.evaluation.inputs import Images, Reading, dataset_inputs, inputs_of, several
from residua.evaluation.predict import Features, features_of, predict_images
from residua.evaluation.predictor import Prediction, Predictions
from residua.networks.own import ModelLike
from residua.report.figures import GRID, write_prediction_grid
from residua.runs.folder import RunFolder
from residua.runs.sources import open_source
from residua.system.console import Console, Report
from residua.system.files import check_output, user_path
from residua.weights.load import Weights
from residua.weights.network import default_device

Source = str | os.PathLike[str]  # a Run is one too
_T = TypeVar("_T")


def predict(
    source: Source,
    images: Images | None = None,
    *,
    top: int = 3,
    model: ModelLike | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    value_range: ValueRange | None = None,
    coverage: float | None = None,
    min_probability: float = 0.0,
    device: str | None = None,
    allow_private: bool = False,
    grid: str | Path | None = None,
    check: bool = True,
    allow_code: bool = False,
    quiet: bool = True,
    files: Images | None = None,
) -> Predictions:
    """Predict the classes of images, one row per image, in order.

    source, model, classes, preprocessing, device, check, allow_code, quiet: see `evaluate`.
    images: one or several, also from a generator, which is read 32 images at a time: paths, folders
        (all images below them), http(s) URLs, bytes of a file, Pillow images, arrays
        [H, W] or [H, W, C], tensors [C, H, W], several of them as one [N, H, W, C] or [N, C, H, W];
        uint8, uint16 or floating-point numbers in 0..1.
    top: number of most likely classes per image.
    value_range: (black, white) of arrays and tensors with other values.
    coverage: share of images whose prediction set contains the true class, in (0, 1); None: 0.9 if
        the weights have prediction sets.
    min_probability: of the predicted class, in 0..1; images below it have a reason in `unknown`.
    allow_private: also read URLs in private networks.
    grid: PNG file in which to draw the images with their classes; it may exist only if residua
        drew it. A failure to draw is only a warning.
    files: deprecated name of images.

    An image that cannot be read gets a row with the reason in `error` and an empty `top`. Raises
    ResiduaError if the weights cannot be used.
    """
    console, chosen = Console(quiet), default_device(device)
    given = cast("Images | None", renamed("images", images, "files", files))
    with console.bar("predicting") as move:
        weights, folder = open_source(
            source, model, classes, preprocessing, console, check=check, allow_code=allow_code
        )
        check_coverage(source, coverage)
        reading = reading_of(weights, folder, value_range, allow_private)
        return Predictions(
            predictions(
                weights,
                reading,
                given,
                top=top,
                coverage=coverage,
                min_probability=min_probability,
                device=chosen,
                grid=grid,
                console=console,
                progress=move,
            )
        )


def check_coverage(source: Source, coverage: float | None) -> None:
    """Raise UsageError if prediction sets are requested of weights that cannot have any."""
    if coverage is not None and is_published(source):
        raise UsageError(
            f"{os.fspath(source)}: the published ImageNet weights have no prediction sets, which "
            "are fitted on held-out images of a training. Omit --sets and --coverage, or train on "
            "your own images, `residua train DATA`, and predict with that run."
        )


def predictions(
    weights: Weights,
    reading: Reading,
    images: Images | None,
    *,
    top: int,
    coverage: float | None,
    min_probability: float,
    device: torch.device,
    grid: str | Path | None,
    console: Console,
    progress: Report | None,
    announce: Callable[[list[str]], None] | None = None,
) -> Iterator[Prediction]:
    """The rows of `predict`, each as soon as it is made. announce: called first with the names of
    all images, if known."""
    images = several(images)
    if grid is not None:
        check_grid(grid, images)
    drawn: list[tuple[Prediction, Pixels]] = []

    def keep(prediction: Prediction, pixels: Pixels) -> None:
        if len(drawn) < GRID:
            drawn.append((prediction, pixels))

    inputs = inputs_of(images, reading)
    if announce is not None and isinstance(inputs, Sequence):
        announce([name for name, _ in inputs])
    yield from predict_images(
        weights,
        inputs,
        top,
        coverage=coverage,
        min_probability=min_probability,
        device=device,
        progress=progress,
        keep=None if grid is None else keep,
    )
    if grid is not None:
        if warning := write_prediction_grid(drawn, user_path(grid)):
            console.caution(warning)
        if user_path(grid).exists():
            console.print(f"grid: {os.fspath(grid)}")


def transform(
    source: Source,
    *,
    model: ModelLike | None = None,
    preprocessing: Mapping[str, object] | None = None,
    value_range: ValueRange | None = None,
    quiet: bool = True,
) -> Transform:
    """The preprocessing of a run or weights: image -> float32 tensor [C, S, S].

    It accepts what `predict` does, one image at a time, and can be pickled, so that a `Dataset` of
    PyTorch can use it. source, model, preprocessing, quiet: see `evaluate`. value_range: see
    `predict`. Raises ResiduaError.
    """
    weights, folder = open_source(source, model, None, preprocessing, Console(quiet))
    reading = reading_of(weights, folder, value_range)
    return Transform(reading.preprocessing, reading.max_pixels, reading.value_range)


def features(
    source: Source,
    images: Images | None = None,
    *,
    model: ModelLike | None = None,
    preprocessing: Mapping[str, object] | None = None,
    stage: int | None = None,
    pool_size: int | None = None,
    value_range: ValueRange | None = None,
    device: str | None = None,
    quiet: bool = True,
    side: int | None = None,
    files: Images | None = None,
) -> Features:
    """Extract the features of images: a feature map, average-pooled, as float32 [N, C x P x P].

    source, model, preprocessing, device, quiet: see `evaluate`.
    images, value_range: see `predict`; images may also be a data set such as MNIST or "digits".
    stage: the stage whose output map is used, from 1; None: the last.
    pool_size: P; None: as in the run's head, otherwise 1.
    side, files: deprecated names of pool_size and images.

    Images that cannot be read are omitted and listed with their reasons. Raises ResiduaError.
    """
    console, chosen = Console(quiet), default_device(device)
    given = cast("Images | None", renamed("images", images, "files", files))
    weights, folder = open_source(source, model, None, preprocessing, console)
    reading = reading_of(weights, folder, value_range)
    with console.bar("extracting") as move:
        return features_of(
            weights,
            dataset_inputs(given, reading) or inputs_of(given, reading),
            stage=stage,
            pool_size=renamed("pool_size", pool_size, "side", side),
            device=chosen,
            progress=move,
        )


def renamed(name: str, value: _T | None, earlier_name: str, earlier: _T | None) -> _T | None:
    """The value of an argument that may be given by its earlier name. Raises ResiduaError if both
    are given."""
    if value is not None and earlier is not None:
        raise ResiduaError(f"{earlier_name} is the earlier name of {name}: give one of them.")
    return earlier if value is None else value


def check_grid(file: str | Path, images: Iterable[ImageLike]) -> None:
    """Raise ResiduaError unless a PNG file of the images may be written: see `check_output`."""
    known = images if isinstance(images, list | tuple) else []
    files = [os.fspath(image) for image in known if isinstance(image, str | os.PathLike)]
    check_output(Path(file), (".png",), files, drawn=True)


def reading_of(
    weights: Weights,
    run: RunFolder | None,
    value_range: ValueRange | None,
    allow_private: bool | None = None,
) -> Reading:
    """How images for the network of these weights are read. run: theirs, if known. allow_private:
    see `read_address`."""
    max_pixels = run.config.data.max_pixels if run else Data.max_pixels
    preprocessing = weights.metadata.preprocessing
    return Reading(preprocessing, max_pixels, allow_private, checked_range(value_range))
