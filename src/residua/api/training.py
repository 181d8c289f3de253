"""Networks, training and evaluation from Python: a Run and the functions that make one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from residua import experiment
from residua.api.explanation import explain as explain_images
from residua.api.prediction import Source, predict, renamed, transform
from residua.api.prediction import features as image_features
from residua.config.parse import with_settings
from residua.config.recipes import compose, data_settings
from residua.config.schema import (
    Config,
    Effort,
    Ordering,
    Preprocessing,
    Shortcut,
    Strategy,
    TrainingPrecision,
)
from residua.data.given import DataLike, path_of
from residua.data.pixels import Transform, checked_range
from residua.data.value_range import ValueRange
from residua.errors import ResiduaError
from residua.evaluation.evaluate import evaluate_exported, evaluate_run, evaluate_weights
from residua.evaluation.inputs import Images, several
from residua.evaluation.predictor import Predictions
from residua.evaluation.score import Evaluation
from residua.networks.own import ModelLike, is_named, is_own, own_name, own_network_name
from residua.networks.zoo import catalogue
from residua.runs.folder import RunFolder
from residua.runs.sources import open_source, open_weights, own_model, start_from
from residua.runs.tracking import Tracker, by_kind
from residua.system.console import Console
from residua.system.files import user_path
from residua.system.notebook import shown
from residua.training.initial import with_own
from residua.transfer.result import CrossValidation, result_of
from residua.weights.exported import is_exported
from residua.weights.load import read_file
from residua.weights.network import build_network, default_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run:
    """A run folder, finished or not: its settings, metrics and network."""

    def __init__(self, folder: RunFolder, model: str | None = None) -> None:
        """model: its network, where that is the user's own."""
        self.folder, self.model = folder, model

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __fspath__(self) -> str:
        """The folder, so that a Run can be given for its path."""
        return str(self.path)

    def _repr_html_(self) -> str:
        return str(shown("run_html", self.folder))

    def plot_history(self) -> Figure:
        """Accuracy and loss of each epoch, as in the report; a figure that pyplot does not hold.

        Raises ResiduaError if the run has no history, as a linear probe.
        """
        return cast("Figure", shown("history_figure", self.folder))

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def config(self) -> Config:
        """All settings of the run, with no "auto" left in them."""
        return self.folder.config

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.folder.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the network's input."""
        return self.config.preprocessing

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per epoch: epoch, loss, accuracy, val_loss, val_accuracy, ..."""
        return self.folder.read_history()

    @property
    def cross_validation(self) -> CrossValidation | None:
        """The expected accuracy of a linear probe by cross-validation, with its interval, as
        `train` prints it; None of other models. Raises ResiduaError if its file is damaged."""
        return result_of(self.folder).kept_probe

    def network(self) -> torch.nn.Module:
        """The best network: preprocessed float32 [B, C, S, S] -> logits [B, K]; in eval mode."""
        return build_network(read_file(self.folder.weights, self.model), default_device())

    def evaluate(self, data: DataLike | None = None, *, device: str | None = None) -> Evaluation:
        """See `residua.evaluate`."""
        return evaluate(self, data, device=device)

    def predict(
        self,
        *images: Images,
        top: int = 3,
        value_range: ValueRange | None = None,
        coverage: float | None = None,
        min_probability: float = 0.0,
        device: str | None = None,
    ) -> Predictions:
        """See `residua.predict`; `run.predict(a, b)` is the same as `run.predict([a, b])`."""
        return predict(
            self,
            chain.from_iterable(map(several, images)),
            top=top,
            value_range=value_range,
            coverage=coverage,
            min_probability=min_probability,
            device=device,
        )

    def predict_proba(
        self, *images: Images, value_range: ValueRange | None = None, device: str | None = None
    ) -> npt.NDArray[np.float64]:
        """Probabilities [N, K] of images, see `predict`, in the order of `classes`.

        Raises ResiduaError if an image cannot be read.
        """
        rows = self.predict(*images, top=len(self.classes), value_range=value_range, device=device)
        for row in rows:
            if row.error is not None:
                raise ResiduaError(f"{row.file}: {row.error}.")
        probabilities = [[dict(row.top)[name] for name in self.classes] for row in rows]
        return np.array(probabilities, np.float64).reshape(len(rows), len(self.classes))

    features = image_features
    explain = explain_images

    @cached_property
    def transform(self) -> Transform:
        """The preprocessing as a function of an image, see `residua.transform`."""
        return transform(self)


def models() -> list[str]:
    """The names that `build` and `train` accept."""
    return list(catalogue.ROWS)


def build(
    name: str | None = None,
    *,
    classes: int | None = None,
    channels: int | None = None,
    ordering: Ordering | Literal["a", "b", "c", "d", "e"] | None = None,
    shortcut: Shortcut | None = None,
    cardinality: str | None = None,
    seed: int | None = None,
    weights: str | Path | None = None,
    new_head: bool = False,
    quiet: bool = True,
) -> torch.nn.Module:
    """A network: float32 [B, channels, H, W] -> logits [B, classes]; in training mode.

    name: one of `models()`; optional if the weights determine it.
    classes, channels: number of outputs and input channels; None: those of the model or weights.
    ordering: order of the layers in a residual unit, such as "full_preactivation" or "e".
    shortcut: "none", "A", "B" or "D", where a residual unit changes the shape.
    cardinality: groups of a bottleneck and the width of each, such as "32x4d".
    seed: fixes the initialisation without touching torch's global generator.
    weights: a run, a weights file of residua, Keras or PyTorch, "imagenet" or "imagenet:NAME".
    new_head: initialise the last layer at random instead of from the weights.
    quiet: print nothing; assumptions about the weights become Python warnings.

    Returns a networks.staged.Staged. Raises ResiduaError.
    """
    choices: dict[str, Any] = {"classes": classes, "channels": channels, "ordering": ordering}
    choices |= {"shortcut": shortcut, "cardinality": cardinality}
    if weights is None:
        if new_head:
            raise ResiduaError("new_head replaces the head of weights: give weights too.")
        if name is None:
            raise ResiduaError("name: which network? `residua.models()` lists their names.")
        return catalogue.build(name, **choices, seed=seed)
    opened = open_weights(weights, name, Console(quiet))
    changes = {key: value for key, value in choices.items() if value is not None}
    spec = dataclasses.replace(opened.metadata.network, **changes)
    return start_from(opened, spec, new_head=new_head, seed=seed)


def train(
    data: DataLike,
    *,
    model: ModelLike | None = None,
    weights: str | Path | None = None,
    new_head: bool | None = None,
    freeze: int | None = None,
    head: str | None = None,
    effort: Effort | None = None,
    transfer: Strategy | None = None,
    views: int | None = None,
    budget: str | None = None,
    recipe: str | Path | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    seed: int | None = None,
    split_seed: int | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    fixes: str | Path | None = None,
    device: str | None = None,
    precision: TrainingPrecision | None = None,
    value_range: ValueRange | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    track: str | Tracker | Sequence[str | Tracker] = (),
    quiet: bool = False,
    batch: int | None = None,
) -> Run:
    """Train a classifier and evaluate it; the same as `residua train`.

    Arguments left None are taken from the recipe, or else chosen automatically.

    data: a folder of class folders, a table of paths and labels, a folder of IDX files, a CIFAR
        archive, or "digits"; or a list of (path, label), (X, y) with images X (see `predict`) and
        labels y, a data set of (image, label) as PyTorch's, a datasets.Dataset, a dictionary of
        these by split; docs/data.md.
    model: one of `models()`; or a network of your own, which maps float [B, C, H, W] to logits
        [B, K]: "MODULE:FUNCTION" or a function, of the number of classes; an nn.Module (a copy
        is trained); "timm:NAME".
    weights: initial weights, see `build`; None: the installed ImageNet weights, unless model or
        settings of the training are set; "none": random initialisation, also with a recipe.
        "A+B": two networks side by side under one head. Several, separated by commas, are compared
        by linear probes, and the best, or the best pair side by side, are trained further.
    new_head: replace the head of the weights by a new one.
    freeze: number of stages, from the first, that are frozen.
    head: "default", "linear", "mlp:256" (hidden layers) or "logistic" (a linear probe).
    effort: "quick", "standard" or "best", for a training from ImageNet weights, see --effort.
    transfer: strategy: "features", "partial", "full", "scratch", "auto" or "none".
    views: augmented copies per image for feature extraction.
    budget: wall-clock time limit, such as "90s", "2m" or "1h".
    recipe: name or YAML file of settings.
    epochs: number of epochs.
    lr: learning rate.
    batch_size: images per step.
    size: input size: size x size pixels.
    channels: input channels: 3 (colour) or 1 (greyscale).
    seed: seed of initialisation, shuffling and augmentation.
    split_seed: seed of the split into training, validation and test set.
    val_fraction, test_fraction: fractions held out for validation and test set, in [0, 0.9].
    fixes: fix list of `audit`: images to exclude, and new labels.
    device: "cpu", "cuda" or "cuda:N"; None: the GPU if there is one.
    precision: "fp32" or "bf16".
    value_range: (black, white) of arrays and tensors with other values than uint8, uint16 or 0..1.
    out: the run folder; None: the next free runs/<data>-<n>.
    settings: any other setting by dotted name, {"augmentation.rotation": 30}.
    track: "tensorboard", "mlflow", "wandb" or "trackio", an object with the methods of `Tracker`,
        or several of them.
    quiet: print nothing.
    batch: deprecated name of batch_size.

    Raises ResiduaError if data, weights or settings are invalid.
    """
    named: dict[str, object] = {
        "network.name": None if model is None else own_name(model),
        "network.weights": None if weights is None else os.fspath(weights),
        "network.new_head": new_head,
        "network.freeze": freeze,
        "network.head": head,
        "transfer.effort": effort,
        "transfer.strategy": transfer,
        "transfer.views": views,
        "transfer.budget": budget,
        "training.epochs": epochs,
        "optimization.learning_rate": lr,
        "training.batch_size": renamed("batch_size", batch_size, "batch", batch),
        "preprocessing.size": size,
        "preprocessing.channels": channels,
        "training.seed": seed,
        "data.split_seed": split_seed,
        "data.val_fraction": val_fraction,
        "data.test_fraction": test_fraction,
        "data.fixes": None if fixes is None else os.fspath(fixes),
        "training.device": device,
        "training.precision": precision,
        "preprocessing.value_range": checked_range(value_range),
    }
    names, trackers = by_kind(track)
    named["training.track"] = names or None
    arguments = {name: value for name, value in named.items() if value is not None}
    if settings is not None and not isinstance(settings, Mapping):
        raise ResiduaError(f"settings = {settings!r}: expected values by dotted name.")
    config = compose("", recipe, {**arguments, **(settings or {})})
    path = path_of(data, config.data, config.preprocessing.value_range)
    config = with_settings(config, {"data.path": path})
    console, name = Console(quiet), config.network.name
    folder = experiment.train(config, None if out is None else str(out), console, track=trackers)
    if is_own(name) and not is_named(name):
        console.caution(
            f"{folder.path}: of model {name} only the state dict was saved, for its code has no "
            "name: to load the run, give the module again, model=MODULE."
        )
    return Run(folder, own_network_name(config))


def resume(
    run: Source,
    quiet: bool = False,
    data_path: DataLike | None = None,
    model: ModelLike | None = None,
    track: Tracker | Sequence[Tracker] = (),
) -> Run:
    """Resume an interrupted run; on a CPU the final weights are those of an uninterrupted run.

    run: a run or its folder.
    quiet: print nothing.
    data_path: the present path of its data, if moved, or the data themselves, if they were given in
        Python; they are compared with split.csv.
    model: its network, where that is your own, see `train`.
    track: further trackers, see `train`; those that it names are recorded.

    Raises ResiduaError if the folder is not a run folder or its data have changed.
    """
    folder, own = RunFolder.existing(run), own_model(run, model)
    path = None if data_path is None else _path(data_path, folder.config)
    experiment.resume(folder, Console(quiet), path, own, by_kind(track)[1])
    return Run(folder, own)


def load(run: Source, model: ModelLike | None = None) -> Run:
    """Open a run folder. Raises ResiduaError if it is not one.

    model: its network, where that is your own, see `train`.
    """
    folder, own = RunFolder.existing(run), own_model(run, model)
    if own is not None:
        with_own(folder.config, own)
    return Run(folder, own)


def evaluate(
    source: Source,
    data: DataLike | None = None,
    *,
    model: ModelLike | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    value_range: ValueRange | None = None,
    device: str | None = None,
    allow_private: bool = False,
    check: bool = True,
    allow_code: bool = False,
    quiet: bool = True,
    data_path: DataLike | None = None,
) -> Evaluation:
    """Evaluate a run or weights on labelled images.

    source: a run, which gets scores.json and predictions.csv in its folder evaluations/; a weights
        file of residua, Keras or PyTorch; "imagenet" or "imagenet:NAME".
    data: see `train`, also one (image, label); None: the run's test set, else its validation set;
        of an exported file, those of the run in whose folder it is.
    model: the network, where a weights file does not determine it, or where it is your own, see
        `train`; a `Run` that was loaded or trained with it needs none.
    classes: names of the outputs in order, where a weights file does not record them.
    preprocessing: fields that a third-party file does not record, {"mean": [0, 0, 0]}.
    settings: columns of data that are a table, {"data.label_column": "breed"}.
    value_range: (black, white) of arrays and tensors; None: as in training.
    device: "cpu", "cuda" or "cuda:N"; None: the GPU if there is one.
    allow_private: also read URLs in private networks.
    check: check first that the network still gives the outputs for golden images that are stored
        in its weights.
    allow_code: run an exported .pt2 or .torchscript file, which is a program: only if you trust
        its author.
    quiet: print nothing; assumptions and leakage become Python warnings.
    data_path: where the run's own data are now, if they were moved, or the data themselves, if they
        were given in Python; for its test set.

    Raises ResiduaError.
    """
    console, where = Console(quiet), default_device(device)
    options = data_settings(settings or {})
    weights, folder = open_source(
        source, model, classes, preprocessing, console, check=check, allow_code=allow_code
    )
    if data_path is not None and (folder is None or data is not None):
        raise ResiduaError(
            f"--data {data_path}: is where the own data of a run are now; without DATA beside it."
        )
    own_range = checked_range(value_range)
    name = None
    if data is not None:
        trained_range = weights.metadata.preprocessing.value_range
        name = path_of(
            data, options, own_range, trained_range=trained_range, allow_private=allow_private
        )
    if folder is not None:
        moved = None if data_path is None else _path(data_path, folder.config)
        return evaluate_run(folder, name, console, weights, moved, options, where)
    if name is None:
        path = user_path(source)
        run = RunFolder.around(path) if is_exported(path) else None
        if run is None:
            raise ResiduaError(f"{source}: has no images to evaluate on: give a DATA folder.")
        return evaluate_exported(run, weights, console, where)
    return evaluate_weights(weights, name, console, options, where)


def _path(data: DataLike, config: Config) -> str:
    """The path of the data of a run, which may be given in Python again."""
    return path_of(data, config.data, config.preprocessing.value_range)
