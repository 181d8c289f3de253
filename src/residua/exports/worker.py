"""An exported file and images -> its outputs in batches of several sizes, in a process of its own.

python -m residua.exports.worker FILE PIXELS.npy OUTPUTS.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from residua.errors import ResiduaError
from residua.weights.exported import OUTPUTS, load_exported
from residua.weights.load import exported_metadata

BATCHES = (32, 7, 1)
# Images at each batch size (None: all); 67 so that the last batch of 7 is incomplete.
COUNTS = {32: None, 7: 67, 1: 32}


def main(file: Path, pixels_file: Path, outputs_file: Path) -> None:
    """Run the file and save `logits32`, `probabilities32`, ... and the runtime's name; `unknown`,
    bool [N], if it detects unknown images."""
    loaded, pixels = load_exported(file), np.load(pixels_file)
    outputs = {"runtime": np.array(loaded.runtime)}
    for batch in BATCHES:
        count = COUNTS[batch] or len(pixels)
        starts = range(0, min(count, len(pixels)), batch)
        parts = [loaded.run(pixels[start : min(start + batch, count)]) for start in starts]
        for name, arrays in zip(OUTPUTS, zip(*parts, strict=True), strict=False):
            outputs[f"{name}{batch}"] = np.concatenate(arrays)
    uncertainty = exported_metadata(file, loaded).uncertainty
    if uncertainty is not None and uncertainty.unknown is not None:
        features, logits = outputs["features32"], outputs["logits32"]
        outputs["unknown"] = uncertainty.unknown.is_unknown(features, logits)
    np.savez(outputs_file, **outputs)  # type: ignore[arg-type]


if __name__ == "__main__":
    try:
        main(*(Path(word) for word in sys.argv[1:]))
    except ResiduaError as error:
        sys.exit(str(error))
