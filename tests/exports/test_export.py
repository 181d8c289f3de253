"""An exported file agrees with PyTorch in its own runtime, or it does not get its name."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from references.command_line import residua
from references.images import write_shapes

from residua.data.prepare import prepare
from residua.errors import ResiduaError
from residua.evaluation.calibrate import calibrate
from residua.evaluation.evaluate import evaluate_run
from residua.evaluation.inputs import Reading, inputs_of
from residua.evaluation.predict import predict_images
from residua.evaluation.predictor import Prediction
from residua.exports.classifier import Classifier, description
from residua.exports.export import write_export
from residua.exports.formats import FORMATS, Exporter, FormatName, quiet_exporters
from residua.exports.images import Images
from residua.exports.proof import Expected, proof_of
from residua.exports.worker import outputs_of
from residua.inference.outputs import classifier_of
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.uncertainty.softmax import softmax
from residua.weights.exported import load_exported
from residua.weights.golden import check_golden
from residua.weights.load import Weights, exported_metadata, read_exported, read_file
from residua.weights.native import attached_json

QUIET = Console(quiet=True)
TRACED = "TorchScript"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "fp32") for name in FORMATS), ("onnx", "fp16")]
)
def test_a_file_of_each_format_computes_what_evaluate_does(
    name: str, precision: str, run: RunFolder
) -> None:
    weights = read_file(run.weights)
    exported = write_export(weights, run, QUIET, format=name, precision=precision)
    tolerance = {"fp32": 1e-5, "fp16": 5e-3}[precision]
    assert exported.proof.images == 12
    assert exported.proof.origin == "test images"
    assert exported.proof.difference < tolerance
    assert exported.rejected == {}
    evaluation = evaluate_run(run, None, QUIET)
    assert exported.proof.accuracy == evaluation.metrics.accuracy
    loaded = load_exported(exported.path, allow_code=True)
    logits, probabilities = loaded.run(evaluation.pixels)
    expected = softmax(evaluation.logits)
    np.testing.assert_allclose(softmax(logits), expected, atol=tolerance)
    np.testing.assert_allclose(probabilities, expected, atol=tolerance)
    assert loaded.run(evaluation.pixels[:5])[0].shape == (5, 3)
    assert loaded.description["classes"] == ["class0", "class1", "class2"]
    assert loaded.description["preprocessing"]["size"] == weights.metadata.preprocessing.size
    assert loaded.description["precision"] == precision


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images for a detector of unknown images."""
    return write_shapes(tmp_path_factory.mktemp("many"), 40)


@pytest.fixture
def calibrated(many: Path, write_run: Callable[..., RunFolder]) -> RunFolder:
    """A run with prediction sets, a detector of unknown images and golden images."""
    run = write_run(many, data__val_fraction=0.3)
    prepared = prepare(run.config, QUIET, recorded=run.read_split())
    uncertainty = calibrate(run, prepared, None, QUIET).metadata.uncertainty
    assert uncertainty is not None
    assert uncertainty.unknown is not None
    return run


