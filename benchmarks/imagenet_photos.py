"""The embedded EfficientNet-Lite0 on real photos, against an independent reading of its file.

    python benchmarks/imagenet_photos.py ../shared/data/imagenet_photos

Photos whose names begin with their wnid. The independent reading resizes with Pillow and computes
with plain functions of PyTorch (tests/references/efficientnet_lite.py). Both normalisations in
circulation for these weights are tried.
"""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from references import efficientnet_lite

import residua
from residua.runs.sources import open_weights
from residua.system.console import Console
from residua.system.device import environment
from residua.weights.published.imagenet import RGB, SOURCES

RESULT = Path(__file__).parent / "results" / "imagenet-photos.txt"
SOURCE = SOURCES["efficientnet_lite0"]


def cropped(file: Path) -> torch.Tensor:
    """Shorter side 256, bicubic, the central 224: float32 [3, 224, 224] in 0..255."""
    image = Image.open(file).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize(tuple(int(side * scale) for side in image.size), Image.Resampling.BICUBIC)
    left, top = ((side - 224) // 2 for side in image.size)
    pixels = np.array(image.crop((left, top, left + 224, top + 224)))
    return torch.from_numpy(pixels).permute(2, 0, 1).float()


def main(folder: Path) -> None:
    files = sorted(folder.glob("*.jpg"))
    names = list(open_weights("imagenet", None, Console(quiet=True)).metadata.classes)
    wnids = [name.partition(" ")[0] for name in names]
    truth = [wnids.index(file.name.partition("_")[0]) for file in files]
    spec = find_spec(SOURCE.package)
    assert spec is not None
    state = torch.load(
        Path(next(iter(spec.submodule_search_locations or ()))) / SOURCE.file, weights_only=True
    )
    facts = environment(torch.device("cpu"))
    lines = [
        f"{len(files)} photos of {len(set(truth))} ImageNet classes, EfficientNet-Lite0 at 224 px",
        f"{facts['device_name']}, {facts['threads']} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pillow {PIL.__version__}, "
        f"{datetime.now(UTC).date().isoformat()}",
        "",
    ]
    images = [cropped(file) for file in files]
    normalisations = {
        "-1..1 (mean 127.5, std 127.5)": ((127.5,) * 3, (127.5,) * 3),
        "ImageNet's mean and std": (RGB.mean, RGB.std),
    }
    best: list[int] = []
    for label, (mean, std) in normalisations.items():
        shift, scale = (torch.tensor(value)[:, None, None] for value in (mean, std))
        with torch.inference_mode():
            logits = torch.cat(
                [
                    list(efficientnet_lite.outputs(((x - shift) / scale)[None], state))[-1]
                    for x in images
                ]
            )
        top = logits.topk(5).indices.tolist()
        first = np.mean([row[0] == label for row, label in zip(top, truth, strict=True)])
        five = np.mean([label in row for row, label in zip(top, truth, strict=True)])
        lines.append(f"independent reading, {label}: top-1 {first:.3f}, top-5 {five:.3f}")
        best = best or [row[0] for row in top]
    rows = residua.predict("imagenet", files, top=5)
    top = [[names.index(name) for name, _ in row.top] for row in rows]
    first = np.mean([row[0] == label for row, label in zip(top, truth, strict=True)])
    five = np.mean([label in row for row, label in zip(top, truth, strict=True)])
    lines.append(f"residua predict imagenet: top-1 {first:.3f}, top-5 {five:.3f}")
    same = sum(row[0] == other for row, other in zip(top, best, strict=True))
    lines.append(f"same top-1 as the independent reading: {same} of {len(files)}")
    RESULT.write_text("\n".join(lines) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
