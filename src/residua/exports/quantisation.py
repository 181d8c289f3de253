"""A float32 ONNX file and training images -> the same network in int8, statically quantised.

Kernels and maps of convolutions and linear layers become int8, with a scale per output channel of a
kernel and one per map; the scales of maps are from the range of their values on the images
(Jacob et al. 2017). The rest stays in float32, and so do the layers that int8 harms most: see
`sensitive_layers`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from residua.data.dataset import Pixels
from residua.exports.classifier import INPUT

CALIBRATION_IMAGES = 256
BATCH = 16
FIRST = 6  # convolutions of a network with depthwise ones
OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "MaxPool", "GlobalAveragePool"]


def sensitive_layers(file: Path) -> list[str]:
    """Names of the layers of an ONNX file that stay in float32 (benchmarks/results/int8.txt).

    The last linear layer: in a linear probe, weights of one class differ by orders of magnitude,
    and all have one scale. With depthwise convolutions also the first convolutions, whose few
    channels have maps of very different ranges, which have one scale too.
    """
    import onnx

    graph = onnx.load(file).graph
    linear = [node.name for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    shapes = {kernel.name: list(kernel.dims) for kernel in graph.initializer}
    has_depthwise = any(
        attribute.name == "group" and attribute.i > 1 and shapes[node.input[1]][1] == 1
        for node in convolutions
        for attribute in node.attribute
    )
    first = convolutions[:FIRST] if has_depthwise else []
    return [node.name for node in first] + linear[-1:]


def quantise(
    source: Path,
    target: Path,
    pixels: Pixels,
    changes: Mapping[str, object] | None = None,
) -> None:
    """Write `source` in int8 to `target`. pixels: uint8 [N, S, S, C], to calibrate on.

    changes: other arguments of onnxruntime's quantize_static, to compare them.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Pixels] = iter(
                np.split(pixels, range(BATCH, len(pixels), BATCH))
            )

        def get_next(self) -> dict[str, Pixels] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    settings = {
        "quant_format": QuantFormat.QDQ,
        "op_types_to_quantize": OPERATORS,
        "per_channel": True,
        "reduce_range": True,  # 7-bit kernels: without VNNI, sums of 8-bit products saturate
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
    }
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # onnxruntime's advice, given through the root logger
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            prepared = Path(folder, "prepared.onnx")
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                Batches(),
                **{"nodes_to_exclude": sensitive_layers(prepared), **settings, **(changes or {})},
            )
    finally:
        logger.setLevel(level)
