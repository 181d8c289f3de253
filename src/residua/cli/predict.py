"""Commands that apply a trained network: evaluate, predict, features, compare."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from residua.cli.common import (
    AllowCodeOption,
    ClassesOption,
    ClassifierArgument,
    DeviceOption,
    ImagesArgument,
    JsonOption,
    ModelOption,
    MovedDataOption,
    NoCheckOption,
    PreprocessingOption,
    SourceArgument,
    check_order,
    class_names,
    none_read,
    preprocessing_fields,
    print_json,
    print_predictions,
    print_text,
    terminal,
)
from residua.cli.options import parse_assignments
from residua.errors import ResiduaError, UsageError
from residua.system.files import check_output, user_path, write_atomically


def evaluate(
    source: ClassifierArgument,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Labelled images to evaluate on, as for train. Optional for a run folder: its "
            "own test set, or its validation set if it has no test set.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    model: ModelOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
    moved: MovedDataOption = None,
    device: DeviceOption = None,
    no_check: NoCheckOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Evaluate a run or weights: accuracy (95 % CI), per-class metrics, confusion matrix.

    Examples:
      residua evaluate runs/photos-1
      residua evaluate runs/photos-1 more-photos --json
      residua evaluate model.weights.h5 photos --classes classes.txt
    """
    with terminal():
        from residua.api import training
        from residua.report.text import evaluation_text

        check_order("evaluate", source, [data] if data else [])
        of_data = [text for text in preprocessing or () if text.strip().startswith("data.")]
        fields = [text for text in preprocessing or () if text not in of_data]
        evaluation = training.evaluate(
            source,
            data,
            model=model,
            classes=class_names(classes),
            preprocessing=preprocessing_fields(fields),
            settings=parse_assignments(of_data),
            device=device,
            quiet=False,
            data_path=moved,
            check=not no_check,
            allow_code=allow_code,
        )
        if as_json:
            print_json(evaluation.to_json())
        else:
            print_text(evaluation_text(evaluation, unreadable=False))  # there was a warning


def predict(
    source: ClassifierArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Image files, folders, or http(s) URLs.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option(metavar="K", help="Classes per image.", min=1)] = 3,
    form: Annotated[
        Literal["table", "csv", "json"],
        typer.Option("--format", metavar="table|csv|json", help="Output format."),
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=r"Write the rows to a new .csv or .json file. [dim]\[default: to stdout][/dim]",
        ),
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write a PNG of the images with their predictions."),
    ] = None,
    sets: Annotated[
        bool,
        typer.Option(
            "--sets",
            help="Print prediction sets, which contain the true class for 90 % of images.",
        ),
    ] = False,
    coverage: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help=r"Coverage of the prediction sets, e.g. 0.95; implies --sets.",
            show_default=False,
        ),
    ] = None,
    min_probability: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Report images as unknown whose predicted class has a lower probability.",
            min=0,
            max=1,
        ),
    ] = 0.0,
    allow_private: Annotated[
        bool,
        typer.Option("--allow-private", help="Allow URLs in private networks."),
    ] = False,
    device: DeviceOption = None,
    no_check: NoCheckOption = False,
    allow_code: AllowCodeOption = False,
    model: ModelOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
) -> None:
    """Predict the classes of images: one row per file, in the order of the arguments.

    An unreadable file gets a row with the error.

    Examples:
      residua predict runs/photos-1 new.jpg holiday --top 1
      residua predict runs/photos-1 holiday --format csv --grid holiday.png
      residua predict runs/photos-1 holiday --out holiday.csv
      residua predict runs/photos-1 holiday --coverage 0.95
      residua predict imagenet:resnet50 new.jpg
    """
    with terminal() as console:
        from residua.api.prediction import check_coverage, predictions, reading_of
        from residua.runs.sources import open_source
        from residua.uncertainty.prediction_sets import COVERAGE
        from residua.weights.network import default_device

        check_order("predict", source, files)
        if out is not None:
            check_output(out, (".csv", ".json"), files)
            form = _format_of(out, form)
        if sets and coverage is None:
            coverage = COVERAGE

        stream = sys.stdout  # a moving bar takes its place
        if out is not None:
            stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
        names: list[str] = []  # of all images, which are listed with the first prediction
        # on a terminal the rows themselves show the progress
        bar = nullcontext() if stream.isatty() else console.bar("predicting")
        with bar as move:
            chosen = default_device(device)
            given = (model, class_names(classes), preprocessing_fields(preprocessing))
            weights, run = open_source(
                source, *given, console, check=not no_check, allow_code=allow_code
            )
            check_coverage(source, coverage)
            reading = reading_of(weights, run, None, allow_private)
            rows = predictions(
                weights,
                reading,
                files,
                top=top,
                coverage=coverage,
                min_probability=min_probability,
                device=chosen,
                grid=grid,
                console=console,
                progress=move,
                announce=names.extend,
            )
            ranks = min(top, weights.metadata.network.classes)
            images, failed = print_predictions(
                rows, form, ranks, stream, sets=coverage is not None, names=names
            )
        if not images:
            raise ResiduaError(f"{', '.join(files)}: contains no images.")
        if out is not None:
            stream.seek(0)
            write_atomically(user_path(out), stream.read())
            print(out)
        if len(failed) == images:
            raise none_read([(row.file, row.error) for row in failed])
        if failed and form != "table":
            where = "column" if form == "csv" else "key"
            console.warn(
                f"{len(failed):,} of {images:,} images could not be read: see the {where} error"
            )


