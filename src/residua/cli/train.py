"""Commands that train, and the overview of the data before that: train, resume, look, demo."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from residua.cli.common import (
    DataArgument,
    MovedDataOption,
    RunArgument,
    print_predictions,
    print_text,
    terminal,
)
from residua.cli.options import OUTPUT

OwnModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:FUNCTION",
        help="The run's network, if it is your own.",
        show_default=False,
    ),
]
RunOption = typer.Option(
    metavar="RUN",
    help=r"Run folder to create. [dim]\[default: runs/<data>-<n>][/dim]",
    rich_help_panel=OUTPUT,
)


def train(
    *,
    data: DataArgument,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Start from the settings of a recipe, a YAML file or a run's config.yaml.",
        ),
    ] = None,
    settings: dict[str, object],
    out: Annotated[str | None, RunOption] = None,
) -> None:
    """Train a classifier on DATA, evaluate it and write a report.

    Starts from installed ImageNet weights: a linear probe, then fine-tuning if its expected
    gain exceeds the noise (see --effort). With --epochs, --lr or another setting of the
    training, fine-tunes all layers with these settings; with --model or --weights none, trains
    from scratch. choices.json records each automatic setting with its reason.

    Examples:
      residua train photos --test-fraction 0.2
      residua train photos --effort quick
      residua train photos --epochs 10 --lr 0.0003
      residua train photos --weights none --model resnet50 --size 160 --epochs 30
      residua train photos --weights imagenet:resnet50 --transfer full
      residua train photos --recipe runs/photos-1/config.yaml --seed 1
    """
    with terminal() as console:
        from residua.config.recipes import compose
        from residua.experiment import train as train_config
        from residua.networks.own import own_name

        if isinstance(model := settings.get("network.name"), str):
            settings = {**settings, "network.name": own_name(model)}
        print(train_config(compose(data, recipe, settings), out, console).path)


def resume(run: RunArgument, data: MovedDataOption = None, model: OwnModelOption = None) -> None:
    """Resume an interrupted run; on a CPU the final weights are those of an uninterrupted run.

    Examples:
      residua resume runs/photos-1
      residua resume runs/photos-1 --data elsewhere/photos
    """
    with terminal():
        from residua.api import training

        print(training.resume(run, data_path=data, model=model).path)


def look(
    *,
    data: DataArgument,
    settings: dict[str, object],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help=r"Folder for the PNG files. [dim]\[default: looks/<data>][/dim]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Summarise DATA before training: counts, sizes, formats, sample images.

    Writes a grid of images per class and, unless a linear probe alone is trained, an augmented
    training batch as PNG files. Accepts the settings of `residua train`; nothing is trained.

    Examples:
      residua look photos
      residua look photos --size 64 --set augmentation.rotation=30
    """
    with terminal() as console:
        from residua.cli.look import overview
        from residua.config.recipes import compose

        print_text(overview(compose(data, None, settings), out, console))


def demo(
    out: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help=r"Run folder to create. [dim]\[default: runs/digits-<n>][/dim]"
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option(metavar="N", help="Seed of the split.")] = 0,
) -> None:
    """Train on handwritten digits, predict ten held-out images, and classify two photos.

    Examples:
      residua demo
    """
    with terminal() as console:
        from residua.cli.demo import demonstrate, name_photos

        predictions, labels = demonstrate(out, split_seed, console)
        print_predictions(predictions, "table", 3, sys.stdout)
        pairs = zip(predictions, labels, strict=True)
        correct = sum(prediction.top[0][0] == label for prediction, label in pairs)
        console.print(f"{correct} of {len(predictions)} correct")
        print_predictions(name_photos(console), "table", 3, sys.stdout)
