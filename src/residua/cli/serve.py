"""The command that serves a classifier over HTTP: serve."""

from __future__ import annotations

from typing import Annotated

import typer

from residua.cli.common import (
    AllowCodeOption,
    ClassesOption,
    ClassifierArgument,
    DeviceOption,
    ModelOption,
    NoCheckOption,
    PreprocessingOption,
    class_names,
    preprocessing_fields,
    terminal,
)

LIMITS = "Limits"


def serve(
    source: ClassifierArgument,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port; 0 for any free one.", min=0, max=65535)
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Bearer token that clients must send; also from RESIDUA_TOKEN.",
            envvar="RESIDUA_TOKEN",
            show_default=False,
            show_envvar=False,
        ),
    ] = None,
    max_bytes: Annotated[
        int,
        typer.Option(metavar="N", help="Largest request in bytes.", min=1, rich_help_panel=LIMITS),
    ] = 32 * 2**20,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=r"Largest image in pixels. [dim]\[default: as in training][/dim]",
            min=1,
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_requests: Annotated[
        int,
        typer.Option(metavar="N", help="Concurrent requests.", min=1, rich_help_panel=LIMITS),
    ] = 32,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Longest time of a request.", min=0.1, rich_help_panel=LIMITS
        ),
    ] = 30.0,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes, each with its own copy of the model; one that ends is replaced.",
            min=1,
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = None,
    model: ModelOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
    no_check: NoCheckOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Serve a classifier over HTTP: a page for images, and predictions as JSON.

    POST /predict returns the rows of `residua predict --format json`; /v2 is the Open Inference
    Protocol, /metrics is for Prometheus, /docs describes everything.

    Examples:
      residua serve runs/photos-1
      residua serve runs/photos-1 --host 0.0.0.0 --port 80 --token SECRET
    """
    with terminal():
        from residua.api import deployment

        deployment.serve(
            source,
            host=host,
            port=port,
            token=token,
            max_bytes=max_bytes,
            max_pixels=max_pixels,
            max_requests=max_requests,
            timeout=timeout,
            workers=workers,
            model=model,
            classes=class_names(classes),
            preprocessing=preprocessing_fields(preprocessing),
            device=device,
            check=not no_check,
            allow_code=allow_code,
        )
