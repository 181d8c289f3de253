"""A classifier -> a file of each format, by one exporter or the other.

PyTorch's newer exporter (torch.export, "dynamo") has written networks that compute something else
(pytorch/pytorch issues 166797, 169178), so each format has a second one that traces the network.
"""

from __future__ import annotations

import importlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from residua.data.dataset import Pixels
from residua.exports.classifier import INPUT, Classifier, Precision
from residua.exports.quantisation import quantise
from residua.inference import openvino
from residua.system import openvino_import
from residua.weights.exported import DESCRIPTION, missing_package

# (classifier, example uint8 [2, S, S, C], description as JSON, file to write)
Exporter = Callable[[Classifier, Tensor, str, Path], None]

FormatName = Literal["onnx", "openvino", "pt2", "torchscript"]
OPSET = 18  # of ONNX; every runtime since 2023 reads it


@dataclass(frozen=True)
class Format:
    """A file format.

    title: for the user. suffix: of its files; a second file has `companion`. packages: that it
    needs. exporters: by description, the preferred one first. precisions: that it can have.
    """

    title: str
    suffix: str
    packages: tuple[str, ...]
    exporters: Mapping[str, Exporter]
    precisions: tuple[Precision, ...]
    companion: str = ""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of its files, the one that users name last."""
        return (self.companion, self.suffix) if self.companion else (self.suffix,)

    def check_installed(self) -> None:
        """Raise ResiduaError if a package is missing."""
        for package in self.packages:
            try:
                if package == "openvino":
                    openvino_import.openvino()
                importlib.import_module(package)
            except ImportError as error:
                raise missing_package(package, " ".join(self.packages)) from error


def _exported(classifier: Classifier, example: Tensor) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim.DYNAMIC}
    return torch.export.export(classifier, (example,), dynamic_shapes=(batch,))


def _onnx_from_export(
    classifier: Classifier, example: Tensor, description: str, file: Path
) -> None:
    program = torch.onnx.export(
        classifier,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: "N"},),
        input_names=[INPUT],
        output_names=list(classifier.outputs),
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    program.save(str(file), external_data=False)
    _describe_onnx(file, description)


def _onnx_from_trace(classifier: Classifier, example: Tensor, description: str, file: Path) -> None:
    torch.onnx.export(
        classifier,
        (example,),
        str(file),
        dynamo=False,
        dynamic_axes={name: {0: "N"} for name in (INPUT, *classifier.outputs)},
        input_names=[INPUT],
        output_names=list(classifier.outputs),
        opset_version=OPSET,
    )
    _describe_onnx(file, description)


def _describe_onnx(file: Path, description: str) -> None:
    import onnx

    model = onnx.load(file)
    onnx.helper.set_model_props(model, {"residua": description})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _openvino_from_export(
    classifier: Classifier, example: Tensor, description: str, file: Path
) -> None:
    openvino_import.openvino()
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    decoder = TorchFXPythonDecoder.from_exported_program(_exported(classifier, example))
    _save_openvino(openvino.from_decoder(decoder, example), classifier, description, file)


def _openvino_from_trace(
    classifier: Classifier, example: Tensor, description: str, file: Path
) -> None:
    _save_openvino(openvino.from_trace(classifier, example), classifier, description, file)


def _save_openvino(model: Any, classifier: Classifier, description: str, file: Path) -> None:
    model.inputs[0].tensor.set_names({INPUT})
    for output, name in zip(model.outputs, classifier.outputs, strict=True):
        output.tensor.set_names({name})
    model.set_rt_info(description, "residua")
    openvino_import.openvino().save_model(model, file, compress_to_fp16=classifier.half_precision)


def _torch_export(classifier: Classifier, example: Tensor, description: str, file: Path) -> None:
    program = _exported(classifier, example)
    stream = io.BytesIO()  # on a full disk, PyTorch's own writer of files ends the process
    torch.export.save(program, stream, extra_files={DESCRIPTION: description})
    file.write_bytes(stream.getbuffer())


def _torchscript(classifier: Classifier, example: Tensor, description: str, file: Path) -> None:
    with torch.no_grad():
        program = torch.jit.trace(classifier, (example,), check_trace=False)  # type: ignore[no-untyped-call]
    stream = io.BytesIO()
    torch.jit.save(program, stream, _extra_files={DESCRIPTION: description})
    file.write_bytes(stream.getbuffer())


def int8_exporters(name: FormatName, pixels: Pixels) -> dict[str, Exporter]:
    """The exporters of int8 files of a format. pixels: training images, uint8 [N, S, S, C]."""
    exporters = FORMATS["onnx"].exporters
    return {key: partial(_int8, name, pixels, write) for key, write in exporters.items()}


def _int8(
    name: FormatName,
    pixels: Pixels,
    write: Exporter,
    classifier: Classifier,
    example: Tensor,
    description: str,
    file: Path,
) -> None:
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        plain, int8 = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        write(classifier, example, description, plain)
        quantise(plain, int8, pixels)
        if name == "onnx":
            _describe_onnx(int8, description)
            int8.replace(file)
        else:
            _save_openvino(openvino.read(int8), classifier, description, file)


FORMATS: Mapping[FormatName, Format] = {
    "onnx": Format(
        "ONNX",
        ".onnx",
        ("onnx", "onnxscript", "onnxruntime"),
        {"torch.export (dynamo)": _onnx_from_export, "TorchScript": _onnx_from_trace},
        ("fp32", "fp16", "int8"),
    ),
    "openvino": Format(
        "OpenVINO",
        ".xml",
        ("openvino",),
        {"torch.export (dynamo)": _openvino_from_export, "TorchScript": _openvino_from_trace},
        ("fp32", "fp16", "int8"),
        companion=".bin",
    ),
    "pt2": Format(
        "torch.export", ".pt2", (), {"torch.export (dynamo)": _torch_export}, ("fp32", "fp16")
    ),
    "torchscript": Format(
        "TorchScript", ".torchscript", (), {"TorchScript": _torchscript}, ("fp32", "fp16")
    ),
}


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Without the notes of the exporters of PyTorch and OpenVINO, which are for their developers.

    OpenVINO uses the root logger, and prints tracebacks of errors that it has handled.
    """
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
