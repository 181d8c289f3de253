"""The command that tests published claims: study."""

from __future__ import annotations

from typing import Annotated

import typer

from residua.cli.common import terminal
from residua.cli.options import SetOption, parse_assignments
from residua.errors import UsageError


def study(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|FILE", help="A study of --list, or a YAML file.", show_default=False
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the studies and exit.")] = False,
    data: Annotated[str, typer.Option(metavar="DATA", help="Data set, as for train.")] = "digits",
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help=r"Epochs per run. [dim]\[default: the study's][/dim]", min=1
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Time limit for all runs, e.g. 20m.",
            show_default=False,
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs per configuration.", min=1)] = 3,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Use the paper's networks, recipe and epochs; needs a GPU."),
    ] = False,
    jobs: Annotated[
        int, typer.Option(metavar="N", help="Runs in parallel; they share the cores.", min=1)
    ] = 1,
    assignments: SetOption = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder to create, or of a study to resume. "
            r"[dim]\[default: studies/<name>-<data>][/dim]",
        ),
    ] = None,
) -> None:
    """Test a published claim over several seeds; write a page, tables and figures.

    An interrupted study resumes when the same command runs again.

    Examples:
      residua study --list
      residua study orderings --data photos --epochs 20 --jobs 2
    """
    with terminal() as console:
        from residua.studies.run_study import available, run_study
        from residua.studies.study import StudyOptions

        if show:
            for study_name, title in available():
                print(f"{study_name:<20}{title}")
            return
        if name is None:
            raise UsageError("no study named; `residua study --list` lists them.")
        settings = parse_assignments(assignments)
        if epochs is not None:
            settings["training.epochs"] = epochs
        options = StudyOptions(data, seeds, budget, paper, settings, jobs)
        print(run_study(name, options, out, console))
