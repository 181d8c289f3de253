"""A data set before any training -> its counts as text, and its looks as image files."""

from __future__ import annotations

import io
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from residua.config.schema import Config
from residua.config.validate import checked
from residua.data.dataset import SPLITS, Header, Pixels
from residua.data.prepare import Prepared, prepare
from residua.runs.starting import begun_from
from residua.system.console import Console
from residua.system.files import refuse_inside, write_atomically

COLUMNS, ROWS = 8, 4
LEAST_SIDE = 64  # px: smaller images are enlarged, each pixel a square
GAP = 2


def overview(config: Config, out: str | None, console: Console) -> str:
    """Write a grid for each class and a training batch as the network sees it; the text about it.

    Images go to the folder `out`, else looks/<data>. Raises ResiduaError.
    """
    refuse_inside(Path(out or "looks"), config.data.path)
    config = checked(config)
    weights = begun_from(config, console)
    prepared = prepare(config, console, None if weights is None else weights.expects)
    folder = Path(out).expanduser() if out else Path("looks") / prepared.source.name
    grids = []
    for label, name in enumerate(prepared.source.classes):
        members = np.flatnonzero(_readable(prepared) & (prepared.labels == label))
        file = folder / f"class-{label:03}-{re.sub(r'[^0-9A-Za-z-]+', '_', name)[:40]}.png"
        _write_grid(file, prepared.pixels[members[: COLUMNS * ROWS]])
        grids.append(file)
    batch = folder / "training-batch.png"
    _write_grid(batch, _training_batch(prepared))
    lines = [
        prepared.summary,
        *_classes(prepared),
        *_described([each for each in prepared.headers if each]),
        *(f"warning: {note}" for note in prepared.notes),
        *(f"left out: {path}: {reason}" for path, reason in prepared.unreadable),
        f"grids of {len(grids)} classes and {batch.name} in {folder}",
    ]
    return "\n".join(lines)


def _readable(prepared: Prepared) -> np.ndarray:
    found = np.zeros(len(prepared.labels), bool)
    for members in prepared.splits.values():
        found[members] = True
    return found


def _classes(prepared: Prepared) -> list[str]:
    counts = {part: prepared.counts(part) for part in SPLITS}
    wide = max(len(name) for name in prepared.source.classes)
    return [
        f"  {name:<{wide}}  " + "  ".join(f"{part} {counts[part][label]:>6,}" for part in SPLITS)
        for label, name in enumerate(prepared.source.classes)
    ]


def _described(headers: Sequence[Header]) -> list[str]:
    """Sizes, formats and colour modes of the readable images."""
    lines = []
    for what, values in (
        ("width", [header.width for header in headers]),
        ("height", [header.height for header in headers]),
    ):
        middle = statistics.median_low(values)
        lines.append(f"{what}: {min(values)} to {max(values)} px, median {middle}")
    for what, words in (
        ("formats", [header.format for header in headers]),
        ("colour modes", [header.mode for header in headers]),
    ):
        counted = Counter(words).most_common()
        lines.append(f"{what}: " + ", ".join(f"{word} {count:,}" for word, count in counted))
    return lines


def _training_batch(prepared: Prepared) -> Pixels:
    """The first batch, its normalisation undone for the eye: uint8 [B, S, S, C]."""
    config = prepared.config
    batches = prepared.training_batches(torch.device("cpu"))
    images = batches.batch(0, 0).images[: COLUMNS * ROWS].permute(0, 2, 3, 1)
    pixels = images * torch.tensor(config.preprocessing.std)
    pixels = pixels + torch.tensor(config.preprocessing.mean)
    if config.preprocessing.channel_order == "bgr":
        pixels = pixels.flip(-1)
    return pixels.round().clamp(0, 255).byte().numpy()


def _write_grid(file: Path, pixels: Pixels) -> None:
    """Tile uint8 [N, S, S, C] on white and write a PNG."""
    scale = -(-LEAST_SIDE // pixels.shape[1])
    tiles = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    side, channels = tiles.shape[1], tiles.shape[3]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full(
        (rows * (side + GAP) + GAP, columns * (side + GAP) + GAP, channels), 255, np.uint8
    )
    for place, tile in enumerate(tiles):
        top, left = (GAP + index * (side + GAP) for index in divmod(place, columns))
        sheet[top : top + side, left : left + side] = tile
    stream = io.BytesIO()
    Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet).save(stream, "PNG")
    write_atomically(file, stream.getvalue())
