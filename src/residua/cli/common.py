"""Arguments, options and printing that several commands share."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from residua.cli.options import parse_assignments
from residua.errors import ResiduaError, UsageError
from residua.system.files import reason_of, user_path, write_csv
from residua.system.words import decimals

if TYPE_CHECKING:
    from residua.evaluation.predictor import Prediction
    from residua.system.console import Console

CHUNK = 32  # predictions that are printed together
THIRD_PARTY = "Third-party weights"  # panel of what a weights file may not record

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder of class folders (optionally inside train, val and test folders), zip or tar "
        "of it, table of paths and labels (.csv, .tsv, .jsonl, .parquet), folder of IDX files, "
        "CIFAR archive, or digits (built-in).",
        show_default=False,
    ),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)
]
ImagesArgument = Annotated[
    list[str], typer.Argument(metavar="IMAGE", help="Image files or folders.", show_default=False)
]
MovedDataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="New path of the run's own data, if it was moved; checked against split.csv.",
        show_default=False,
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run folder, a weights file of residua, Keras or PyTorch, imagenet, "
        "imagenet:NAME, or hub:OWNER/NAME.",
        show_default=False,
    ),
]
ClassifierArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run folder, a weights file of residua, Keras or PyTorch, an exported file, "
        "imagenet, imagenet:NAME, or hub:OWNER/NAME.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Network name, if the weights file does not record it; MODULE:FUNCTION, if a run's "
        "network is your own.",
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
NoCheckOption = Annotated[
    bool,
    typer.Option(
        "--no-check",
        help="Skip the check that the weights still give the stored outputs for golden images.",
    ),
]
AllowCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Run an exported .pt2 or .torchscript file. Loading it can run any code in it, so "
        "use this only for files that you trust.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help=r"cpu, cuda or cuda:N. [dim]\[default: the GPU if there is one][/dim]",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def class_names(text: str | None) -> list[str] | None:
    """Class names of --classes: a comma-separated list or a text file. Raises ResiduaError."""
    if text is None:
        return None
    file = user_path(text)
    try:
        is_file = "," not in text and file.is_file()
    except (OSError, ValueError):  # such as a text that is too long for a file's name
        is_file = False
    if not is_file:
        return [name.strip() for name in text.split(",")]
    try:
        return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ResiduaError(f"{file}: cannot be read: {reason_of(error)}.") from error


def check_order(command: str, source: str, others: Iterable[str]) -> None:
    """Raise ResiduaError if a run follows an image or a folder that is no run."""
    from residua.data.recognition import objection
    from residua.runs.folder import RunFolder

    path = user_path(source)
    with contextlib.suppress(OSError, ValueError):  # reading it explains what is wrong
        is_image = path.is_file() and objection(path) is None
        if not is_image and (RunFolder.is_at(path) or not path.is_dir()):
            return
        runs = [other for other in others if RunFolder.is_at(user_path(other))]
        for other in runs[:1]:
            raise ResiduaError(
                f"{source}: is not a run, but {other} is one, which comes first: "
                f"residua {command} {shlex.quote(other)} {shlex.quote(source)}"
            )


def preprocessing_fields(assignments: list[str] | None) -> dict[str, object]:
    """Values of --set preprocessing.FIELD=VALUE by field. Raises UsageError."""
    fields: dict[str, object] = {}
    for name, value in parse_assignments(assignments).items():
        section, _, field = name.partition(".")
        if section != "preprocessing" or not field:
            raise UsageError(f"--set {name}={value}: expected preprocessing.FIELD=VALUE.")
        fields[field] = value
    return fields


@contextmanager
def terminal() -> Iterator[Console]:
    """A console; an interruption becomes a message on it and an exit status."""
    from residua.system.console import Console
    from residua.system.signals import Interrupted, signal_of, sigterm_raises

    console = Console()
    try:
        with sigterm_raises():
            yield console
            sys.stdout.flush()
    except BrokenPipeError:  # `residua ... | head`
        raise typer.Exit(1) from None
    except KeyboardInterrupt as error:
        console.print("interrupted")
        raise typer.Exit(128 + signal_of(error)) from None
    except Interrupted as error:
        console.print(str(error))
        raise typer.Exit(128 + error.number) from None


def print_text(text: object) -> None:
    """Print to stdout, with control characters escaped: a file's name may contain some."""
    from residua.system.console import printable

    print(printable(str(text)))


