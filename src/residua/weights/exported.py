"""An exported file -> a function from uint8 images to its outputs; without torch.

Each format runs in its own runtime: ONNX Runtime, OpenVINO, torch.export or TorchScript.
"""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.dataset import Pixels
from residua.errors import ResiduaError
from residua.system.console import printable
from residua.system.openvino_import import openvino
from residua.system.signals import preserved_signal_stack

FORMAT = 1  # of the description in the metadata
DESCRIPTION = "residua.json"  # its name in the files that PyTorch runs
PROGRAMS = (".pt2", ".torchscript")

# Of an exported network: logits and probabilities, float32 [N, K]; features, float32 [N, D], where
# a detector of unknown images reads them.
OUTPUTS = ("logits", "probabilities", "features")
Outputs = tuple[npt.NDArray[np.float32], ...]


@dataclass(frozen=True)
class Loaded:
    """An exported file, ready to run.

    run: uint8 [N, S, S, C], N >= 1 -> OUTPUTS. description: its metadata. kind: name of the format.
    runtime: name and version. image_shape, widths: (S, S, C), and K or D of each of the OUTPUTS,
    as the program itself states them.
    """

    run: Callable[[Pixels], Outputs]
    description: dict[str, Any]
    kind: str
    runtime: str
    image_shape: tuple[object, ...]
    widths: Mapping[str, object]


def is_exported(path: Path) -> bool:
    """Whether a file has the suffix of an exported file; a .pt2 or .torchscript file also needs the
    description that `residua export` adds."""
    suffix = path.suffix.lower()
    if suffix not in PROGRAMS:
        return suffix in (".onnx", ".xml") and path.is_file()
    with suppress(OSError, ValueError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(name.endswith(f"/extra/{DESCRIPTION}") for name in archive.namelist())
    return False


def load_exported(path: Path, *, allow_code: bool = False) -> Loaded:
    """Load a file by its suffix.

    allow_code: load .pt2 and .torchscript files, which are programs: PyTorch unpickles a .pt2 file
    without restrictions, and a TorchScript program may write files while it is loaded.

    Raises ResiduaError if the runtime is missing, the file is not one that `residua export` wrote,
    or is a program that is not allowed.
    """
    if path.suffix.lower() in PROGRAMS and not allow_code:
        raise ResiduaError(
            f"{path}: is a program of PyTorch, and loading it can run any code in it. If you "
            "exported it yourself or trust its author, predict, evaluate, serve and compare run it "
            "with --allow-code (Python: allow_code=True). Else use the run that it was exported "
            "from, or an .onnx or .xml file."
        )
    loaders = {
        ".onnx": _onnx,
        ".xml": _openvino,
        ".pt2": _torch_program,
        ".torchscript": _torch_program,
    }
    return loaders[path.suffix.lower()](path)


def missing_package(package: str, packages: str) -> ResiduaError:
    """The error where an optional package is not installed. packages: all that the format needs."""
    return ResiduaError(f"this format needs {package}: pip install {packages}")


def _onnx(path: Path) -> Loaded:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("onnxruntime", "onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with _readable(path, "an ONNX model"):
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        metadata = session.get_modelmeta().custom_metadata_map
        (images,) = session.get_inputs()
        widths = {output.name: output.shape[-1] for output in session.get_outputs()}
        names = [name for name in OUTPUTS if name in widths]

    def run(pixels: Pixels) -> Outputs:
        return tuple(session.run(names, {images.name: pixels}))

    return Loaded(
        run,
        _described(path, metadata),
        "ONNX",
        f"ONNX Runtime {onnxruntime.__version__}",
        tuple(images.shape[1:]),
        widths,
    )


def _openvino(path: Path) -> Loaded:
    try:
        package = openvino()
    except ImportError as error:
        raise missing_package("openvino", "openvino") from error
    with path.open("rb") as stream:
        if b"<net" not in stream.read(1000):  # else OpenVINO tries the formats of other frameworks
            raise ResiduaError(f"{path}: is not an OpenVINO model. Export it again from its run.")
    core = package.Core()
    with _readable(path, "an OpenVINO model"):
        model = core.read_model(path)
        metadata = model.get_rt_info("residua").value if model.has_rt_info("residua") else None
        # float32 whatever the processor offers: figures agree on every machine
        with preserved_signal_stack():
            compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        (_, *image_shape) = _lengths(compiled.input(0))
        widths = {  # an output may have several names
            name: _lengths(output)[-1] for output in compiled.outputs for name in output.get_names()
        }
        names = [name for name in OUTPUTS if name in widths]

    def run(pixels: Pixels) -> Outputs:
        results = compiled([pixels])
        return tuple(np.array(results[name]) for name in names)

    version = package.__version__.split("-")[0]
    return Loaded(
        run,
        _described(path, {"residua": metadata}),
        "OpenVINO",
        f"OpenVINO {version}",
        tuple(image_shape),
        widths,
    )


def _lengths(port: Any) -> list[object]:
    """The shape of an input or output of OpenVINO; None for any length."""
    return [None if side.is_dynamic else side.get_length() for side in port.partial_shape]


def _torch_program(path: Path) -> Loaded:
    """A .pt2 or .torchscript file."""
    import torch

    kind = "torch.export" if path.suffix.lower() == ".pt2" else "TorchScript"
    metadata = {DESCRIPTION: ""}
    program: Any
    with _readable(path, f"a {kind} program"), warnings.catch_warnings(), _logged_errors_raised():
        warnings.simplefilter("ignore")  # torch.jit.load is deprecated
        if kind == "torch.export":
            program = torch.export.load(path, extra_files=metadata).module()
        else:
            program = torch.jit.load(path, "cpu", metadata)  # type: ignore[no-untyped-call]

    def run(pixels: Pixels) -> Outputs:
        with torch.inference_mode():
            outputs = program(torch.from_numpy(np.ascontiguousarray(pixels)))
        return tuple(output.numpy() for output in outputs)

    description = _described(path, {"residua": metadata[DESCRIPTION]})
    with _readable(path, f"a {kind} program"):  # which states the shapes of its outputs nowhere
        rule = description["preprocessing"]
        shape = rule["size"], rule["size"], rule["channels"]
        logits, probabilities, *features = run(np.zeros((1, *shape), np.uint8))
        outputs = (logits, probabilities, *features)
        widths = {name: rows.shape[-1] for name, rows in zip(OUTPUTS, outputs, strict=False)}
    return Loaded(run, description, kind, f"{kind} of PyTorch {torch.__version__}", shape, widths)


def _described(path: Path, metadata: Mapping[str, str | None]) -> dict[str, Any]:
    """The description in the metadata. Raises ResiduaError if there is none that can be used."""
    try:
        values = json.loads(metadata.get("residua") or "null")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ResiduaError(
            f"{path}: was not written by `residua export`: its metadata has no description of "
            f"format {FORMAT}. Export it again from its run."
        )
    return values


@contextmanager
def _logged_errors_raised() -> Iterator[None]:
    """torch.export logs why a file cannot be read, with a traceback, and raises another error."""

    def check(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            raise record.exc_info[1]
        return True

    logger = logging.getLogger("torch.export")
    logger.addFilter(check)
    try:
        yield
    finally:
        logger.removeFilter(check)


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a runtime raises on a damaged file into a ResiduaError."""
    try:
        yield
    except Exception as error:
        reason = printable(" ".join(str(error).split())[-240:])
        raise ResiduaError(f"{path}: cannot be read as {kind}: {reason}") from error
