"""A float32 ONNX file and training images -> the same network in int8, statically quantised.

Kernels and maps of convolutions and linear layers become int8, with a scale per output channel of a
kernel and one per map; the scales of maps are from the range of their values on the images
(Jacob et al. 2017). The rest stays in float32.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from residua.data.dataset import Pixels
from residua.exports.classifier import INPUT

CALIBRATION_IMAGES = 256
BATCH = 16
OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "MaxPool", "GlobalAveragePool"]


def quantise(source: Path, target: Path, pixels: Pixels) -> None:
    """Write `source` in int8 to `target`. pixels: uint8 [N, S, S, C], to calibrate on."""
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
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[
                    "Conv",
                    "Gemm",
                    "MatMul",
                    "Add",
                    "MaxPool",
                    "GlobalAveragePool",
                ],
                per_channel=True,
                reduce_range=True,  # 7-bit kernels: without VNNI, sums of 8-bit products saturate
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        logger.setLevel(level)
