"""A folder of photos -> the output of `residua train` in the README, and the image of its report.

    python benchmarks/readme_example.py ../shared/data/birds6

Runs the README's command on a copy named photos, replaces the text block of the README by its
output (without bars and most epochs), and saves the first screen of the report, drawn by headless
Chromium, as docs/images/report.png.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
COMMAND = ("train", "photos", "--weights", "imagenet", "--transfer", "features")
COMMAND += ("--test-fraction", "0.2")
SIZE = (1100, 1250)  # px


def main(photos: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(photos, folder / "photos")
        words = [sys.executable, "-m", "residua", *COMMAND]
        done = subprocess.run(words, cwd=folder, stderr=subprocess.PIPE, text=True, check=True)
        replace_output(shortened(done.stderr.splitlines()))
        draw_report(folder / "runs" / "photos-1" / "report.html")


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
