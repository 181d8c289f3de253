"""Arguments, options and printing that several commands share."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residua.cli.options import parse_assignments
from residua.errors import ResiduaError

if TYPE_CHECKING:
    from residua.evaluation.predict import Prediction
    from residua.system.console import Console

THIRD_PARTY = "Third-party weights"  # panel of what a weights file may not record

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder of class folders, optionally inside train, val and test folders; folder of "
        "IDX files or CIFAR archives; or digits, the embedded data set.",
        show_default=False,
    ),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run folder; a weights file of residua, Keras or PyTorch; or imagenet:NAME.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Network name, if the weights file does not record it.",
        rich_help_panel=THIRD_PARTY,
    ),
]
PreprocessingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Preprocessing, if the weights file does not record it, e.g. "
        r"preprocessing.mean=\[124,117,104], of pixels in 0..255; may be repeated.",
        show_default=False,
        rich_help_panel=THIRD_PARTY,
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="A,B,...|FILE",
        help="Class names in output order, if the weights file does not record them; or a text "
        "file with one name per line.",
        rich_help_panel=THIRD_PARTY,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object.")]


def class_names(text: str | None) -> list[str] | None:
    """Class names of --classes: a comma-separated list or a text file. Raises ResiduaError."""
    if text is None:
        return None
    file = Path(text).expanduser()
    if "," in text or not file.is_file():
        return [name.strip() for name in text.split(",")]
    try:
        return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ResiduaError(f"{file}: cannot be read: {error}.") from error


def preprocessing_fields(assignments: list[str] | None) -> dict[str, object]:
    """Values of --set preprocessing.FIELD=VALUE by field. Raises ResiduaError."""
    fields: dict[str, object] = {}
    for name, value in parse_assignments(assignments or ()).items():
        section, _, field = name.partition(".")
        if section != "preprocessing" or not field:
            raise ResiduaError(f"--set {name}={value}: expected preprocessing.FIELD=VALUE.")
        fields[field] = value
    return fields


@contextmanager
def terminal() -> Iterator[Console]:
    """A console; an interruption becomes a message on it and an exit status."""
    from residua.system.console import Console

    console = Console()
    try:
        yield console
        sys.stdout.flush()
    except BrokenPipeError:  # `residua ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.error("interrupted; anything not yet saved in a run folder is lost")
        raise typer.Exit(130) from None
    except Exception as error:
        from residua.system.signals import Interrupted

        if not isinstance(error, Interrupted):
            raise
        console.print(str(error))
        raise typer.Exit(128 + error.number) from None


def print_predictions(predictions: list[Prediction], form: str, top: int) -> None:
    """Print one row per file to stdout; `form` is table, csv or json."""
    if form == "json":
        rows = [prediction.to_json() for prediction in predictions]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif form == "csv":
        _print_csv(predictions, top)
    else:
        from residua.system.console import printable

        width = max((len(prediction.file) for prediction in predictions), default=0)
        for prediction in predictions:
            classes = ", ".join(f"{name} {chance:.1%}" for name, chance in prediction.top)
            outcome = classes or f"error: {prediction.error}"
            print(printable(f"{prediction.file:<{width}}  {outcome}"))


def _print_csv(predictions: list[Prediction], top: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    ranks = range(1, top + 1)
    header = [column for rank in ranks for column in (f"class{rank}", f"probability{rank}")]
    writer.writerow(["file", *header, "error"])
    for prediction in predictions:
        cells = [cell for name, chance in prediction.top for cell in (name, f"{chance:.6f}")]
        padding = [""] * (2 * top - len(cells))
        writer.writerow([prediction.file, *cells, *padding, prediction.error or ""])
