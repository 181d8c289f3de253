"""Weights -> a file of another format under its final name, once it agrees with PyTorch."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from residua.config.schema import Preprocessing
from residua.data.dataset import Pixels
from residua.errors import ResiduaError, UsageError
from residua.exports.classifier import Classifier, Precision, description, detector_of
from residua.exports.formats import (
    FORMATS,
    Exporter,
    Format,
    FormatName,
    int8_exporters,
    quiet_exporters,
)
from residua.exports.images import AT_LEAST, Images, held_out_images, images_of
from residua.exports.proof import Expected, Proof, compare
from residua.exports.quantisation import CALIBRATION_IMAGES
from residua.inference.outputs import classifier_of, featured_classifier
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.system.files import (
    Unwritable,
    check_output,
    check_space,
    check_writable,
    unwritable,
    user_path,
    write_atomically,
)
from residua.weights.load import Weights
from residua.weights.network import default_device

DEFAULT_FORMAT: FormatName = "onnx"


@dataclass(frozen=True)
class Exported:
    """An exported file.

    path: the file. format: "onnx", "openvino", "pt2" or "torchscript". precision: "fp32", "fp16" or
    "int8". preprocessing: how an image becomes its input. exporter: that wrote it. rejected:
    exporter -> why its file was refused. proof: the comparison with PyTorch.
    """

    path: Path
    format: FormatName
    precision: Precision
    preprocessing: Preprocessing = field(repr=False)
    exporter: str
    rejected: dict[str, str]
    proof: Proof = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The object that `residua export --json` prints."""
        return {
            "path": str(self.path),
            "format": self.format,
            "precision": self.precision,
            "exporter": self.exporter,
            "rejected": self.rejected,
            "proof": self.proof.to_json(),
        }


def write_export(
    weights: Weights,
    run: RunFolder | None,
    console: Console,
    *,
    format: FormatName | None = None,
    precision: Precision = "fp32",
    out: Path | None = None,
) -> Exported:
    """Write weights as a file of another format.

    The file is written to the system's temporary folder, run by its own runtime in a fresh process
    on the run's held-out images, and copied if it agrees with PyTorch. run: of the weights, if any.
    format: None: by the suffix of `out`, else "onnx". out: None: in the run's folder, else in the
    working directory. Raises ResiduaError with the numbers if no exporter writes a correct file.
    """
    name = _format_name(format, out)
    kind = FORMATS[name]
    _check_precision(kind, precision)
    kind.check_installed()
    exporters, path = kind.exporters, _path(weights, run, kind, precision, out)
    if out is not None or run is None:
        inputs = [weights.path] if run is None else [run.config.data.path]
        for suffix in kind.suffixes:
            check_output(path.with_suffix(suffix), (suffix,), inputs)
    check_writable(path.parent)
    if precision == "int8":
        FORMATS["onnx"].check_installed()  # OpenVINO's int8 files are converted from ONNX
        if run is None:
            raise ResiduaError(
                f"{weights.path}: int8 is calibrated on training images, which only a run records: "
                "export a run, or choose another --precision."
            )
        members = run.read_split()
        calibration = images_of(weights, run, members, "train", console, CALIBRATION_IMAGES)
        exporters = int8_exporters(name, calibration.pixels)
    images = held_out_images(weights, run, console)
    expected = _expected(weights, images.padded())
    rejected: dict[str, str] = {}
    with _temporary_folder() as folder:
        file = Path(folder, path.name)
        for exporter, write in exporters.items():
            try:
                proof = _proved(write, weights, precision, images, expected, file)
                if not proof.problem and (reason := proof.detector_problem):
                    console.caution(f"the file does not detect unknown images: {reason}")
                    weights = _without_detector(weights)
                    proof = _proved(write, weights, precision, images, expected, file)
            except Unwritable:
                raise
            except ResiduaError as error:
                rejected[exporter] = str(error)
            else:
                if not proof.problem:
                    for suffix in kind.suffixes:  # the companion first
                        content = file.with_suffix(suffix).read_bytes()
                        write_atomically(path.with_suffix(suffix), content)
                    rule = weights.metadata.preprocessing
                    return Exported(path, name, precision, rule, exporter, rejected, proof)
                rejected[exporter] = f"{proof.problem} ({proof.text().splitlines()[0]})"
            console.caution(f"the file of exporter {exporter} is refused: {rejected[exporter]}")
    reasons = "; ".join(f"{exporter}: {reason}" for exporter, reason in rejected.items())
    raise ResiduaError(
        f"{path}: not written, because no {kind.title} file computes what PyTorch does. {reasons}. "
        "Choose another --format or --precision."
    )


