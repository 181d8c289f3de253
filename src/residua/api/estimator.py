"""Images X and labels y -> a classifier with the interface of scikit-learn."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from residua import experiment
from residua.config.parse import with_settings
from residua.config.recipes import compose
from residua.config.schema import AUTO, Config, Data, Effort, Preprocessing, Strategy
from residua.config.start import own_training, reason_against_installed
from residua.data.dataset import Pixels
from residua.data.given import path_of
from residua.data.pixels import ImageLike, checked_range
from residua.data.scan import class_key
from residua.data.value_range import ValueRange
from residua.errors import ResiduaError, UnreadableImages
from residua.evaluation.inputs import Input, Reading, read_batches
from residua.inference.engine import Floats
from residua.inference.outputs import classifier_of
from residua.networks.own import ModelLike, own_name, own_network_name
from residua.system.console import Console
from residua.system.files import new_folder, user_path
from residua.system.words import counted
from residua.uncertainty.softmax import softmax
from residua.weights.load import read_file
from residua.weights.network import default_device
from residua.weights.published.embedded import DEFAULT

Images = npt.NDArray[Any] | torch.Tensor | Sequence[ImageLike]
_WHOLE = re.compile(r"([+-]?\d+)\.0+")
_ROW = re.compile(r"^row \d+: ")  # of the table that the paths are stored in
SHAPES = "an array [N, H, W] or [N, H, W, C], or a list of images"
GROWTH = 4  # times more images than before: the engine is chosen again


class InputError(ResiduaError, ValueError):
    """X, y or a parameter cannot be used; a ValueError, as scikit-learn expects."""


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An image classifier as scikit-learn defines classifiers.

    X: an array [N, H, W] or [N, H, W, C], C = 1, 3 or 4, of uint8, uint16 or floating-point numbers
    in 0..1; a tensor [N, C, H, W]; a list of paths (equal ones count once); or a list of
    bytes of files, Pillow images, arrays or tensors, of any sizes. y: [N] class names or numbers.

    effort: see `residua.train`; None: "quick", a linear probe on the installed ImageNet weights,
        unless other parameters describe another training.
    model, weights, transfer, epochs, lr, batch_size, size, device, settings: see `residua.train`.
    seed: of initialisation, shuffling, augmentation, and the split where one is drawn.
    value_range: (black, white) of arrays with other values, such as (0, 255) for floats.
    runs: folder in which each fit creates a run folder, with a report; None: none is kept.
    quiet: print nothing.

    Attributes after `fit`: classes_, the labels in ascending order; network_, the weights; and
    run_, the run folder, if `runs` is set.
    """

    def __init__(
        self,
        *,
        effort: Effort | None = None,
        model: ModelLike | None = None,
        weights: str | os.PathLike[str] | None = None,
        transfer: Strategy | None = None,
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        size: int | None = None,
        seed: int = 0,
        device: str | None = None,
        settings: Mapping[str, object] | None = None,
        value_range: tuple[float, float] | None = None,
        runs: str | os.PathLike[str] | None = None,
        quiet: bool = True,
    ) -> None:
        self.effort = effort
        self.model = model
        self.weights = weights
        self.transfer = transfer
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.size = size
        self.seed = seed
        self.device = device
        self.settings = settings
        self.value_range = value_range
        self.runs = runs
        self.quiet = quiet

    def fit(self, X: Images, y: npt.ArrayLike) -> ImageClassifier:  # noqa: N803
        """Train on images and their labels.

        Every image must be readable. Raises InputError.
        """
        if y is None:
            raise InputError("requires y to be passed, but the target y is None.")
        images = _listed(X)
        y = check_array(y, dtype=None, ensure_2d=False, ensure_min_samples=0, input_name="y")
        y = column_or_1d(y, warn=True)
        check_consistent_length(images, y)
        kinds = {type(label) for label in np.asarray(y).tolist()}
        if len(kinds) > 1:
            raise InputError("y has labels of different types: expected text or numbers alone.")
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"y has {len(classes)} class: a classifier needs two classes or more.")
        names = _names(classes)
        try:
            value_range = checked_range(self.value_range)
            with tempfile.TemporaryDirectory(prefix="residua-") as temporary:
                kept = user_path(self.runs) if self.runs is not None else None
                data = (images, [names[label] for label in labels])
                parent = None if kept else Path(temporary)
                path = path_of(data, Data(), value_range, parent=parent)
                config, console = self._config(path), Console(self.quiet)
                out = str(new_folder(kept or Path(temporary), "fit-"))
                folder = experiment.train(config, out, console, report=kept is not None)
                content, stored = folder.weights.read_bytes(), folder.classes
            order = [stored.index(name) for name in names]
            self.network_ = Network(
                content, order, config.data.max_pixels, own_network_name(config)
            )
        except UnreadableImages as error:
            path, reason = error.first
            raise InputError(
                f"X: {counted(error.count, 'image')} cannot be read, the first is {path}: "
                f"{_ROW.sub('', reason)}. Correct the path or the file, or remove it from X and y."
            ) from error
        except ResiduaError as error:
            raise InputError(str(error)) from error
        self.classes_ = classes
        if self.runs is not None:
            self.run_ = folder.path
        return self

    def predict_proba(self, X: Images) -> npt.NDArray[np.float64]:  # noqa: N803
        """Probabilities [N, K] of the classes, in the order of classes_. Raises InputError."""
        check_is_fitted(self)
        try:
            device = default_device(None if self.device == AUTO else self.device)
            return self.network_.probabilities(_listed(X), checked_range(self.value_range), device)
        except ResiduaError as error:
            raise InputError(str(error)) from error

    def predict(self, X: Images) -> npt.NDArray[Any]:  # noqa: N803
        """The most likely class of each image, [N]. Raises InputError."""
        best: npt.NDArray[np.int64] = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _config(self, data: str) -> Config:
        named = {
            "transfer.effort": self.effort,
            "network.name": None if self.model is None else own_name(self.model),
            "network.weights": None if self.weights is None else os.fspath(self.weights),
            "transfer.strategy": self.transfer,
            "training.epochs": self.epochs,
            "optimization.learning_rate": self.lr,
            "training.batch_size": self.batch_size,
            "preprocessing.size": self.size,
            "training.seed": self.seed,
            "data.split_seed": self.seed,
            "training.device": self.device,
            "data.unreadable": "fail",  # each row of X counts
        }
        given = {name: value for name, value in named.items() if value is not None}
        config = compose(data, None, {**given, **(self.settings or {})})
        transfer = config.transfer
        is_open = transfer.effort is None and transfer.strategy is None
        if is_open and not own_training(config) and not reason_against_installed(config, DEFAULT):
            config = with_settings(config, {"transfer.effort": "quick"})
        return config


