"""Kill a training at random moments, resume it, and compare every bit of what it leaves.

    python benchmarks/resume_after_kill.py --kills 10

The reference trains without interruption. The other is killed again and again, at moments drawn
between 0 and the given number of seconds after its first state, and resumed after each. Both then
have the same best.safetensors and last.safetensors, and the same history but for its clocks. Each
line says where the state stood that the next process found (epoch, step, batches judged), and the
seconds of work since then, which are lost.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import json
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from residua.weights.native import read_weights

SETTINGS = ["--epochs", "40", "--test-fraction", "0.2", "--curve-test"]
SETTINGS += ["--set", "optimization.ema_decay=0.99", "--set", "augmentation.mixup=0.2"]
CLOCKS = ("images_per_second", "seconds")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "residua", *words]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as stream:
        return [
            {key: value for key, value in row.items() if key not in CLOCKS}
            for row in csv.DictReader(stream)
        ]


def events(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--most", type=float, default=4.0, help="seconds from a state to the kill")
    parser.add_argument("--save-seconds", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    settings = [*SETTINGS, "--set", f"training.save_seconds={options.save_seconds}"]
    print(
        f"# resume after SIGKILL; {datetime.date.today()}; {platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; {options.data}, "
        f"state every {options.save_seconds:g} s; {' '.join(SETTINGS)}"
    )
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder, "whole"), Path(folder, "broken")
        subprocess.run(
            command("train", options.data, "--out", str(whole), *settings),
            check=True,
            capture_output=True,
        )
        words = command("train", options.data, "--out", str(broken), *settings)
        for kill in range(options.kills + 1):
            before = (broken / "state.safetensors").stat().st_mtime if kill else 0.0
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if kill == options.kills:
                _, said = process.communicate()
                assert process.returncode == 0, said.decode()
                break
            state = broken / "state.safetensors"
            while not kill and not state.exists() and process.poll() is None:
                time.sleep(0.01)
            while kill and "resumed" not in [e["event"] for e in events(broken)][-1:]:
                if process.poll() is not None or state.stat().st_mtime > before:
                    break
                time.sleep(0.01)
            began = time.time()
            time.sleep(random.uniform(0, options.most))
            ended = process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.wait()
            lost = time.time() - max(state.stat().st_mtime, began)
            _, metadata = read_weights(state)
            at = metadata.notes["progress"]
            print(
                f"kill {kill + 1}: {'it had ended; ' if ended else ''}state at "
                f"epoch {at['epoch']}, "
                f"step {at['step']}, judged {at['judged']}; {lost:.2f} s of work lost",
                flush=True,
            )
            words = command("resume", str(broken))
        for name in ("best.safetensors", "last.safetensors"):
            same = digest(whole / name) == digest(broken / name)
            print(f"{name}: {digest(whole / name)} {digest(broken / name)} same: {same}")
            assert same
        assert history(whole) == history(broken)
        print(f"history of {len(history(whole))} epochs: same")


if __name__ == "__main__":
    main()
