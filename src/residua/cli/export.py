"""Commands that take a classifier elsewhere: export, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from residua.cli.common import (
    ClassesOption,
    JsonOption,
    ModelOption,
    NoCheckOption,
    PreprocessingOption,
    RunArgument,
    SourceArgument,
    class_names,
    preprocessing_fields,
    print_json,
    print_text,
    terminal,
)
from residua.errors import UsageError


def export(
    source: SourceArgument,
    form: Annotated[
        Literal["onnx", "openvino", "pt2", "torchscript"] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="onnx, openvino, pt2 (torch.export) or torchscript. "
            r"[dim]\[default: by the name of --out, else onnx][/dim]",
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            metavar="PRECISION",
            help="fp32, fp16 or int8 (calibrated on training images of the run).",
        ),
    ] = "fp32",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write: .onnx, .xml (OpenVINO), .pt2 or .torchscript. "
            r"[dim]\[default: in the run folder][/dim]",
        ),
    ] = None,
    example: Annotated[
        bool,
        typer.Option(
            "--example",
            help="Print a Python script that predicts with the ONNX file, without residua.",
        ),
    ] = False,
    as_json: JsonOption = False,
    model: ModelOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
    no_check: NoCheckOption = False,
) -> None:
    """Export a classifier to ONNX, OpenVINO, torch.export or TorchScript.

    The file takes uint8 images and normalises them itself. It is written only if it agrees with
    PyTorch on the run's held-out images, in its own runtime.

    Examples:
      residua export runs/photos-1
      residua export runs/photos-1 --format openvino --precision fp16
      residua export runs/photos-1 --example
    """
    with terminal() as console:
        from residua.api import deployment
        from residua.exports.example import script

        if example and (as_json or form not in (None, "onnx")):
            raise UsageError("--example is a script for ONNX files: omit --json and --format.")
        exported = deployment.export(
            source,
            format=form,
            precision=precision,
            out=out,
            model=model,
            classes=class_names(classes),
            preprocessing=preprocessing_fields(preprocessing),
            check=not no_check,
            quiet=False,
        )
        console.print(exported.proof.text())
        if example:
            print(script(exported.path, exported.preprocessing), end="")
        elif as_json:
            print_json(exported.to_json())
        else:
            print_text(exported.path)


def push(
    run: RunArgument,
    repository: Annotated[
        str,
        typer.Argument(
            metavar="REPO", help="Repository OWNER/NAME on Hugging Face.", show_default=False
        ),
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
) -> None:
    """Upload a run to Hugging Face: model card, weights, and descriptions in JSON.

    hub:OWNER/NAME is then a source of weights for every command. Needs huggingface_hub and a
    token (`hf auth login`, or HF_TOKEN).

    Examples:
      residua push runs/photos-1 me/photos
      residua predict hub:me/photos new.jpg
    """
    with terminal():
        from residua.api import deployment

        print_text(deployment.push(run, repository, private=private))
