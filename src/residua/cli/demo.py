"""The built-in digits -> a trained run and ten predictions; two photos -> their ImageNet classes.

Nothing is downloaded: digits and photos are scikit-learn's, the ImageNet weights are installed.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from PIL import Image

from residua.api.prediction import predict
from residua.api.training import Run
from residua.config.recipes import compose
from residua.config.schema import IMAGENET, NONE
from residua.data.open import EMBEDDED, open_dataset
from residua.errors import ResiduaError
from residua.evaluation.predictor import Prediction
from residua.experiment import train
from residua.system.console import Console

SETTINGS = {"data.test_fraction": 0.2, "data.val_fraction": 0.1, "network.weights": NONE}
PHOTOS = ("china.jpg", "flower.jpg")  # of scikit-learn
SCALE = 16  # the 8 px digits are written at 128 px, large enough to view


def demonstrate(
    out: str | None, split_seed: int, console: Console
) -> tuple[list[Prediction], list[str]]:
    """Train in folder `out`; return predictions of ten held-out digits, and their labels.

    The ten, one of each class, are written as PNG files to RUN/held-out/.
    """
    if Path(EMBEDDED).exists():
        raise ResiduaError(
            f"{EMBEDDED}: there is a file or folder of this name here, which hides the built-in "
            "digits. Run `residua demo` in another folder."
        )
    config = compose("digits", None, {**SETTINGS, "data.split_seed": split_seed})
    run = Run(train(config, out, console))
    files = _write_held_out(run)
    console.print(f"{len(files)} held-out digits (images in {run.path / 'held-out'}):")
    return predict(run, list(files.values())), list(files)


def name_photos(console: Console) -> list[Prediction]:
    """The ImageNet classes of two photos, by the installed network."""
    console.print(
        f"{' and '.join(PHOTOS)} of scikit-learn, named by the installed ImageNet network:"
    )
    with resources.as_file(resources.files("sklearn.datasets") / "images") as folder:
        return predict(IMAGENET, [folder / name for name in PHOTOS])


def _write_held_out(run: Run) -> dict[str, Path]:
    """The first test image of each class, by label, in the order of the labels."""
    dataset = open_dataset("digits")
    indices = {entry.path: index for index, entry in enumerate(dataset.entries)}
    folder = run.path / "held-out"
    folder.mkdir(exist_ok=True)
    files: dict[str, Path] = {}
    for member in run.folder.read_split():
        if member.split == "test" and member.label not in files:
            index = indices[member.path]
            pixels = dataset.pixels(index, dataset.content(index), 1, 10_000)
            file = folder / f"{member.label}.png"
            size = pixels.shape[0] * SCALE
            Image.fromarray(pixels[:, :, 0]).resize((size, size), Image.Resampling.BOX).save(file)
            files[member.label] = file
    return dict(sorted(files.items()))
