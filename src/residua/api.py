"""The public functions, composed from everything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import torch

from residua import settings
from residua.config import Config, Preprocessing
from residua.errors import ResiduaError
from residua.evaluation import Evaluation, evaluate_run, run_classes
from residua.inference import default_device, load_network
from residua.learning import go_on, train_run
from residua.networks.catalogue import ROWS, build
from residua.prediction import Prediction, predict_files
from residua.reporting import write_prediction_grid
from residua.run import RunFolder
from residua.screen import Screen

__all__ = ["Run", "build", "evaluate", "load", "models", "predict", "resume", "train"]


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
        """How a picture becomes the network's input."""
        return self.config.preprocessing

    @property
    def history(self) -> list[dict[str, float]]:
        """A row for each epoch: loss, accuracy, val_loss, val_accuracy, ..."""
        return self.folder.read_history()

    def network(self) -> torch.nn.Module:
        """The chosen network: preprocessed float32 [B, C, S, S] -> logits [B, K]; eval mode."""
        return load_network(self.folder.weights, default_device())[0]

    def evaluate(self, data: str | Path | None = None) -> Evaluation:
        """See `residua.evaluate`."""
        return evaluate(self, data)

    def predict(self, *files: str | Path, top: int = 3) -> list[Prediction]:
        """See `residua.predict`."""
        return predict(self, files, top=top)

    def draw_predictions(self, rows: Sequence[Prediction], file: Path) -> str | None:
        """Write a PNG of the rows' pictures under their likeliest classes; maybe a warning."""
        return write_prediction_grid(
            self.classes, self.preprocessing, rows, file, self.config.data.max_pixels
        )


def models() -> list[str]:
    """The names that `build` and `train` know."""
    return list(ROWS)


def train(
    data: str | Path,
    *,
    model: str | None = None,
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
    further ones by dotted name, {"optimization.rate": 0.05}. What is not given comes from the
    recipe, else it is chosen from the data. out: the run folder, else the next free
    runs/<data>-<n>. Raises ResiduaError on anything that cannot be used.
    """
    named = {
        "network.name": model,
        "training.epochs": epochs,
        "preprocessing.size": size,
        "training.batch": batch,
        "training.seed": seed,
        "data.split_seed": split_seed,
        "data.val_fraction": val_fraction,
        "data.test_fraction": test_fraction,
        "training.device": device,
        "training.precision": precision,
    }
    given = {key: value for key, value in named.items() if value is not None}
    config = compose(data, recipe, {**given, **(settings or {})})
    return Run(train_run(config, None if out is None else str(out), Screen(quiet)))


def compose(data: str | Path, recipe: str | Path | None, given: Mapping[str, object]) -> Config:
    """Defaults, then the recipe, then what is given. Raises ResiduaError."""
    config = read_recipe(recipe) if recipe is not None else Config()
    return settings.with_settings(config, {"data.path": str(data), **given})


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("residua") / "recipes"
    return sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.is_file())


def read_recipe(recipe: str | Path) -> Config:
    """The settings of a YAML file, or of a recipe of the package by name. Raises ResiduaError."""
    if Path(recipe).suffix in (".yaml", ".yml"):
        return settings.read_yaml(Path(recipe).expanduser())
    if str(recipe) not in recipes():
        raise ResiduaError(
            f"recipe {str(recipe)!r} is unknown: expected a .yaml file or one of "
            f"{', '.join(recipes())}."
        )
    with resources.as_file(resources.files("residua") / "recipes" / f"{recipe}.yaml") as path:
        return settings.read_yaml(path)


def resume(run: str | Path | Run, quiet: bool = False) -> Run:
    """Go on with an interrupted training; the weights become those of a run never interrupted.

    Raises ResiduaError if the folder is no run or its data has changed.
    """
    folder = _folder_of(run)
    go_on(folder, Screen(quiet))
    return Run(folder)


def load(run: str | Path) -> Run:
    """The run in a folder. Raises ResiduaError if it is none."""
    return Run(RunFolder.existing(run))


def evaluate(
    run: str | Path | Run, data: str | Path | None = None, quiet: bool = True
) -> Evaluation:
    """Judge a run on DATA, else on its test part, else on its validation part.

    Writes scores.json and predictions.csv into the run's folder evaluations/. Changes no weights.
    Raises ResiduaError.
    """
    folder = _folder_of(run)
    return evaluate_run(folder, None if data is None else str(data), Screen(quiet))


def predict(
    run: str | Path | Run, files: str | Path | Sequence[str | Path], *, top: int = 3
) -> list[Prediction]:
    """The `top` most likely classes of each file, and of each picture below a folder, in order.

    A file that cannot be read keeps its row, with the reason in `error`. Raises ResiduaError if the
    run cannot be used.
    """
    return list(predict_lazily(run, files, top=top))


def predict_lazily(
    run: str | Path | Run, files: str | Path | Sequence[str | Path], *, top: int = 3
) -> Iterator[Prediction]:
    """The same, row by row, for folders larger than memory."""
    folder = _folder_of(run)
    named = [files] if isinstance(files, str | Path) else files
    return predict_files(folder, [str(each) for each in named], top)


def _folder_of(run: str | Path | Run) -> RunFolder:
    """The folder of a run, however it is named. Raises ResiduaError if it is none."""
    return run.folder if isinstance(run, Run) else RunFolder.existing(run)
