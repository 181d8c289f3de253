"""The command that repeats what others claim."""

from __future__ import annotations

from typing import Annotated

import typer

from residua.cli.common import spoken
from residua.errors import ResiduaError


def study(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|FILE]", help="A study, see --list.", show_default=False),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the studies and exit.")] = False,
    data: Annotated[
        str, typer.Option(metavar="DATA", help="What its rows learn, as for train.")
    ] = "digits",
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of every row. [the study's]", min=1)
    ] = None,
    budget: Annotated[
        str,
        typer.Option(help="Time for all runs (transfer-scenarios: for each), such as 20m. [none]"),
    ] = "",
    seeds: Annotated[int, typer.Option(help="Runs of each row, seeds from 0.", min=1)] = 3,
    paper: Annotated[
        bool, typer.Option("--paper", help="The papers' networks, recipes and epochs; wants a GPU.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(help="Runs that train at once, each on its share of the cores.", min=1)
    ] = 1,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any other setting, of every row; may be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Its folder; one that exists is gone on with. [studies/<name>-<data>]",
        ),
    ] = None,
) -> None:
    """Repeat a claim of the papers and tutorials, with its spread: a page, tables and figures.

    Stopped at any moment, the same command goes on.
    """
    with spoken() as console:
        from residua.cli.options import parsed
        from residua.studies.plan import Asked
        from residua.studies.run_study import conduct, listing

        if show:
            for each, title in listing():
                print(f"{each:<20}{title}")
            return
        if name is None:
            raise ResiduaError("which study? `residua study --list` names them.")
        given = parsed(assignments or ())
        if epochs is not None:
            given["training.epochs"] = epochs
        print(conduct(name, Asked(data, seeds, budget, paper, given, jobs), out, console))
