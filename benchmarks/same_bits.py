"""Eight commands with the code of two commits -> whether weights, predictions and tables agree.

    python benchmarks/same_bits.py OLD NEW ../shared/data    (OLD, NEW: src folders of checkouts)

Weights are compared tensor by tensor (their header names settings, which were renamed); tables cell
by cell without their headings. The killed run is compared with itself uninterrupted, too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

RESULT = Path(__file__).parent / "results" / "same-bits.txt"
RUNS = ("digits", "killed", "birds", "features", "partial", "auto")
CLOCKS = 2  # last columns of history.csv


def commands(data: Path) -> dict[str, list[str]]:
    weights = str(data / "cifar_resnet_weights" / "resnet20-12fca82f.th")
    test = ["--test-fraction", "0.2"]
    start = ["--weights", weights, "--size", "32", *test]
    digits = ["train", "digits", *test, "--epochs", "5"]
    birds, flowers = str(data / "birds6"), str(data / "flowers5")
    return {
        "digits": [*digits, "--out", "digits"],
        "killed": [*digits, "--set", "training.save_seconds=1", "--out", "killed"],
        "birds": ["train", birds, *test, "--epochs", "2", "--out", "birds"],
        "features": ["train", birds, *start, "--transfer", "features", "--out", "features"],
        "partial": [
            *["train", birds, *start, "--transfer", "partial", "--epochs", "3"],
            *["--out", "partial"],
        ],
        "auto": ["train", flowers, *start, "--transfer", "auto", "--epochs", "3", "--out", "auto"],
        "softmax": ["study", "softmax", "--out", "softmax"],
    }


def run_all(source: Path, data: Path, folder: Path) -> None:
    """Every command with the package of `source`, in `folder`."""
    environment = os.environ | {
        "PYTHONPATH": str(source),
        "RESIDUA_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "2",
    }

    def start(words: list[str]) -> subprocess.Popen[bytes]:
        with (folder / "log.txt").open("ab") as log:
            line = [sys.executable, "-P", "-m", "residua", *words]
            return subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=log)

    for name, words in commands(data).items():
        process = start(words)
        if name == "killed":
            history = folder / "killed" / "history.csv"
            while not history.exists() or len(history.read_text().splitlines()) < 3:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start(["resume", "killed"])
        if process.wait() != 0:
            raise SystemExit(f"{name} failed: {folder / 'log.txt'}")
    for name, words in {
        "evaluate.json": ["evaluate", "birds", "--json"],
        "predict.csv": ["predict", "birds", str(data / "birds6/owl"), "--format", "csv"],
    }.items():
        line = [sys.executable, "-P", "-m", "residua", *words]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, check=True)
        (folder / name).write_bytes(done.stdout)


def digest(file: Path) -> str:
    """Of tensors by name, or of the cells below a heading; 12 digits."""
    if file.suffix == ".safetensors":
        tensors = load_file(file)
        content = b"".join(
            name.encode() + tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors)
        )
    else:
        rows = list(csv.reader(io.StringIO(file.read_text("utf-8"))))[1:]
        if file.name == "history.csv":
            rows = [row[:-CLOCKS] for row in rows]
        content = repr(rows).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def main(old: Path, new: Path, data: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / which for which in ("old", "new")]
        for folder, source in zip(folders, (old, new), strict=True):
            folder.mkdir()
            run_all(source.resolve(), data.resolve(), folder)
        report(*folders)


def report(old: Path, new: Path) -> None:
    lines = [f"{'file':<44} {'before':<13} {'after':<13} same"]
    names = ("best.safetensors", "last.safetensors", "split.csv", "history.csv")
    files = [f"{run}/{name}" for run in RUNS for name in names]
    files += [f"{run}/evaluations/test/predictions.csv" for run in RUNS]
    files += [f"softmax/{path.name}" for path in sorted((old / "softmax").glob("*.csv"))]
    for name in [*files, "predict.csv"]:
        if not (old / name).exists():
            continue
        before = digest(old / name)
        after = digest(new / name) if (new / name).exists() else "missing"
        lines.append(f"{name:<44} {before:<13} {after:<13} {'yes' if before == after else 'NO'}")
    RESULT.write_text("\n".join(lines) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    if len(sys.argv) == 3:  # folders that were written before
        report(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(*map(Path, sys.argv[1:4]))
