"""Commands that use what was learnt, here or elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from residua.cli.common import (
    ClassesOption,
    ImagesArgument,
    JsonOption,
    ModelOption,
    PreparedOption,
    SourceArgument,
    names_from,
    prepared_from,
    print_predictions,
    spoken,
)
from residua.errors import ResiduaError
from residua.system.files import refuse_inside


def evaluate(
    source: SourceArgument,
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="Other images to judge by.", show_default=False),
    ] = None,
    model: ModelOption = None,
    classes: ClassesOption = None,
    prepared: PreparedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a run on its test part, else its validation part, or on DATA; or weights on DATA."""
    with spoken():
        from residua import api
        from residua.report.facts import scores_text

        found = api.evaluate(
            source,
            data,
            model=model,
            classes=names_from(classes),
            preprocessing=prepared_from(prepared),
            quiet=False,
        )
        if as_json:
            print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
        else:
            print(scores_text(found))


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Folders of runs, two or more.", show_default=False),
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A new folder for the page. [comparisons/<n>]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Lay runs side by side: curves, accuracies on the same images, sizes, speed, settings."""
    with spoken():
        from residua.comparison import compare
        from residua.system.console import printable

        found = compare.compare(*runs, out=out)
        if as_json:
            print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
        else:
            print(printable(found.text()))


def predict(
    source: SourceArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FOLDER|ADDRESS...",
            help="What to name; addresses begin with http:// or https://.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option(help="How many classes for each image.")] = 3,
    form: Annotated[
        Literal["table", "csv", "json"],
        typer.Option("--format", help="Form of the output on stdout."),
    ] = "table",
    grid: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Also draw the images with their classes."),
    ] = None,
    model: ModelOption = None,
    classes: ClassesOption = None,
    prepared: PreparedOption = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Read addresses of private networks too.")
    ] = False,
) -> None:
    """Name what is on images: a row for each file, in the order they came."""
    with spoken():
        from residua import api

        rows = api.predict(
            source,
            files,
            top=top,
            model=model,
            classes=names_from(classes),
            preprocessing=prepared_from(prepared),
            allow_private=allow_private,
            grid=grid,
            quiet=False,
        )
        print_predictions(rows, form, top)
        if all(row.error for row in rows):
            raise ResiduaError(
                f"{', '.join(files)}: no image could be read."
                if rows
                else f"{', '.join(files)}: holds no images."
            )


def features(
    source: SourceArgument,
    files: ImagesArgument,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.npz|FILE.parquet", help="Where the features go.", show_default=False
        ),
    ],
    stage: Annotated[
        int | None, typer.Option(help="The map after this stage, from 1. [the last]")
    ] = None,
    pool_size: Annotated[
        int | None,
        typer.Option(
            "--pool-size",
            "--side",
            help="Average-pool the map to N x N. [default: as the head does]",
            min=1,
        ),
    ] = None,
    model: ModelOption = None,
    prepared: PreparedOption = None,
) -> None:
    """Write what the network sees in images, a row for each file, for other tools."""
    with spoken() as console:
        from residua import api
        from residua.evaluation.predict import parquet

        if out.suffix not in (".npz", ".parquet"):
            raise ResiduaError(f"--out {out}: expected a name that ends in .npz or .parquet.")
        if out.suffix == ".parquet":
            parquet()  # before the work, not after it
        out = out.expanduser()
        for file in files:
            refuse_inside(out, str(file))
        found = api.features(
            source,
            files,
            model=model,
            preprocessing=prepared_from(prepared),
            stage=stage,
            pool_size=pool_size,
            quiet=False,
        )
        for file, reason in found.unreadable:
            console.warn(f"{file} is left out: {reason}")
        found.save(out)
        print(out)
