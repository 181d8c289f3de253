"""The commands for weights files: weights inspect, convert, verify, sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from residua.cli.common import (
    ClassesOption,
    JsonOption,
    ModelOption,
    SourceArgument,
    class_names,
    print_text,
    terminal,
)
from residua.system.files import user_path


def inspect(
    source: SourceArgument,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: JsonOption = False,
    model: ModelOption = None,
) -> None:
    """Describe a weights file: framework, network, classes, preprocessing.

    Examples:
      residua weights inspect model.weights.h5
      residua weights inspect runs/photos-1/best.safetensors --tensors
    """
    with terminal() as console:
        from residua.runs.sources import locate
        from residua.weights import inspect

        description = inspect.inspect(locate(source, model, console), model)
        if as_json:
            print(description.to_json())
        else:
            print_text(description.text(tensors))


def convert(
    source: SourceArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="File to write: .safetensors, .weights.h5 (Keras 3) or .pth (torchvision).",
            show_default=False,
        ),
    ],
    model: ModelOption = None,
    classes: ClassesOption = None,
) -> None:
    """Convert weights to another file format, bit for bit.

    Examples:
      residua weights convert model.weights.h5 model.safetensors
      residua weights convert runs/photos-1 photos.safetensors
      residua weights convert imagenet:resnet18 resnet18.pth
    """
    with terminal() as console:
        from residua.runs.provenance import with_provenance
        from residua.runs.sources import open_weights
        from residua.weights.convert import convert

        weights = open_weights(source, model, console)
        names = class_names(classes)
        if names is not None:
            weights = weights.with_classes(tuple(names))
        companion = convert(with_provenance(weights), user_path(out))
        if companion is not None:
            console.print(
                f"class names and preprocessing are in {companion}, since {out.name} has no place "
                "for them; residua reads both"
            )
        print(out)


def verify(
    source: SourceArgument,
    against: Annotated[
        Literal["keras"], typer.Option(hidden=True)  # there is no other
    ] = "keras",
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Image to compare on; may be repeated. [dim]\\[default: two sample photos][/dim]",
        ),
    ] = None,
    model: ModelOption = None,
) -> None:
    """Run the same images in Keras and print the largest difference per layer.

    Examples:
      residua weights verify model.weights.h5
      residua weights verify model.weights.h5 --image photo.jpg
    """
    with terminal() as console:
        from residua.runs.sources import open_weights
        from residua.weights import verify

        weights = open_weights(source, model, console)
        images = verify.images_for(weights.metadata.preprocessing, image or [])
        agreements = verify.verify(weights, images)
        print_text(verify.table(agreements))
        if not all(agreement.good for agreement in agreements):
            raise typer.Exit(1)


def sources() -> None:
    """List the published ImageNet weights: name, address, publisher, hash.

    Examples:
      residua weights sources
    """
    with terminal():
        from residua.weights.published.imagenet import SOURCES

        for name, source in SOURCES.items():
            digest = source.digest or "no published hash; that of the first download is recorded"
            publisher = ", ".join(filter(None, (source.publisher, source.licence)))
            print(f"{name}\n  {source.address}\n  {publisher}; {digest}")
