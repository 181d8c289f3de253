"""A folder of photos -> the output of `residua train` in the README, and the image of its report.

    python benchmarks/readme_example.py ../shared/data/birds6

Runs the README's command on a copy named photos, replaces the text block of the README by its
output (without bars and most epochs), stores it with its conditions in results/readme-example.txt,
and saves the first screen of the report, drawn by headless Chromium, as docs/images/report.png.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image

from residua.system.device import environment

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "readme-example.txt"
COMMAND = ("train", "photos", "--test-fraction", "0.2")
SIZE = (1100, 1250)  # px


def main(photos: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(photos, folder / "photos")
        words = [sys.executable, "-m", "residua", *COMMAND]
        cache = os.environ | {"RESIDUA_CACHE": str(folder / "cache")}  # a cold one
        done = subprocess.run(
            words, cwd=folder, env=cache, stderr=subprocess.PIPE, text=True, check=True
        )
        lines = shortened(done.stderr.splitlines())
        replace_output(lines)
        RESULT.write_text("\n".join([*conditions(), "", *lines]) + "\n", "utf-8")
        draw_report(folder / "runs" / "photos-1" / "report.html")


def conditions() -> list[str]:
    facts = environment(torch.device("cpu"))
    return [
        f"residua {' '.join(COMMAND)}: one run, cold feature cache; photos: the argument's folder",
        f"{facts['device_name']}, {facts['threads']} threads, Python {facts['python']}, torch "
        f"{facts['torch']}, {datetime.now(UTC).date().isoformat()}",
    ]


def shortened(lines: list[str]) -> list[str]:
    """The printed lines without progress, with only the first two and the last epoch."""
    lines = [line for line in lines if not re.match(r"\w+: [\d,]+ of", line)]
    epochs = [index for index, line in enumerate(lines) if re.match(r"epoch +\d+/", line)]
    if not epochs:
        return lines
    return [*lines[: epochs[1] + 1], "...", *lines[epochs[-1] :]]


def replace_output(lines: list[str]) -> None:
    readme = ROOT / "README.md"
    text = "\n".join(lines)
    block = re.compile(r"(?<=^```text\n).*?(?=\n```$)", re.M | re.S)
    readme.write_text(block.sub(lambda _: text, readme.read_text("utf-8"), count=1), "utf-8")


def draw_report(page: Path) -> None:
    """The first screen of the page, as PNG of 128 colours."""
    file = ROOT / "docs" / "images" / "report.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--screenshot={file}"]
    window = f"--window-size={SIZE[0]},{SIZE[1]}"
    subprocess.run([chromium, *options, window, page.as_uri()], check=True, capture_output=True)
    Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