def known_and_unknown(run: RunFolder) -> list[np.ndarray]:
    """Training images, as thresholds are scores of the validation images exactly; and noise."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    prepared = prepare(run.config, QUIET, recorded=run.read_split())
    return [*prepared.pixels[prepared.splits["train"][:40]], *noise]


def predictions(source: Weights, images: list[np.ndarray]) -> list[Prediction]:
    inputs = inputs_of(images, Reading(source.metadata.preprocessing, 10**6))
    return list(predict_images(source, inputs, coverage=0.8))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_exported_run_keeps_its_sets_unknown_images_and_golden_images(
    name: str, calibrated: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = read_file(calibrated.weights)
    result = write_export(weights, calibrated, QUIET, format=name)
    assert result.proof.unknown_difference == 0
    exported = read_exported(result.path)
    check_golden(exported)
    images = known_and_unknown(calibrated)
    expected, found = (predictions(source, images) for source in (weights, exported))
    assert [row.set for row in found] == [row.set for row in expected]
    assert [row.unknown for row in found] == [row.unknown for row in expected]
    assert {row.unknown for row in found} == {None, "unlike the training images"}
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "where nothing was checked"))
    for change in ({"resize": "pad"}, {"value_range": (0.0, 300.0)}):
        rule = dataclasses.replace(exported.metadata.preprocessing, **change)
        other = dataclasses.replace(exported.metadata, preprocessing=rule)
        with pytest.raises(ResiduaError, match="golden images"):
            check_golden(dataclasses.replace(exported, metadata=other, stamp=exported.stamp))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [("pt2", "fp32"), ("torchscript", "fp32"), ("onnx", "fp16"), ("openvino", "fp16")],
)
def test_a_file_of_each_format_has_the_features_and_the_detector_that_reads_them(
    name: str, precision: str, calibrated: RunFolder
) -> None:
    weights, images = read_file(calibrated.weights), np.stack(known_and_unknown(calibrated))
    file = write_export(weights, calibrated, QUIET, format=name, precision=precision).path
    loaded = load_exported(file, allow_code=True)
    logits, _, features = loaded.run(images)
    stored = exported_metadata(file, loaded.description).uncertainty
    assert stored is not None
    assert stored.unknown is not None
    found = stored.unknown.is_unknown(features, logits)
    expected = [row.unknown is not None for row in predictions(weights, list(images))]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_damaged_detectors_and_files_of_earlier_versions(
    calibrated: RunFolder, with_exporters: Callable[..., None]
) -> None:
    import onnx

    with_exporters(traced=write_traced)
    weights = read_file(calibrated.weights)
    file = write_export(weights, calibrated, QUIET).path
    images = known_and_unknown(calibrated)
    expected = predictions(read_exported(file), images)
    model = onnx.load(file)
    values = json.loads(model.metadata_props[0].value)

    def rewrite(uncertainty: object) -> None:
        text = json.dumps(values | {"uncertainty": uncertainty})
        onnx.helper.set_model_props(model, {"residua": text})
        onnx.save(model, file)

    entry = values["uncertainty"]
    for damage in (
        entry | {"arrays": entry["arrays"][:-8]},
        entry | {"arrays": "no base64"},
        entry | {"unknown": entry["unknown"] | {"features": 15}},
    ):
        rewrite(damage)
        with pytest.raises(ResiduaError, match="cannot be read as the entry uncertainty"):
            read_exported(file)
    uncertainty = weights.metadata.uncertainty
    assert uncertainty is not None
    assert uncertainty.unknown is not None
    arrays = uncertainty.unknown.arrays
    arrays = arrays | {"nci.weight": arrays["nci.weight"][:2]}
    detector = dataclasses.replace(uncertainty.unknown, arrays=arrays)
    other = dataclasses.replace(uncertainty, sets=None, unknown=detector)
    metadata = dataclasses.replace(weights.metadata, uncertainty=other)
    rewrite(attached_json(metadata)["uncertainty"])
    with pytest.raises(ResiduaError, match="3 outputs, but golden images or uncertainty of 2"):
        read_exported(file)
    assert model.graph.output.pop().name == "features"
    rewrite(entry)
    with pytest.raises(ResiduaError, match="has 0 features, but its detector of unknown images"):
        read_exported(file)
    # before, arrays were lists of numbers, and there was no detector
    early, arrays = dataclasses.replace(uncertainty, unknown=None).to_arrays()
    rewrite(early | {"arrays": {key: array.tolist() for key, array in arrays.items()}})
    rows = predictions(read_exported(file), images)
    assert [(row.top, row.set) for row in rows] == [(row.top, row.set) for row in expected]
    assert {row.unknown for row in rows} == {None}


@pytest.fixture
def with_exporters(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the exporters of ONNX files."""

    def replace(**exporters: Exporter) -> None:
        named = {name.replace("_", " "): exporter for name, exporter in exporters.items()}
        kind = dataclasses.replace(FORMATS["onnx"], exporters=named)
        monkeypatch.setitem(FORMATS, "onnx", kind)

    return replace


write_traced = FORMATS["onnx"].exporters[TRACED]


def wrong(classifier: Classifier, example: torch.Tensor, text: str, file: Path) -> None:
    """A network with a wrong bias, as an exporter with a bug would write it."""
    bias = classifier.network.get_parameter("head.bias")
    bias.data[0] += 0.5
    write_traced(classifier, example, text, file)
    bias.data[0] -= 0.5