class _Classifier(NamedTuple):
    """A network on a device: uint8 [B, S, S, C] -> logits [B, K]. images: that its engine was
    chosen for."""

    device: torch.device
    images: int
    classify: Callable[[Pixels], Floats]
    preprocessing: Preprocessing


class Network:
    """The weights of a fit: the content of a weights file, which can be pickled."""

    def __init__(
        self, content: bytes, order: Sequence[int], max_pixels: int, model: str | None
    ) -> None:
        """order: the output of each class. model: the network, where that is the user's own."""
        self.content, self.order = content, list(order)
        self.max_pixels, self.model = max_pixels, model
        self._built: _Classifier | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}

    def probabilities(
        self, images: Sequence[ImageLike], value_range: ValueRange | None, device: torch.device
    ) -> npt.NDArray[np.float64]:
        """The probabilities of the classes, [N, K]. Raises ResiduaError."""
        classifier = self._classifier(len(images), device)
        reading = Reading(classifier.preprocessing, self.max_pixels, value_range=value_range)
        inputs: list[Input] = [
            (_name(image, number), partial(reading.read, image))
            for number, image in enumerate(images)
        ]
        logits = []
        for batch in read_batches(inputs):
            for name, image in batch:
                if isinstance(image, str):
                    raise ResiduaError(f"{name}: {image}.")
            pixels = np.stack([image for _, image in batch if not isinstance(image, str)])
            logits.append(classifier.classify(pixels))
        return softmax(np.concatenate(logits))[:, self.order]

    def _classifier(self, images: int, device: torch.device) -> _Classifier:
        """That of the last call, if it is on the device; more images may be worth a faster one."""
        built = self._built
        if built is None or device != built.device or images > GROWTH * built.images:
            with tempfile.TemporaryDirectory(prefix="residua-") as folder:
                path = Path(folder, "fitted.safetensors")
                path.write_bytes(self.content)
                weights = read_file(path, self.model)
                classify = classifier_of(weights, device, images)
            preprocessing = weights.metadata.preprocessing
            self._built = built = _Classifier(device, images, classify, preprocessing)
        return built


def _listed(images: object) -> Sequence[ImageLike]:
    """X as a sequence of images. Raises InputError if it is something else."""
    shape = getattr(images, "shape", None)
    if issparse(images):
        raise InputError(f"X is a sparse matrix, which is not supported: expected {SHAPES}.")
    is_array = isinstance(images, np.ndarray | torch.Tensor)
    if isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype.kind in "UO":
        images = images.tolist()  # of paths or images
    elif is_array and len(shape or ()) not in (3, 4):
        raise InputError(f"X has the shape {tuple(shape or ())}: expected {SHAPES}.")
    elif isinstance(images, str | bytes | os.PathLike | Image.Image) or not (
        is_array or (hasattr(images, "__len__") and hasattr(images, "__iter__"))
    ):
        raise InputError(f"X is of type {type(images).__name__}: expected {SHAPES}.")
    listed: list[ImageLike] = list(images)  # type: ignore[call-overload]
    if not listed:
        raise InputError(f"X has 0 images, while a minimum of 1 is required: expected {SHAPES}.")
    return listed


def _names(classes: npt.NDArray[Any]) -> list[str]:
    """The names of the classes in a data set. Raises InputError if two of them are alike."""
    names = [_WHOLE.sub(r"\1", str(label).strip()) for label in classes.tolist()]
    if len(set(map(class_key, names))) < len(names):
        raise InputError(f"y has classes that cannot be distinguished as text: {classes.tolist()}.")
    return names


def _name(image: object, number: int) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
