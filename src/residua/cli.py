"""argv -> one call of the public functions; --help knows no torch.

What a machine may read goes to stdout, everything else to stderr. Options of `train` that are
settings come from config: their names, their help and their rules are written there, once.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from residua import __version__
from residua.errors import ResiduaError
from residua.options import with_settings

if TYPE_CHECKING:
    from residua.prediction import Prediction
    from residua.screen import Screen

app = typer.Typer(
    name="residua",
    help="From a folder of labelled pictures to a classifier you can trust.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder of class folders (or with train, val and test folders), of IDX files or "
        "CIFAR archives; or the name digits.",
        show_default=False,
    ),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]

# How glibc's allocator should treat the blocks that every training step frees and wants again: keep
# them, and back them with huge pages. It reads this once, when a process starts.
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    ":glibc.malloc.top_pad=67108864"
)


def main() -> None:
    """Run the command line; errors of the user's kind end as a sentence and a status."""
    for stream in (sys.stdout, sys.stderr):  # file names need not fit the terminal's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.argv[1:2] and sys.argv[1] in ("train", "resume", "demo"):
        _with_kept_memory()
    try:
        app()
    except ResiduaError as error:
        from residua.screen import Screen

        Screen().fail(str(error))
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"residua {__version__}")
        raise typer.Exit


@app.command()
@with_settings
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
    with _spoken() as screen:
        from residua.api import compose
        from residua.learning import train_run

        print(train_run(compose(data, recipe, given), out, screen).path)


@app.command()
def resume(run: RunArgument) -> None:
    """Go on with an interrupted training, as if it had never stopped."""
    with _spoken():
        from residua import api

        print(api.resume(run).path)


@app.command()
def evaluate(
    run: RunArgument,
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="Other pictures to judge by.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a run on its test part, else its validation part, or on DATA."""
    with _spoken():
        from residua import api
        from residua.reporting import scores_text

        found = api.evaluate(run, data, quiet=False)
        if as_json:
            print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
        else:
            print(scores_text(found))


@app.command()
def predict(
    run: RunArgument,
    files: Annotated[
        list[str],
        typer.Argument(metavar="PICTURE_OR_FOLDER...", help="What to name.", show_default=False),
    ],
    top: Annotated[int, typer.Option(help="How many classes for each picture.")] = 3,
    form: Annotated[
        Literal["table", "csv", "json"],
        typer.Option("--format", help="Form of the output on stdout."),
    ] = "table",
    grid: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Also draw the pictures with their classes."),
    ] = None,
) -> None:
    """Name what is on pictures: a row for each file, in the order they came."""
    with _spoken() as screen:
        from residua import api

        rows = api.predict(run, files, top=top)
        _print_predictions(rows, form, top)
        if grid is not None and (warning := api.load(run).draw_predictions(rows, grid)):
            screen.warn(warning)
        if all(row.error for row in rows):
            raise ResiduaError(
                f"{', '.join(files)}: no picture could be read."
                if rows
                else f"{', '.join(files)}: holds no pictures."
            )


@app.command()
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
    with _spoken():
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


@app.command()
@with_settings
def look(
    *,
    data: DataArgument,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where pictures go. [looks/<data>]")
    ] = None,
    given: dict[str, object],
) -> None:
    """Look at DATA before training: counts, sizes, formats, a grid per class, a training batch."""
    with _spoken() as screen:
        from residua.api import compose
        from residua.looking import look_at

        print(look_at(compose(data, None, given), out, screen))


@app.command()
def demo(
    out: Annotated[
        str | None, typer.Option(metavar="RUN", help="Run folder. [runs/digits-<n>]")
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
) -> None:
    """Train on the embedded handwritten digits, then name ten that it has never seen."""
    with _spoken() as screen:
        from residua.demonstration import demonstrate

        rows, truths = demonstrate(out, split_seed, screen)
        _print_predictions(rows, "table", 3)
        right = sum(row.top[0][0] == truth for row, truth in zip(rows, truths, strict=True))
        screen.say(f"{right} of these {len(rows)} are right")


@contextmanager
def _spoken() -> Iterator[Screen]:
    """A screen; being stopped becomes a sentence on it and an exit status."""
    from residua.screen import Screen

    screen = Screen()
    try:
        yield screen
        sys.stdout.flush()
    except BrokenPipeError:  # `residua ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        screen.fail("stopped; what is not in a run folder yet is lost")
        raise typer.Exit(130) from None
    except Exception as error:
        from residua.training.interruption import Interrupted

        if not isinstance(error, Interrupted):
            raise
        screen.say(str(error))
        raise typer.Exit(128 + error.number) from None


def _with_kept_memory() -> None:
    """Start again, once, with an allocator that suits training; an explicit setting wins."""
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "residua", *sys.argv[1:]], environment)


def _print_predictions(rows: list[Prediction], form: str, top: int) -> None:
    if form == "json":
        print(json.dumps([row.to_json() for row in rows], ensure_ascii=False, indent=2))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        places = range(1, top + 1)
        heads = [head for place in places for head in (f"class{place}", f"probability{place}")]
        writer.writerow(["file", *heads, "error"])
        for row in rows:
            cells = [cell for name, chance in row.top for cell in (name, f"{chance:.6f}")]
            writer.writerow([row.file, *cells, *[""] * (2 * top - len(cells)), row.error or ""])
    else:
        width = max((len(row.file) for row in rows), default=0)
        for row in rows:
            said = ", ".join(f"{name} {chance:.1%}" for name, chance in row.top)
            print(f"{row.file:<{width}}  {said or 'error: ' + str(row.error)}")