def one_batch_size(classifier: Classifier, example: torch.Tensor, text: str, file: Path) -> None:
    torch.onnx.export(classifier, (example,), str(file), dynamo=False, opset_version=18)


class OtherFeatures(torch.nn.Module):
    """A classifier whose features are reversed: known images seem unknown."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier, self.outputs = classifier, classifier.outputs

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, probabilities, *features = self.classifier(images)
        return logits, probabilities, *(rows.flip(1) for rows in features)


def other_features(classifier: Classifier, example: torch.Tensor, text: str, file: Path) -> None:
    write_traced(OtherFeatures(classifier), example, text, file)  # type: ignore[arg-type]


def crashing(classifier: Classifier, example: torch.Tensor, text: str, file: Path) -> None:
    raise RuntimeError("unsupported operator aten::whatever")


@pytest.mark.slow
def test_a_wrong_file_is_refused_and_the_second_exporter_is_tried(
    run: RunFolder, with_exporters: Callable[..., None]
) -> None:
    with_exporters(new=wrong, older=write_traced)
    with pytest.warns(
        UserWarning, match=r"exporter new is refused: a probability differs by 0\.0[2-9]"
    ):
        exported = write_export(read_file(run.weights), run, QUIET)
    assert exported.exporter == "older"
    assert exported.proof.difference < 1e-5
    assert list(exported.rejected) == ["new"]


@pytest.mark.slow
def test_a_detector_that_decides_otherwise_is_left_out(
    calibrated: RunFolder, with_exporters: Callable[..., None]
) -> None:
    with_exporters(other=other_features)
    with pytest.warns(
        UserWarning,
        match=r"does not detect unknown images: its decision differs from PyTorch's for \d+\.\d % "
        r"of 24 test images, the limit is 1 %",
    ):
        exported = write_export(read_file(calibrated.weights), calibrated, QUIET)
    assert exported.proof.unknown_difference is None
    assert exported.rejected == {}
    rows = predictions(read_exported(exported.path), known_and_unknown(calibrated))
    assert all(row.unknown is None and row.set for row in rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the file of exporter")
def test_without_a_correct_file_none_is_written_and_an_earlier_one_stays(
    run: RunFolder, with_exporters: Callable[..., None]
) -> None:
    file = run.path / "model.onnx"
    file.write_bytes(b"earlier")
    with_exporters(first=wrong, second=one_batch_size, third=crashing)
    with pytest.raises(ResiduaError) as raised:
        write_export(read_file(run.weights), run, QUIET)
    message = str(raised.value)
    assert "first: a probability differs by 0.0" in message
    assert "the limit is 0.001" in message
    assert "second: it cannot be run" in message
    assert "third: it cannot write the network: unsupported operator" in message
    assert file.read_bytes() == b"earlier"


@pytest.mark.slow
def test_a_file_of_the_user_is_not_replaced(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the named file, nor the second one of OpenVINO, nor one in the working directory."""
    monkeypatch.chdir(tmp_path)
    weights = read_file(run.weights)
    for name, arguments in (
        ("net.onnx", {"out": Path("net.onnx")}),
        ("net.bin", {"out": Path("net.xml")}),
        ("best.torchscript", {"run": None, "format": "torchscript"}),
    ):
        Path(name).write_text("precious")
        with pytest.raises(ResiduaError, match=rf"{name}: exists already"):
            write_export(weights, console=QUIET, **({"run": run} | arguments))  # type: ignore[arg-type]
        assert Path(name).read_text() == "precious"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchscript", "pt2"])
