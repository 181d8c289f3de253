"""A run or weights -> a file for another runtime, or an HTTP server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from residua.api.prediction import Source
from residua.exports.export import Exported, write_export
from residua.runs.sources import open_source
from residua.serving.limits import Limits
from residua.serving.server import check_installed, serve_model
from residua.serving.service import Model
from residua.system.console import Console
from residua.system.files import check_output


def export(
    source: Source,
    *,
    format: str | None = None,
    precision: str = "fp32",
    out: str | Path | None = None,
    model: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    quiet: bool = True,
) -> Exported:
    """Export a classifier to another runtime, as a file that takes uint8 images.

    The file is written only if it agrees with PyTorch on the run's held-out images.

    source, model, classes, preprocessing, quiet: see `evaluate`.
    format: "onnx", "openvino", "pt2" or "torchscript"; None: by the suffix of `out`, else "onnx".
    precision: "fp32", "fp16" or "int8".
    out: a new file; None: model.<suffix> in the run's folder, else in the working directory.

    Raises ResiduaError, with the differences if the file does not compute what PyTorch does.
    """
    weights, folder = open_source(source, model, classes, preprocessing, Console(quiet))
    target = None if out is None else Path(out)
    if target is not None:
        inputs = [weights.path] if folder is None else [folder.config.data.path]
        check_output(target, (target.suffix.lower(),), inputs)
    return write_export(
        weights, folder, Console(quiet), format=format, precision=precision, out=target
    )


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
    model: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    quiet: bool = False,
) -> None:
    """Serve a classifier over HTTP until SIGINT or SIGTERM; needs the extra `serve`.

    source, model, classes, preprocessing, quiet: see `evaluate`.
    host, port: address to listen on; port 0 is any free one.
    token: bearer token that clients must send.
    max_bytes, max_requests, timeout: bytes and seconds of a request, requests at the same time.
    max_pixels: of an image; None: as in the run's settings.

    Raises ResiduaError if the weights or the address cannot be used.
    """
    check_installed()
    console = Console(quiet)
    weights, folder = open_source(source, model, classes, preprocessing, console)
    name = folder.path.resolve().name if folder else weights.path.name.split(".")[0]
    if max_pixels is None:
        max_pixels = folder.config.data.max_pixels if folder else Limits.pixels
    limits = Limits(bytes=max_bytes, pixels=max_pixels, requests=max_requests, seconds=timeout)
    served = Model.of(weights, name)
    serve_model(served, console, host=host, port=port, limits=limits, token=token)
