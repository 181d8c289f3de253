"""Commands that look at data and learn from it."""

from __future__ import annotations

from typing import Annotated

import typer

from residua.cli.common import DataArgument, RunArgument, print_predictions, spoken


def train(
    *,
    data: DataArgument,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Settings to start from.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="RUN", help="Run folder. [runs/<data>-<n>]")
    ] = None,
    given: dict[str, object],
) -> None:
    """Train a network on DATA, judge it and write a report."""
    with spoken() as console:
        from residua.config.recipes import compose
        from residua.experiment import train_run

        print(train_run(compose(data, recipe, given), out, console).path)


def resume(run: RunArgument) -> None:
    """Go on with an interrupted training, as if it had never stopped."""
    with spoken():
        from residua import api

        print(api.resume(run).path)


def look(
    *,
    data: DataArgument,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where images go. [looks/<data>]")
    ] = None,
    given: dict[str, object],
) -> None:
    """Look at DATA before training: counts, sizes, formats, a grid per class, a training batch."""
    with spoken() as console:
        from residua.cli.look import look_at
        from residua.config.recipes import compose

        print(look_at(compose(data, None, given), out, console))


def demo(
    out: Annotated[
        str | None, typer.Option(metavar="RUN", help="Run folder. [runs/digits-<n>]")
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
) -> None:
    """Train on the embedded handwritten digits, then name ten that it has never seen."""
    with spoken() as console:
        from residua.cli.demo import demonstrate

        rows, truths = demonstrate(out, split_seed, console)
        print_predictions(rows, "table", 3)
        right = sum(row.top[0][0] == truth for row, truth in zip(rows, truths, strict=True))
        console.print(f"{right} of these {len(rows)} are right")
