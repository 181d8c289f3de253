"""Linear probes at several image sizes: does a probe gain from more pixels than in training?

    python benchmarks/larger_images.py NAME=DATA ... [--sizes 224 288 320]

`residua train DATA --transfer features --size S` on all images of class folders: cross-validated
loss and accuracy of the best layer. The table is results/larger-images.txt.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from conditions import conditions

RESULT = Path(__file__).parent / "results" / "larger-images.txt"


def probe(data: str, size: int, folder: Path) -> tuple[float, float]:
    """Loss and accuracy in cross-validation."""
    command = [sys.executable, "-m", "residua", "train", data, "--weights", "imagenet"]
    command += ["--transfer", "features", "--size", str(size), "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    result = json.loads((folder / "transfer.json").read_text("utf-8"))
    best = min(result["layers"], key=lambda layer: layer["loss"])
    return best["loss"], best["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", help="NAME=DATA")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 288, 320])
    options = parser.parse_args()
    lines = [
        conditions(),
        "",
        "cross-validated loss (accuracy) of the best layer of EfficientNet-Lite0",
    ]
    lines += ["data      " + "".join(f"{size} px".rjust(20) for size in options.sizes)]
    for name, _, data in (entry.partition("=") for entry in options.data):
        row = name.ljust(10)
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                loss, accuracy = probe(data, size, Path(folder, "run"))
            row += f"{loss:.4f} ({accuracy:.4f})".rjust(20)
        lines.append(row)
        print(row, flush=True)
    RESULT.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
