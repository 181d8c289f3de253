"""Layers that int8 harms most stay in float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from residua.config.schema import NetworkSpec
from residua.exports.classifier import Classifier, description
from residua.exports.formats import FORMATS, quiet_exporters
from residua.exports.quantisation import FIRST, quantise, sensitive_layers
from residua.networks.zoo.catalogue import build_from
from residua.weights.exported import load_exported
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata, to_bytes

pytestmark = pytest.mark.usefixtures("one_thread")
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)


def exported(weights: Weights, file: Path) -> Path:
    size = weights.metadata.preprocessing.size
    example, text = torch.zeros(2, size, size, 3, dtype=torch.uint8), description(weights, "int8")
    with quiet_exporters():
        write = FORMATS["onnx"].exporters["TorchScript"]
        write(Classifier(weights, "fp32"), example, json.dumps(text), file)
    return file


@pytest.mark.slow
def test_a_head_whose_weights_differ_by_orders_of_magnitude_keeps_its_predictions(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_weights(tmp_path / "net.safetensors", 5)
    weights = read_file(path)
    weights.tensors["head.weight"][:, 0] += 100.0  # for all classes: no probability changes
    plain, int8 = exported(weights, tmp_path / "plain.onnx"), tmp_path / "int8.onnx"
    pixels = PIXELS[:, :16, :16]
    quantise(plain, int8, pixels)
    expected, found = (load_exported(file).run(pixels)[1] for file in (plain, int8))
    assert np.abs(found - expected).max() < 0.02
    quantise(plain, int8, pixels, {"nodes_to_exclude": []})
    assert np.abs(load_exported(int8).run(pixels)[1] - expected).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first"), [("mobilenet_v2", FIRST), ("resnext50_32x4d", 0)])
def test_the_first_convolutions_stay_in_float32_if_some_are_depthwise(
    name: str, first: int, write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    rule = read_file(write_weights(tmp_path / "net.safetensors", 5)).metadata.preprocessing
    spec = NetworkSpec(name, 10, 3)
    file = tmp_path / f"{name}.safetensors"
    file.write_bytes(to_bytes(build_from(spec, seed=0).state_dict(), Metadata(spec, (), rule, {})))
    plain = exported(read_file(file), tmp_path / "plain.onnx")
    nodes = onnx.load(plain).graph.node
    convolutions = [node.name for node in nodes if node.op_type == "Conv"]
    assert sensitive_layers(plain)[:-1] == convolutions[:first]
    assert sensitive_layers(plain)[-1] in {node.name for node in nodes if node.op_type == "Gemm"}
