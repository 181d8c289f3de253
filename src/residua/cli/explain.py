"""`residua explain`: where the evidence for a class is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residua.cli.common import (
    ClassesOption,
    DeviceOption,
    ImagesArgument,
    ModelOption,
    PreprocessingOption,
    SourceArgument,
    check_order,
    class_names,
    none_read,
    preprocessing_fields,
    print_text,
    terminal,
)
from residua.errors import ResiduaError


def explain(
    source: SourceArgument,
    files: ImagesArgument,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="NAME", help=r"Class to explain. [dim]\[default: predicted][/dim]"
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE.png", help="Figure of the first 32 images.")
    ] = Path("explanation.png"),
    device: DeviceOption = None,
    model: ModelOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
) -> None:
    """Draw heat maps of the evidence for a class in images (Grad-CAM).

    Examples:
      residua explain runs/photos-1 new.jpg
      residua explain runs/photos-1 holiday --class owl --out owl.png
    """
    with terminal():
        from residua.api import explanation
        from residua.system.words import percent

        check_order("explain", source, files)
        rows = explanation.explain(
            source,
            files,
            class_name=class_name,
            out=out,
            model=model,
            classes=class_names(classes),
            preprocessing=preprocessing_fields(preprocessing),
            device=device,
            quiet=False,
        )
        width = max((len(row.file) for row in rows), default=0)
        for row in rows:
            text = f"{row.class_name} {percent(row.probability, 1)}"
            if row.unknown is not None:
                text += f"; unknown: {row.unknown}"
            if row.error is not None:
                text = f"error: {row.error}"
            print_text(f"{row.file:<{width}}  {text}")
        if not rows:
            raise ResiduaError(f"{', '.join(files)}: contains no images.")
        if all(row.error is not None for row in rows):
            raise none_read([(row.file, row.error) for row in rows])
        print(out)