def print_json(value: object) -> None:
    """Print plain data as JSON to stdout."""
    print(_json(value, sys.stdout))


def none_read(failed: Sequence[tuple[str, str | None]]) -> ResiduaError:
    """The error where no image could be read, of file and reason of each."""
    (file, reason), *others = failed
    more = f" None of the {len(failed):,} images could be read." if others else ""
    return ResiduaError(f"{file}: {reason}.{more}")


def print_predictions(
    predictions: Iterable[Prediction],
    form: str,
    ranks: int,
    out: TextIO,
    *,
    sets: bool = False,
    names: Sequence[str] = (),
) -> tuple[int, list[Prediction]]:
    """Print a row per image as soon as it is there; the number of rows, and those with an error.

    form: table, csv or json, which always has the prediction sets. ranks: classes of each image, a
    pair of columns each in csv. sets: print the prediction sets. names: of all images, to which the
    rows of a table are aligned; there with the first prediction.
    After an interruption the output is valid, with the rows so far.
    """
    count = 0
    failed: list[Prediction] = []

    def counted() -> Iterator[Prediction]:
        nonlocal count
        for prediction in predictions:
            count += 1
            if prediction.error is not None:
                failed.append(prediction)
            yield prediction

    chunks = _chunks(counted(), out)
    if form == "table":
        _write_table(chunks, sets, out, names)
    elif form == "csv":
        _write_csv(chunks, ranks, sets, out)
    else:
        _write_json(chunks, out)
    return count, failed


def _chunks(predictions: Iterable[Prediction], out: TextIO) -> Iterator[list[Prediction]]:
    """Some predictions at a time; flushes after each."""
    waiting = iter(predictions)
    while chunk := list(islice(waiting, CHUNK)):
        yield chunk
        out.flush()


def _write_table(
    chunks: Iterator[list[Prediction]], sets: bool, out: TextIO, names: Sequence[str]
) -> None:
    from residua.system.console import printable
    from residua.system.words import percent

    width = 0
    for chunk in chunks:
        width = width or max(map(len, names), default=0)
        width = max(width, *(len(prediction.file) for prediction in chunk))
        for prediction in chunk:
            classes = ", ".join(f"{name} {percent(chance, 1)}" for name, chance in prediction.top)
            outcome = classes or f"error: {prediction.error}"
            if sets and prediction.set is not None:
                outcome += f"; set {{{', '.join(prediction.set)}}}"
            if prediction.unknown is not None:
                outcome += f"; unknown: {prediction.unknown}"
            print(printable(f"{prediction.file:<{width}}  {outcome}"), file=out)


def _write_csv(chunks: Iterator[list[Prediction]], ranks: int, sets: bool, out: TextIO) -> None:
    if isinstance(out, io.TextIOWrapper) and not out.isatty():
        out.reconfigure(encoding="utf-8")  # other programs read it, not this terminal
    columns = [(f"class{rank}", f"probability{rank}") for rank in range(1, ranks + 1)]
    write_csv(out, [["file", *chain.from_iterable(columns), *["set"] * sets, "unknown", "error"]])
    for prediction in chain.from_iterable(chunks):
        cells = [cell for name, chance in prediction.top for cell in (name, decimals(chance, 6))]
        padding = [""] * (2 * ranks - len(cells))
        members = ["|".join(prediction.set or ())] * sets
        reasons = [prediction.unknown or "", prediction.error or ""]
        write_csv(out, [[prediction.file, *cells, *padding, *members, *reasons]])


def _write_json(chunks: Iterator[list[Prediction]], out: TextIO) -> None:
    """A list, closed whatever happens."""
    opening, closing = "[", ""
    try:
        for chunk in chunks:
            for prediction in chunk:
                text = textwrap.indent(_json(prediction.to_json(), out), "  ")
                out.write(f"{opening}\n{text}")
                opening, closing = ",", "\n]\n"
    finally:
        out.write(closing)
    if not closing:
        out.write("[]\n")


def _json(value: object, out: TextIO) -> str:
    """JSON text that is valid in the encoding of `out`: JSON is UTF-8, or ASCII with escapes."""
    is_utf8 = (out.encoding or "").lower().replace("-", "").startswith("utf8")
    return json.dumps(value, ensure_ascii=not is_utf8, indent=2)
