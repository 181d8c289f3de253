"""What several commands share: their arguments, the screen that they speak to, printed rows."""

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

from residua.errors import ResiduaError

if TYPE_CHECKING:
    from residua.evaluation.predict import Prediction
    from residua.system.console import Console

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
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE|imagenet:NAME",
        help="A run, a weights file of residua, Keras or PyTorch, or published ImageNet weights.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The network, where a file cannot tell it.")
]
PreparedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="preprocessing.FIELD=VALUE",
        help="How images are prepared, where a file of others does not say it.",
        show_default=False,
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="A,B,...|FILE",
        help="Names of the outputs, in order, where a file of others does not say them; or a text "
        "file with a name on each line.",
    ),
]
ImagesArgument = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE_OR_FOLDER...", help="What to read.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def names_from(text: str | None) -> list[str] | None:
    """What --classes says: names with commas between, or the lines of a file."""
    if text is None:
        return None
    file = Path(text).expanduser()
    if "," in text or not file.is_file():
        return [each.strip() for each in text.split(",")]
    try:
        return [each.strip() for each in file.read_text("utf-8").splitlines() if each.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ResiduaError(f"{file}: cannot be read: {error}.") from error


def prepared_from(assignments: list[str] | None) -> dict[str, object]:
    """What --set says of the preprocessing, by field."""
    given: dict[str, object] = {}
    for assignment in assignments or ():
        name, equals, value = assignment.partition("=")
        section, _, field = name.strip().partition(".")
        if section != "preprocessing" or not field or not equals:
            raise ResiduaError(f"--set {assignment}: expected preprocessing.FIELD=VALUE.")
        given[field] = value.strip()
    return given


@contextmanager
def spoken() -> Iterator[Console]:
    """A screen; being stopped becomes a sentence on it and an exit status."""
    from residua.system.console import Console

    console = Console()
    try:
        yield console
        sys.stdout.flush()
    except BrokenPipeError:  # `residua ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.error("stopped; what is not in a run folder yet is lost")
        raise typer.Exit(130) from None
    except Exception as error:
        from residua.system.signals import Interrupted

        if not isinstance(error, Interrupted):
            raise
        console.print(str(error))
        raise typer.Exit(128 + error.number) from None


def print_predictions(rows: list[Prediction], form: str, top: int) -> None:
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
        from residua.system.console import printable

        width = max((len(row.file) for row in rows), default=0)
        for row in rows:
            said = ", ".join(f"{name} {chance:.1%}" for name, chance in row.top)
            print(printable(f"{row.file:<{width}}  {said or 'error: ' + str(row.error)}"))
