"""Commands that say what networks and weights files are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residua.cli.words import JsonOption, spoken
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
        from residua import showing

        if name is None:
            if (classes, channels, size, ordering, shortcut, draw) != (None,) * 6:
                raise ResiduaError("these options need the name of a model.")
            print(showing.list_models(as_json))
            return
        described = showing.Described.of(name, classes, channels, size, ordering, shortcut)
        if draw is not None:
            described.draw(draw)
        print(described.text(as_json))
