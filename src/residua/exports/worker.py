"""An exported file and images -> its outputs in batches of several sizes, in a process of its own.

python -m residua.exports.worker FILE PIXELS.npy OUTPUTS.npz

torch is imported for files of PyTorch's formats alone: the others run without it elsewhere too.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.dataset import Pixels
from residua.errors import ResiduaError
from residua.weights.exported import OUTPUTS, Outputs, load_exported

BATCHES = (32, 7, 1)
# Images at each batch size (None: all); 67 so that the last batch of 7 is incomplete.
COUNTS = {32: None, 7: 67, 1: 32}
# Time limit of each batch size: PyTorch computes float16 on many processors so slowly that 1,000
# images take over ten minutes. A batch that has started is completed.
SECONDS = {32: 60.0, 7: 10.0, 1: 10.0}


def outputs_of(
    file: Path,
    pixels: Pixels,
    counts: Mapping[int, int | None] = COUNTS,
    seconds: Mapping[int, float] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """`logits32`, `probabilities32`, ... of images uint8 [N, S, S, C], N >= 32; the runtime's name;
    the file's description as JSON. Raises ResiduaError.

    counts: as COUNTS. seconds: as SECONDS: no batch begins later; None: no limit.
    """
    loaded = load_exported(file, allow_code=True)
    texts = {"runtime": loaded.runtime, "description": json.dumps(loaded.description)}
    outputs: dict[str, npt.NDArray[Any]] = {name: np.array(text) for name, text in texts.items()}
    for batch in BATCHES:
        count = counts[batch] or len(pixels)
        end = time.monotonic() + (seconds[batch] if seconds else math.inf)
        parts: list[Outputs] = []
        for start in range(0, min(count, len(pixels)), batch):
            if parts and time.monotonic() >= end:
                break
            parts.append(loaded.run(pixels[start : min(start + batch, count)]))
        for name, arrays in zip(OUTPUTS, zip(*parts, strict=True), strict=False):
            outputs[f"{name}{batch}"] = np.concatenate(arrays)
    return outputs


def main(file: Path, pixels_file: Path, outputs_file: Path) -> None:
    """Run the file on stored images and save its outputs."""
    outputs = outputs_of(file, np.load(pixels_file), seconds=SECONDS)
    np.savez(outputs_file, **outputs)  # type: ignore[arg-type]


if __name__ == "__main__":
    try:
        main(*(Path(word) for word in sys.argv[1:]))
    except ResiduaError as error:
        sys.exit(str(error))
