"""argv -> one call of the public functions; --help knows no torch.

What a machine may read goes to stdout, everything else to stderr. Options of `train` that are
settings come from config: their names, their help and their rules are written there, once.
"""

from __future__ import annotations

import csv
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from residua import __version__
from residua import config as settings
from residua.errors import ResiduaError

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
    app()


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"residua {__version__}")
        raise typer.Exit


def _shown_default(default: object) -> str:
    return "off" if default is False else str(default)


def _from_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` an option for every setting that has a flag, and --set for all the others."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.name != "given"]
    options = []
    for flag, name in settings.flags().items():
        item = settings.field_of(name)
        is_switch = isinstance(item.default, bool)
        option = typer.Option(
            flag,
            help=f"{item.metadata['help']} [{_shown_default(item.default)}]",
            metavar=None if is_switch else settings.kind_of(name),
            show_default=False,
        )
        kind = bool | None if is_switch else str | None
        options.append(
            inspect.Parameter(
                flag.strip("-").replace("-", "_"),
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind, option],
            )
        )

    def collect(**values: Any) -> None:
        given: dict[str, object] = {}
        for assignment in values.pop("assignments", None) or ():
            name, equals, value = assignment.partition("=")
            if not equals:
                raise ResiduaError(f"--set {assignment}: expected SECTION.FIELD=VALUE.")
            given[name.strip()] = value.strip()
        for flag, name in settings.flags().items():
            value = values.pop(flag.strip("-").replace("-", "_"))
            if value is not None:
                given[name] = value
        command(given=given, **values)

    assignments = inspect.Parameter(
        "assignments",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="FIELD=VALUE",
                help="Any other setting, such as optimization.rate=0.05; may be repeated.",
                show_default=False,
            ),
        ],
    )
    collect.__signature__ = inspect.Signature([*own, *options, assignments])  # type: ignore[attr-defined]
    collect.__doc__, collect.__name__ = command.__doc__, command.__name__
    return collect


@app.command()
@_from_config
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
    _with_kept_memory()
    with _spoken() as screen:
        from residua.api import compose, train_with

        run = train_with(compose(data, recipe, given), out, screen)
        print(run.path)


@app.command()
def resume(run: RunArgument) -> None:
    """Go on with an interrupted training, as if it had never stopped."""
    _with_kept_memory()
    with _spoken(run):
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

        found = api.evaluate(run, data, quiet=as_json)
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
            if draw is not None:
                raise ResiduaError("--draw needs the name of a model.")
            print(showing.list_models(as_json))
            return
        described = showing.Described.of(name, classes, channels, size, ordering, shortcut)
        if draw is not None:
            described.draw(draw)
        print(described.text(as_json))


@app.command()
@_from_config
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
    _with_kept_memory()
    with _spoken() as screen:
        from residua.demonstration import demonstrate

        rows, truths = demonstrate(out, split_seed, screen)
        _print_predictions(rows, "table", 3)
        right = sum(row.top[0][0] == truth for row, truth in zip(rows, truths, strict=True))
        screen.say(f"{right} of these {len(rows)} are right")


@contextmanager
def _spoken(run: str | None = None) -> Iterator[Screen]:
    """A screen; what goes wrong becomes a sentence on it and an exit status."""
    from residua.screen import Screen

    screen = Screen()
    try:
        yield screen
        sys.stdout.flush()
    except ResiduaError as error:
        screen.fail(str(error))
        raise typer.Exit(1) from None
    except BrokenPipeError:  # `residua ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        screen.fail("stopped before there was anything to keep")
        raise typer.Exit(130) from None
    except Exception as error:
        from residua.training.bookkeeping import Interrupted

        if not isinstance(error, Interrupted):
            raise
        screen.say(f"stopped by {error}; everything is saved: residua resume {error.run}")
        raise typer.Exit(128 + error.number) from None


def _with_kept_memory() -> None:
    """Start again, once, with an allocator that suits training; an explicit setting wins."""
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
    os.execve(sys.executable, [sys.executable, "-m", "residua", *sys.argv[1:]], environment)


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
