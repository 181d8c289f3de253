"""A run or weights -> a file for another runtime, an HTTP server, or a repository."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from residua.api.prediction import Source
from residua.errors import UsageError
from residua.exports.classifier import Precision
from residua.exports.export import Exported, write_export
from residua.exports.formats import FormatName
from residua.exports.push import push_run
from residua.networks.own import ModelLike
from residua.report.model_card import model_card
from residua.runs.folder import RunFolder
from residua.runs.sources import open_source
from residua.serving.limits import Limits
from residua.serving.server import check_installed, serve_application
from residua.serving.service import Model
from residua.system.console import Console
from residua.weights.hub import checked_name
from residua.weights.load import Weights
from residua.weights.network import default_device

if TYPE_CHECKING:
    import torch
    from fastapi import FastAPI

_Reopen = Callable[[Console], tuple[Weights, object]]


def export(
    source: Source,
    *,
    format: FormatName | None = None,
    precision: Precision = "fp32",
    out: str | Path | None = None,
    model: ModelLike | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    check: bool = True,
    quiet: bool = True,
) -> Exported:
    """Export a classifier to another runtime, as a file that takes uint8 images.

    The file is written only if it agrees with PyTorch on the run's held-out images.

    source, model, classes, preprocessing, check, quiet: see `evaluate`.
    format: "onnx", "openvino", "pt2" or "torchscript"; None: by the suffix of `out`, else "onnx".
    precision: "fp32", "fp16" or "int8".
    out: a new file; None: model.<suffix> in the run's folder, else in the working directory.

    Raises ResiduaError, with the differences if the file does not compute what PyTorch does.
    """
    weights, folder = open_source(
        source, model, classes, preprocessing, Console(quiet), check=check
    )
    target = None if out is None else Path(out)
    return write_export(
        weights, folder, Console(quiet), format=format, precision=precision, out=target
    )


def push(run: Source, repository: str, *, private: bool = False) -> str:
    """Upload a run to Hugging Face: model card, weights, and descriptions in JSON.

    run: a run or its folder. repository: OWNER/NAME, created if necessary; hub:OWNER/NAME then
    is a source of its weights. private: of a new repository. Needs the extra `hub` and a token.

    Returns the address of the repository. Raises ResiduaError.
    """
    folder = RunFolder.existing(run)
    card = model_card(folder, checked_name(repository))
    return push_run(folder, repository, card, private=private)


def serve(
    source: Source,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    max_bytes: int = Limits.bytes,
    max_pixels: int | None = None,
    max_requests: int = Limits.requests,
    timeout: float = Limits.seconds,
    workers: int | None = None,
    model: ModelLike | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    device: str | None = None,
    check: bool = True,
    allow_code: bool = False,
    quiet: bool = False,
) -> None:
    """Serve a classifier over HTTP until SIGINT or SIGTERM; needs the extra `serve`.

    source, model, classes, preprocessing, device, check, allow_code, quiet: see `evaluate`.
    host, port: address to listen on; port 0 is any free one.
    token: bearer token that clients must send.
    max_bytes, max_requests, timeout: bytes and seconds of a request, requests at the same time.
    max_pixels: of an image; None: as in the run's settings.
    workers: processes, each with the model and these limits; one that ends is replaced. None: no
        other process.

    Raises ResiduaError if the weights or the address cannot be used.
    """
    check_installed()
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise UsageError(f"workers = {workers!r}: must be at least 1.")
    console, chosen = Console(quiet), default_device(device)
    weights, folder = open_source(
        source, model, classes, preprocessing, console, check=check, allow_code=allow_code
    )
    name = folder.path.resolve().name if folder else weights.path.name.split(".")[0]
    if max_pixels is None:
        max_pixels = folder.config.data.max_pixels if folder else Limits.pixels
    limits = Limits(bytes=max_bytes, pixels=max_pixels, requests=max_requests, seconds=timeout)
    opened: Weights | _Reopen = weights
    if workers is not None:  # each worker reads the weights itself
        given = os.fspath(source), model, classes, preprocessing
        opened = partial(open_source, *given, check=check, allow_code=allow_code)
        del weights
    serve_application(
        partial(_application, opened, name, chosen, limits, token, quiet),
        name,
        console,
        host=host,
        port=port,
        limits=limits,
        token=token,
        workers=workers,
    )


def _application(
    opened: Weights | _Reopen,
    name: str,
    device: torch.device,
    limits: Limits,
    token: str | None,
    quiet: bool,
) -> FastAPI:
    """opened: the weights, or how a worker reads them; warnings were printed before it started."""
    from residua.serving.app import create_app

    weights = opened if isinstance(opened, Weights) else opened(Console(quiet=True))[0]
    model = Model.of(weights, name, device)
    return create_app(model, limits, token=token, report=Console(quiet).error)