def _format_name(format: FormatName | None, out: Path | None) -> FormatName:
    """The name of the format. Raises UsageError if it is unknown or contradicts the suffix."""
    suffixes = {kind.suffix: name for name, kind in FORMATS.items()}
    if format is None:
        format = suffixes.get(out.suffix, DEFAULT_FORMAT) if out else DEFAULT_FORMAT
    if format not in FORMATS:
        raise UsageError(f"format {format!r}: expected {', '.join(FORMATS)}.")
    suffix = FORMATS[format].suffix
    if out is not None and out.suffix != suffix:
        raise UsageError(f"--out {out}: expected a name that ends in {suffix} for {format}.")
    return format


def _check_precision(kind: Format, precision: str) -> None:
    """Raise UsageError if the format does not have it."""
    if precision not in get_args(Precision):
        raise UsageError(f"precision {precision!r}: expected {', '.join(get_args(Precision))}.")
    if precision not in kind.precisions:
        raise UsageError(
            f"{kind.title} files are exported in {' or '.join(kind.precisions)}, not in "
            f"{precision}: choose another --format or --precision."
        )


def _path(
    weights: Weights, run: RunFolder | None, kind: Format, precision: Precision, out: Path | None
) -> Path:
    if out is not None:
        return user_path(out)
    stem = weights.path.name.split(".")[0] if run is None else "model"
    name = stem + ("" if precision == "fp32" else f"-{precision}") + kind.suffix
    return Path(name) if run is None else run.path / name


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """In the system's folder for such. Raises Unwritable."""
    try:
        return tempfile.TemporaryDirectory(prefix="residua-export-")
    except OSError as error:
        raise unwritable(Path("TMPDIR, the folder for temporary files"), error) from error


def _proved(
    write: Exporter,
    weights: Weights,
    precision: Precision,
    images: Images,
    expected: Expected,
    file: Path,
) -> Proof:
    """Write the file and compare it. Raises ResiduaError, whatever the exporter raises."""
    classifier = Classifier(weights, precision)
    text = json.dumps(description(weights, precision), ensure_ascii=False)
    example = torch.from_numpy(images.padded()[:2])
    try:
        with quiet_exporters():
            write(classifier, example, text, file)
    except Exception as error:
        check_space(file.parent, sum(tensor.nbytes for tensor in weights.tensors.values()))
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ResiduaError(f"it cannot write the network: {reason}") from error
    return compare(file, images, expected, precision)


def _without_detector(weights: Weights) -> Weights:
    """The weights without their detector of unknown images, which they have."""
    uncertainty = weights.metadata.uncertainty
    assert uncertainty is not None
    uncertainty = dataclasses.replace(uncertainty, unknown=None)
    metadata = dataclasses.replace(weights.metadata, uncertainty=uncertainty)
    return dataclasses.replace(weights, metadata=metadata)


def _expected(weights: Weights, pixels: Pixels) -> Expected:
    """The outputs of PyTorch in float32."""
    detector, starts = detector_of(weights), range(0, len(pixels), AT_LEAST)
    batches = (pixels[start : start + AT_LEAST] for start in starts)
    if detector is None:
        classify = classifier_of(weights, default_device(), images=0)
        return Expected(np.concatenate([classify(batch) for batch in batches]))
    run = featured_classifier(weights, default_device(), images=0)
    logits, features = (
        np.concatenate(rows) for rows in zip(*(run(batch) for batch in batches), strict=True)
    )
    return Expected(logits, detector.is_unknown(features, logits))