def _format_of(out: Path, form: str) -> Literal["csv", "json"]:
    """The format of a file of predictions. Raises UsageError if --format is another one."""
    named: Literal["csv", "json"] = "csv" if out.suffix.lower() == ".csv" else "json"
    if form not in ("table", named):
        raise UsageError(f"--out {out}: is a {named} file, so omit --format {form}.")
    return named


def features(
    source: SourceArgument,
    files: ImagesArgument,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="File to write: .npz or .parquet.", show_default=False),
    ],
    stage: Annotated[
        int | None,
        typer.Option(
            metavar="N", help=r"Feature map of this stage, from 1. [dim]\[default: the last][/dim]"
        ),
    ] = None,
    pool_size: Annotated[
        int | None,
        typer.Option(
            "--pool-size",
            metavar="N",
            help=r"Average-pool the map to N x N. [dim]\[default: the head's][/dim]",
            min=1,
        ),
    ] = None,
    old_pool_size: Annotated[int | None, typer.Option("--side", min=1, hidden=True)] = None,
    device: DeviceOption = None,
    model: ModelOption = None,
    preprocessing: PreprocessingOption = None,
) -> None:
    """Write the features of images, one row per file, for other tools.

    Examples:
      residua features imagenet:resnet50 photos --out features.npz
      residua features runs/photos-1 photos --stage 3 --out features.parquet
    """
    with terminal() as console:
        from residua.api import prediction
        from residua.data.table import import_pyarrow
        from residua.evaluation.predict import NO_PARQUET

        check_order("features", source, files)
        check_output(out, (".npz", ".parquet"), files)
        if out.suffix.lower() == ".parquet":
            import_pyarrow(NO_PARQUET)  # fail before the computation, not after it
        out = user_path(out)
        table = prediction.features(
            source,
            files,
            model=model,
            preprocessing=preprocessing_fields(preprocessing),
            stage=stage,
            pool_size=old_pool_size if pool_size is None else pool_size,
            device=device,
            quiet=False,
        )
        for file, reason in table.unreadable:
            console.warn(f"{file} is left out: {reason}")
        table.save(out)
        print(out)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Two or more run folders, or exported files in them.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help=r"Folder to create for the page. [dim]\[default: comparisons/<n>][/dim]",
        ),
    ] = None,
    as_json: JsonOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Compare runs: accuracy on the same images, curves, size, speed, settings.

    Examples:
      residua compare runs/photos-1 runs/photos-2
      residua compare runs/* --json
      residua compare runs/photos-1 runs/photos-1/model-int8.onnx
    """
    with terminal():
        from residua.comparison import compare

        comparison = compare.compare(*runs, out=out, allow_code=allow_code)
        if as_json:
            print_json(comparison.to_json())
        else:
            print_text(comparison.text())
