"""Exported files predict, evaluate and are served as the run that they are of."""

from __future__ import annotations

import json
import logging
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from references.command_line import residua

from residua.api import deployment, training
from residua.api.prediction import predict
from residua.comparison.compare import compare
from residua.errors import ResiduaError
from residua.evaluation.evaluate import evaluate_run
from residua.exports import formats
from residua.exports.classifier import Classifier, description
from residua.runs.folder import RunFolder
from residua.runs.sources import open_source
from residua.serving.service import Model
from residua.system.console import Console
from residua.system.device import environment
from residua.weights.load import read_file


@pytest.fixture
def exported(run: RunFolder, request: pytest.FixtureRequest) -> Path:
    """An exported file of the run."""
    import torch

    weights, kind = read_file(run.weights), formats.FORMATS[request.param]
    size = weights.metadata.preprocessing.size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    text = json.dumps(description(weights, "fp32"))
    with formats.quiet_exporters():
        file = run.path / f"exported{kind.suffix}"
        write = list(kind.exporters.values())[-1]
        write(Classifier(weights, "fp32"), example, text, file)
    return file


both = pytest.mark.parametrize("exported", ["onnx", "openvino"], indirect=True)
programs = pytest.mark.parametrize("exported", ["pt2", "torchscript"], indirect=True)
onnx = pytest.mark.parametrize("exported", ["onnx"], indirect=True)


@both
@pytest.mark.slow
def test_predictions_and_evaluations_are_those_of_the_run(run: RunFolder, exported: Path) -> None:
    data = run.config.data.path
    files = [f"{data}/class0", f"{data}/class1/003.png"]
    expected, found = (
        json.loads(residua("predict", str(source), *files, "--format", "json").stdout)
        for source in (run.path, exported)
    )
    for row, reference in zip(found, expected, strict=True):
        assert (row["file"], row["error"]) == (reference["file"], None)
        names, probabilities = zip(*(entry.values() for entry in row["top"]), strict=True)
        pairs = [tuple(entry.values()) for entry in reference["top"]]
        assert names == tuple(name for name, _ in pairs)
        assert probabilities == pytest.approx([value for _, value in pairs], abs=1e-5)
    scores = [
        json.loads(residua("evaluate", str(source), data, "--json").stdout)
        for source in (run.path, exported)
    ]
    assert scores[1]["confusion"] == scores[0]["confusion"]
    assert scores[1]["loss"] == pytest.approx(scores[0]["loss"], abs=1e-5)


@programs
@pytest.mark.slow
def test_a_program_is_run_only_if_its_code_is_allowed(
    run: RunFolder, exported: Path, tmp_path: Path
) -> None:
    """Then its predictions and evaluations are those of the run."""
    run.write_json("environment.json", environment(torch.device("cpu")))
    own, files = training.evaluate(run.path), sorted(Path(run.config.data.path).glob("*/*.png"))
    for use in (predict, training.evaluate, deployment.serve, partial(compare, run)):
        with pytest.raises(ResiduaError, match=r"can run any code in it.*--allow-code"):
            use(exported)
    expected, found = predict(run.path, files), predict(exported, files, allow_code=True)
    assert [row.top[0][0] for row in found] == [row.top[0][0] for row in expected]
    np.testing.assert_allclose(
        [row.top[0][1] for row in found], [row.top[0][1] for row in expected], atol=1e-5
    )
    evaluation = training.evaluate(exported, allow_code=True)
    assert evaluation.paths == own.paths
    np.testing.assert_allclose(evaluation.logits, own.logits, atol=1e-4)
    (pair,) = compare(run, exported, out=tmp_path / "page", allow_code=True).pairs
    assert (pair.images, pair.gained, pair.lost) == (len(own.labels), 0, 0)
    words = "evaluate", str(exported), str(run.config.data.path), "--json"
    assert "can run any code in it" in " ".join(residua(*words).stderr.split())
    assert json.loads(residua(*words, "--allow-code").stdout)["images"] == len(files)