def test_a_file_that_the_disk_does_not_take_is_an_error_of_the_disk(
    name: FormatName, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no fault of the exporter: another one is not tried."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    weights, before = read_file(run.weights), set(run.path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ResiduaError, match="cannot be written: File too large") as raised:
            write_export(weights, run, QUIET, format=name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(raised.value).startswith(f"{folder}: ")
    assert list(folder.glob("residua-*")) == []
    assert set(run.path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, "format 'tflite': expected onnx, openvino, pt2, torchscript"),
        ({"out": Path("a.onnx"), "format": "pt2"}, r"a\.onnx: expected a name that ends in \.pt2"),
        ({"format": "pt2", "precision": "int8"}, "exported in fp32 or fp16, not in int8"),
        ({"precision": "fp8"}, "precision 'fp8': expected fp32, fp16, int8"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(
    arguments: dict[str, object], message: str, run: RunFolder
) -> None:
    with pytest.raises(ResiduaError, match=message):
        write_export(read_file(run.weights), run, QUIET, **arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_weights_alone_are_compared_on_photos(
    write_weights: Callable[..., Path], tmp_path: Path, with_exporters: Callable[..., None]
) -> None:
    with_exporters(traced=write_traced)
    weights = read_file(write_weights(tmp_path / "net.safetensors", 5))
    exported = write_export(weights, None, QUIET, out=tmp_path / "new" / "net.onnx")
    assert exported.path == tmp_path / "new" / "net.onnx"
    assert exported.proof.accuracy is None
    assert exported.proof.images == 32
    assert "sample photos" in exported.proof.text()


@pytest.mark.slow
def test_a_slow_runtime_is_compared_on_fewer_images(run: RunFolder, tmp_path: Path) -> None:
    weights, file = read_file(run.weights), tmp_path / "model.onnx"
    size = weights.metadata.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (70, size, size, 3), np.uint8)
    text = json.dumps(description(weights, "fp32"))
    with quiet_exporters():
        write_traced(Classifier(weights, "fp32"), torch.from_numpy(pixels[:2]), text, file)
    logits = classifier_of(weights, torch.device("cpu"), images=0)(pixels)
    images = Images(pixels, logits.argmax(1).astype(np.int64), "test images")
    outputs = outputs_of(file, pixels, seconds={32: 0, 7: 0, 1: 0})
    assert [len(outputs[f"logits{batch}"]) for batch in (32, 7, 1)] == [32, 7, 1]
    proof = proof_of(outputs, images, Expected(logits), "fp32")
    assert (proof.images, proof.omitted, proof.problem) == (32, 38, "")
    assert (proof.accuracy, proof.exported_accuracy) == (1, 1)
    assert "on 32 test images at batch 1, 7, 32 (38 more would take over 60 s" in proof.text()


@pytest.mark.slow
def test_the_command_prints_the_path_and_the_comparison(
    run: RunFolder, with_exporters: Callable[..., None]
) -> None:
    with_exporters(traced=write_traced)
    result = residua("export", str(run.path))
    assert result.status == 0, result.stderr
    assert result.stdout == f"{run.path / 'model.onnx'}\n"
    assert "on 12 test images at batch 1, 7, 32" in result.stderr
    values = json.loads(residua("export", str(run.path), "--json").stdout)
    assert values["proof"]["agreement"] == 1
    data = run.config.data.path
    result = residua("export", str(run.path), "--out", f"{data}/model.onnx")
    assert "is inside the data folder" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_is_calibrated_on_training_images_and_its_loss_is_measured(
    name: str, run: RunFolder, with_exporters: Callable[..., None]
) -> None:
    with_exporters(traced=write_traced)
    exported = write_export(read_file(run.weights), run, QUIET, format=name, precision="int8")
    assert exported.path.stem == "model-int8"
    assert 1e-5 < exported.proof.difference < 0.1  # other numbers, almost the same result
    assert exported.proof.accuracy is not None
    assert "accuracy: PyTorch" in exported.proof.text()
    content = exported.path.read_bytes()
    assert b"QuantizeLinear" in content if name == "onnx" else b"FakeQuantize" in content
    assert load_exported(exported.path, allow_code=True).description["precision"] == "int8"


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ResiduaError, match=r"onnxscript: pip install onnx onnxscript onnxruntime$"):
        FORMATS["onnx"].check_installed()


def test_int8_needs_the_training_images_of_a_run(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    weights = read_file(write_weights(tmp_path / "net.safetensors", 5))
    with pytest.raises(ResiduaError, match="calibrated on training images, which only a run"):
        write_export(weights, None, QUIET, precision="int8")
