"""The command that lists and describes networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residua.cli.common import JsonOption, terminal
from residua.config.schema import ORDERING_LETTERS
from residua.errors import UsageError
from residua.system.files import user_path


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Model to describe.", show_default=False),
    ] = None,
    classes: Annotated[int | None, typer.Option(metavar="N", help="Number of classes.")] = None,
    channels: Annotated[int | None, typer.Option(metavar="N", help="Input channels.")] = None,
    size: Annotated[int | None, typer.Option(metavar="PX", help="Input size.")] = None,
    ordering: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Order of layers in a residual unit: {', '.join(ORDERING_LETTERS.values())}.",
        ),
    ] = None,
    shortcut: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Shortcut where the shape changes: A, B (He et al. 2015), D (He et al. "
            "2018, Bag of Tricks) or none.",
        ),
    ] = None,
    cardinality: Annotated[
        str | None,
        typer.Option(
            metavar="CxDd",
            help="Groups x width per group in the first stage, e.g. 32x4d (Xie et al. 2017).",
        ),
    ] = None,
    as_json: JsonOption = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw the stages and units as an SVG file."),
    ] = None,
) -> None:
    """List the models, or describe one: layers, parameters, multiply-adds.

    Examples:
      residua models
      residua models resnet50 --classes 10
      residua models preact_resnet50 --draw units.svg
    """
    with terminal() as console:
        from residua.networks.analysis import describe

        if name is None:
            if (classes, channels, size, ordering, shortcut, cardinality, draw) != (None,) * 7:
                raise UsageError("these options need the NAME of a model.")
            for line in describe.list_models(as_json):
                print(line, flush=True)
            return
        description = describe.describe(
            name,
            classes=classes,
            channels=channels,
            size=size,
            ordering=ordering,
            shortcut=shortcut,
            cardinality=cardinality,
        )
        if draw is not None:
            description.draw(user_path(draw))
        print(description.text(as_json), flush=True)
        if draw is not None:
            console.print(f"drawing: {draw}")
