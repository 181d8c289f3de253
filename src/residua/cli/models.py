"""Commands that say what networks and weights files are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from residua.cli.common import (
    ClassesOption,
    JsonOption,
    ModelOption,
    SourceArgument,
    names_from,
    spoken,
)
from residua.errors import ResiduaError


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A model to describe.", show_default=False),
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Width of the head.")] = None,
    channels: Annotated[int | None, typer.Option(help="Input channels.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the input, px.")] = None,
    ordering: Annotated[
        str | None, typer.Option(metavar="a|b|c|d|e", help="Order of letters in a unit.")
    ] = None,
    shortcut: Annotated[
        str | None, typer.Option(metavar="none|A|B|D", help="Shortcut where shapes change.")
    ] = None,
    as_json: JsonOption = False,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw its units and stages.")
    ] = None,
) -> None:
    """List the networks, or describe one: layers, parameters, multiply-adds, a drawing."""
    with spoken():
        from residua.networks.analysis import describe

        if name is None:
            if (classes, channels, size, ordering, shortcut, draw) != (None,) * 6:
                raise ResiduaError("these options need the name of a model.")
            print(describe.list_models(as_json))
            return
        described = describe.Described.of(name, classes, channels, size, ordering, shortcut)
        if draw is not None:
            described.draw(draw.expanduser())
        print(described.text(as_json))


weights = typer.Typer(
    name="weights",
    help="Weights files: what they are, where to get some, other forms, the proof against Keras.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@weights.command()
def inspect(
    source: SourceArgument,
    model: ModelOption = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a file is: framework, network, classes, preprocessing, tensors."""
    with spoken() as console:
        from residua.runs.sources import locate
        from residua.system.console import printable
        from residua.weights import inspect

        found = inspect.inspect(locate(source, model, console), model)
        print(found.to_json() if as_json else printable(found.text(tensors)))


@weights.command()
def sources() -> None:
    """List the published ImageNet weights: what imagenet:NAME downloads, once, and its hash."""
    with spoken():
        from residua.weights.published.imagenet import SOURCES

        for name, source in SOURCES.items():
            learnt = "no hash published: that of the first download is demanded later"
            print(f"{name}\n  {source.address}\n  {source.publisher}; {source.digest or learnt}")


@weights.command()
def convert(
    source: SourceArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="FILE.safetensors, FILE.weights.h5 (Keras 3) or FILE.pth (names of torchvision).",
            show_default=False,
        ),
    ],
    model: ModelOption = None,
    classes: ClassesOption = None,
) -> None:
    """Write weights in another form; every number stays as it is."""
    with spoken() as console:
        from residua.runs.sources import open_weights
        from residua.weights.convert import convert

        found = open_weights(source, model, console)
        names = names_from(classes)
        convert(found if names is None else found.with_classes(tuple(names)), out.expanduser())
        print(out)


@weights.command()
def verify(
    source: SourceArgument,
    against: Annotated[
        Literal["keras"], typer.Option(help="Whose computation to compare with.")
    ] = "keras",
    model: ModelOption = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="An image to compare on; may be repeated. [two sample photos]"),
    ] = None,
) -> None:
    """Run Keras on the same images and print the largest difference, layer by layer."""
    with spoken() as console:
        from residua.runs.sources import open_weights
        from residua.weights import verify

        found = open_weights(source, model, console)
        images = verify.images_for(found.metadata.preprocessing, image or [])
        agreements = verify.verify(found, images)
        print(verify.table(agreements))
        if not all(each.good for each in agreements):
            raise typer.Exit(1)