@pytest.mark.slow
@onnx
def test_a_comparison_evaluates_a_file_on_the_images_of_its_run(
    run: RunFolder, exported: Path, tmp_path: Path
) -> None:
    import onnx

    run.write_json("environment.json", environment(torch.device("cpu")))
    evaluation = evaluate_run(run, None, Console(quiet=True))
    other, renamed = (run.path / name for name in ("other.onnx", "renamed.onnx"))
    model = onnx.load(exported)
    text = {entry.key: entry.value for entry in model.metadata_props}["residua"]
    (head,) = (array for array in model.graph.initializer if array.name.endswith("head.weight"))
    head.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(head), head.name))
    values = {key: value for key, value in json.loads(text).items() if key != "golden"}
    onnx.helper.set_model_props(model, {"residua": json.dumps(values)})
    onnx.save(model, other)
    values["classes"] = values["classes"][::-1]
    onnx.helper.set_model_props(model, {"residua": json.dumps(values)})
    onnx.save(model, renamed)
    scores = json.loads(residua("evaluate", str(exported), "--json").stdout)
    assert scores["images"] == len(evaluation.labels)
    assert scores["accuracy"] == pytest.approx(float(evaluation.correct.mean()))
    compared = compare(run, exported, other, out=tmp_path / "page")
    same, lower = compared.pairs
    assert (same.images, same.gained, same.lost) == (len(evaluation.labels), 0, 0)
    by_other = (-evaluation.logits).argmax(1) == evaluation.labels
    assert lower.gained == (by_other & ~evaluation.correct).sum() > 0
    assert lower.lost == (evaluation.correct & ~by_other).sum() > 0
    assert compared.runs[1].file_bytes == exported.stat().st_size
    with pytest.raises(ResiduaError, match="has other classes than"):
        compare(run, renamed)
    assert "has other classes than" in " ".join(residua("evaluate", str(renamed)).stderr.split())
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(exported.read_bytes())
    with pytest.raises(ResiduaError, match="is not in a run folder"):
        compare(run, outside)


@pytest.mark.slow
@onnx
def test_a_server_can_use_an_exported_file(run: RunFolder, exported: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    size = read_file(run.weights).metadata.preprocessing.size
    pixels = np.resize(pixels, (3, size, size, 3))
    rows = [
        Model.of(
            open_source(source, None, None, None, Console(quiet=True))[0], "m", torch.device("cpu")
        ).run(pixels)
        for source in (run.path, exported)
    ]
    expected, found = ([output.probabilities for output in outputs] for outputs in rows)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@onnx
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("features", "{}", "{data}", "--out", "f.npz"), "which has no layers"),
        (("export", "{}", "--out", "m.onnx"), "which has no layers"),
        (("weights", "inspect", "{}"), "no weights to train, convert or inspect"),
        (("weights", "convert", "{}", "f.pth"), "no weights to train, convert or inspect"),
        (("train", "{data}", "--weights", "{}"), "no weights to train, convert or inspect"),
        (("predict", "{}", "{data}", "--model", "resnet18"), "is of cifar_resnet14, not of"),
        (("predict", "{}", "{data}", "--classes", "a,b"), "has 3 outputs, but 2 different class"),
        (("predict", "{}", "{data}", "--set", "preprocessing.mean=[0,0,0]"), "records its prep"),
    ],
)
def test_an_exported_file_is_refused_where_weights_are_needed(
    words: tuple[str, ...], message: str, run: RunFolder, exported: Path, tmp_path: Path
) -> None:
    given = [word.format(exported, data=run.config.data.path) for word in words]
    result = residua(*given, cwd=tmp_path)
    assert result.status == 1
    assert message in " ".join(result.stderr.split())


@pytest.mark.slow
@onnx
def test_third_party_and_damaged_files_are_refused(exported: Path, tmp_path: Path) -> None:
    import onnx

    def refuse(file: Path, message: str) -> None:
        with pytest.raises(ResiduaError, match=message):
            predict(file, str(tmp_path))

    file = tmp_path / "model.onnx"
    file.write_bytes(exported.read_bytes()[:5000])
    refuse(file, "cannot be read as an ONNX model")
    file.write_bytes(b"")
    refuse(file, "cannot be read as an ONNX model|was not written by")
    for text, message in (
        (None, "was not written by `residua export`"),
        ("{", "was not written by `residua export`"),
        ('{"format": 2}', "no description of format 1"),
        ('{"format": 1}', "its network is None"),
    ):
        model = onnx.load(exported)
        del model.metadata_props[:]
        if text is not None:
            onnx.helper.set_model_props(model, {"residua": text})
        onnx.save(model, file)
        refuse(file, message)
    model = onnx.load(exported)
    values = json.loads(model.metadata_props[0].value)
    values["preprocessing"]["size"] += 1
    onnx.helper.set_model_props(model, {"residua": json.dumps(values)})
    onnx.save(model, file)
    refuse(file, "takes images .* but describes")
    (tmp_path / "model.xml").write_text("<html>")
    refuse(tmp_path / "model.xml", "is not an OpenVINO model")


def test_a_damaged_program_is_refused_with_its_reason_and_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("torch"), "propagate", True)
    file = tmp_path / "model.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/extra/residua.json", "{}")
    with pytest.raises(ResiduaError, match=r"cannot be read as a torch\.export program") as raised:
        predict(file, str(tmp_path), allow_code=True)
    assert "warnings above" not in str(raised.value)
    assert caplog.records == []


def test_notes_for_developers_of_exporters_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """OpenVINO's note, with a traceback, goes to the root logger."""
    with formats.quiet_exporters():
        logging.getLogger().warning("operation not found in decomp table")
    assert caplog.messages == []
    logging.getLogger().warning("shown again")
    assert caplog.messages == ["shown again"]
