"""The public functions, composed from everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from residua import experiment
from residua.config.recipes import compose
from residua.config.schema import Config, Data, Ordering, Preprocessing
from residua.errors import ResiduaError
from residua.evaluation.evaluate import evaluate_run, evaluate_weights, run_classes
from residua.evaluation.predict import Features, Prediction, features_of, predict_files
from residua.evaluation.score import Evaluation
from residua.networks.residual import Shortcut
from residua.networks.zoo import catalogue
from residua.report.figures import write_prediction_grid
from residua.runs.folder import RunFolder
from residua.runs.sources import is_run, open_weights, start_from, with_overrides
from residua.system.console import Console
from residua.system.files import refuse_inside
from residua.weights.load import Weights, read_file
from residua.weights.network import build_network, default_device

__all__ = ["Run", "build", "evaluate", "features", "load", "models", "predict", "resume", "train"]


class Run:
    """A run folder, finished or not: what was asked, what happened and the network."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def config(self) -> Config:
        """All settings as they ran."""
        return self.folder.config

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return run_classes(self.folder)

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the network's input."""
        return self.config.preprocessing

    @property
    def history(self) -> list[dict[str, float]]:
        """A row for each epoch: loss, accuracy, val_loss, val_accuracy, ..."""
        return self.folder.read_history()

    def network(self) -> torch.nn.Module:
        """The chosen network: preprocessed float32 [B, C, S, S] -> logits [B, K]; eval mode."""
        return build_network(read_file(self.folder.weights), default_device())

    def evaluate(self, data: str | Path | None = None) -> Evaluation:
        """See `residua.evaluate`."""
        return evaluate(self, data)

    def predict(self, *files: str | Path, top: int = 3) -> list[Prediction]:
        """See `residua.predict`."""
        return predict(self, files, top=top)


def models() -> list[str]:
    """The names that `build` and `train` know."""
    return list(catalogue.ROWS)


def build(
    name: str | None = None,
    *,
    classes: int | None = None,
    channels: int | None = None,
    ordering: Ordering | None = None,
    shortcut: Shortcut | None = None,
    cardinality: str | None = None,
    seed: int | None = None,
    weights: str | Path | None = None,
    new_head: bool = False,
) -> torch.nn.Module:
    """A network of the catalogue: float [B, channels, H, W] -> logits [B, classes]; training mode.

    name: not needed where the weights tell it. What is not given is the row's default; ordering,
    shortcut, cardinality: see networks.zoo.catalogue. seed fixes the initialisation, without
    torch's global generator. weights: a run, a file of residua, Keras or PyTorch, or "imagenet";
    new_head: keep the last layer fresh. Gives a networks.staged.Staged. Raises ResiduaError.
    """
    given: dict[str, Any] = {"classes": classes, "channels": channels, "ordering": ordering}
    given |= {"shortcut": shortcut, "cardinality": cardinality}
    if weights is None:
        if new_head:
            raise ResiduaError("new_head replaces the head of weights: give weights too.")
        if name is None:
            raise ResiduaError("which network? `residua.models()` lists their names.")
        return catalogue.build(name, **given, seed=seed)
    found = open_weights(weights, name, Console())
    asked = {key: value for key, value in given.items() if value is not None}
    spec = dataclasses.replace(found.metadata.network, **asked)
    return start_from(found, spec, new_head=new_head, seed=seed)


def train(
    data: str | Path,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    new_head: bool | None = None,
    freeze: int | None = None,
    head: str | None = None,
    transfer: str | None = None,
    views: int | None = None,
    budget: str | None = None,
    recipe: str | Path | None = None,
    epochs: int | None = None,
    size: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    split_seed: int | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    device: str | None = None,
    precision: str | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    quiet: bool = False,
) -> Run:
    """Train on DATA and judge the result; the same as `residua train`.

    data: a folder of class folders, a folder of IDX files or CIFAR archives, or "digits". settings:
    further ones by dotted name, {"optimization.learning_rate": 0.05}. What is not given comes from
    the recipe, else it is chosen from the data. weights: what to start from, see `build`; with its
    head replaced by a fresh one if new_head. transfer, views, budget, head, freeze: as the options
    of the command. out: the run folder, else the next free runs/<data>-<n>. Raises ResiduaError on
    anything that cannot be used.
    """
    named = {
        "network.name": model,
        "network.weights": None if weights is None else str(weights),
        "network.new_head": new_head,
        "network.freeze": freeze,
        "network.head": head,
        "transfer.strategy": transfer,
        "transfer.views": views,
        "transfer.budget": budget,
        "training.epochs": epochs,
        "preprocessing.size": size,
        "training.batch_size": batch,
        "training.seed": seed,
        "data.split_seed": split_seed,
        "data.val_fraction": val_fraction,
        "data.test_fraction": test_fraction,
        "training.device": device,
        "training.precision": precision,
    }
    given = {key: value for key, value in named.items() if value is not None}
    config = compose(data, recipe, {**given, **(settings or {})})
    return Run(experiment.train(config, None if out is None else str(out), Console(quiet)))


def resume(run: str | Path | Run, quiet: bool = False) -> Run:
    """Go on with an interrupted training; the weights become those of a run never interrupted.

    Raises ResiduaError if the folder is no run or its data has changed.
    """
    folder = _folder_of(run)
    experiment.resume(folder, Console(quiet))
    return Run(folder)


def load(run: str | Path) -> Run:
    """The run in a folder. Raises ResiduaError if it is none."""
    return Run(RunFolder.existing(run))


def evaluate(
    source: str | Path | Run,
    data: str | Path | None = None,
    *,
    model: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    quiet: bool = True,
) -> Evaluation:
    """Judge a run on DATA, else on its test part, else on its validation part; or weights on DATA.

    source: a run, which gets scores.json and predictions.csv in its folder evaluations/; a weights
    file of residua, Keras or PyTorch; or "imagenet:NAME". model: its network, where the file cannot
    tell. classes: names of its outputs, in order. preprocessing: what a foreign file does not say,
    by name: {"mean": [0, 0, 0]}. Changes no weights. Raises ResiduaError.
    """
    console = Console(quiet)
    weights, folder = _subject(source, model, classes, preprocessing, console)
    if folder is not None:
        return evaluate_run(folder, None if data is None else str(data), console, weights)
    if data is None:
        raise ResiduaError(f"{source}: brings no images to be judged by: name a DATA folder.")
    return evaluate_weights(weights, str(data), console)


def predict(
    source: str | Path | Run,
    files: str | Path | Sequence[str | Path],
    *,
    top: int = 3,
    model: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    allow_private: bool = False,
    grid: str | Path | None = None,
    quiet: bool = True,
) -> list[Prediction]:
    """The `top` most likely classes of each file, in order: of paths, images below folders, and
    http(s) addresses, those in private networks only if `allow_private`.

    source, model, classes, preprocessing: see `evaluate`. grid: also draw the images with their
    classes to this PNG; if that fails, a warning says why. A file that cannot be read keeps its
    row, with the reason in `error`. Raises ResiduaError if the weights cannot be used.
    """
    console = Console(quiet)
    weights, folder = _subject(source, model, classes, preprocessing, console)
    named, most = _names(files), _limit(folder)
    if grid is not None:
        for each in named:
            refuse_inside(Path(grid), each)
    rows = list(predict_files(weights, named, top, max_pixels=most, allow_private=allow_private))
    if grid is None:
        return rows
    prepared, file = weights.metadata.preprocessing, Path(grid).expanduser()
    if warning := write_prediction_grid(prepared, rows, file, most, allow_private):
        console.caution(warning)
    return rows


def features(
    source: str | Path | Run,
    files: str | Path | Sequence[str | Path],
    *,
    model: str | None = None,
    preprocessing: Mapping[str, object] | None = None,
    stage: int | None = None,
    pool_size: int | None = None,
    quiet: bool = True,
) -> Features:
    """What the network's last map says of each image, averaged over it: float32 [N, C].

    stage: the map after that stage instead, from 1. pool_size: P, the map is average-pooled to
    P x P, float32 [N, C x P x P]; None: 1, or as the head of a transferred run reads it. Files that
    cannot be read are left out and listed with their reasons. Raises ResiduaError.
    """
    weights, folder = _subject(source, model, None, preprocessing, Console(quiet))
    return features_of(
        weights, _names(files), max_pixels=_limit(folder), stage=stage, pool_size=pool_size
    )


def _names(files: str | Path | Sequence[str | Path]) -> list[str]:
    named = [files] if isinstance(files, str | Path) else files
    strange = [type(each).__name__ for each in named if not isinstance(each, str | Path)]
    if strange:
        raise ResiduaError(
            f"{strange[0]}: expected paths or addresses of images. For pixels, use the network "
            "itself: residua.build(weights=...)."
        )
    return [str(each) for each in named]


def _subject(
    source: str | Path | Run,
    model: str | None,
    classes: Sequence[str] | None,
    given: Mapping[str, object] | None,
    console: Console,
) -> tuple[Weights, RunFolder | None]:
    """Weights, prepared for as they or the user say; with their run, if they are one's."""
    if isinstance(source, Run) or is_run(source):
        if model is not None or classes is not None or given:
            raise ResiduaError("a run says itself which network, classes and preprocessing it has.")
        folder = _folder_of(source)
        return read_file(folder.weights), folder
    return with_overrides(open_weights(source, model, console), classes, given or {}, console), None


def _limit(run: RunFolder | None) -> int:
    return run.config.data.max_pixels if run else Data.max_pixels


def _folder_of(run: str | Path | Run) -> RunFolder:
    """The folder of a run, however it is named. Raises ResiduaError if it is none."""
    return run.folder if isinstance(run, Run) else RunFolder.existing(run)
