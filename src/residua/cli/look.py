"""A data set before training -> its counts as text, and sample images as PNG files."""

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
from PIL.PngImagePlugin import PngInfo

from residua.config.schema import Config
from residua.data.dataset import SPLITS, Header, Pixels
from residua.data.prepare import prepare
from residua.data.prepared import Prepared
from residua.runs.sources import chosen_start, initial_weights
from residua.system.console import Console
from residua.system.files import (
    DRAWN,
    check_output,
    check_writable,
    refuse_inside,
    short_name,
    user_path,
    write_atomically,
)
from residua.system.words import percent
from residua.transfer.search import HELD_OUT

COLUMNS, ROWS = 8, 4  # of a grid
MIN_TILE = 64  # px; smaller images are enlarged by a whole factor
GAP = 2  # px between tiles
BATCH = "training-batch.png"


def overview(config: Config, out: str | None, console: Console) -> str:
    """Write a grid per class and a training batch as the network receives it; return the summary.

    A linear probe without views is trained on the images of the grids: there is no batch. The PNG
    files go to the folder `out`, by default looks/<data>. Raises ResiduaError.
    """
    refuse_inside(Path(out or "looks"), config.data.path)
    check_writable(Path(out or "looks"))
    start = chosen_start(config, console)
    weights = initial_weights(start.config, console)
    expects = None if weights is None else weights.expects
    prepared = prepare(start.config, console, expects, start.choices)
    folder = user_path(out) if out else Path("looks") / short_name(prepared.dataset.name)
    _write_class_grids(prepared, folder)
    written = "a grid of images for each class"
    transfer = prepared.config.transfer
    if transfer.strategy != "features" or transfer.views:
        _write_grid(folder / BATCH, _training_batch(prepared))
        written += f", and {BATCH}"
    lines = [
        prepared.summary,
        *_class_counts(prepared),
        *_sizes_and_formats(_readable(prepared)),
        *(f"warning: {note}" for note in prepared.notes),
        *(f"unreadable: {path}: {reason}" for path, reason in prepared.unreadable),
        *_plans(prepared),
        f"written to {folder}: {written}",
    ]
    return "\n".join(lines)


def _readable(prepared: Prepared) -> list[Header]:
    """The headers of the images that can be read to their end."""
    unreadable = {path for path, _ in prepared.unreadable}
    entries = zip(prepared.dataset.entries, prepared.headers, strict=True)
    return [header for entry, header in entries if header and entry.path not in unreadable]


def _plans(prepared: Prepared) -> list[str]:
    """How `train` may use the images otherwise than the counts and the training batch show."""
    transfer = prepared.config.transfer
    if transfer.strategy == "features" and not transfer.views:
        return ["plan: fit a linear probe on the images of the grids, without augmentation"]
    if transfer.strategy != "auto":
        return []
    lines = [
        "plan: fit a linear probe on the images of the grids, without augmentation; unless it "
        f"makes too few errors, then fine-tune with augmentation, as in {BATCH}"
    ]
    if prepared.is_explicit("data.val_fraction") or prepared.has_own_splits:
        return lines
    if len(prepared.splits["validation"]):
        return [*lines, "plan: if the linear probe is kept, fit it on the validation images too"]
    share = percent(HELD_OUT)
    return [*lines, f"plan: before fine-tuning, hold out {share} of the images for validation"]


def _write_class_grids(prepared: Prepared, folder: Path) -> None:
    readable = np.zeros(len(prepared.labels), bool)
    for members in prepared.splits.values():
        readable[members] = True
    for label, name in enumerate(prepared.dataset.classes):
        members = np.flatnonzero(readable & (prepared.labels == label))
        slug = re.sub(r"[^0-9A-Za-z-]+", "_", name)[:40]
        file = folder / f"class-{label:03}-{slug}.png"
        _write_grid(file, prepared.pixels[members[: COLUMNS * ROWS]])


def _class_counts(prepared: Prepared) -> list[str]:
    counts = {split: prepared.counts(split) for split in SPLITS}
    width = max(len(name) for name in prepared.dataset.classes)
    return [
        f"  {name:<{width}}  "
        + "  ".join(f"{split} {counts[split][label]:>6,}" for split in SPLITS)
        for label, name in enumerate(prepared.dataset.classes)
    ]


def _sizes_and_formats(headers: Sequence[Header]) -> list[str]:
    lines = []
    for dimension in ("width", "height"):
        values = [getattr(header, dimension) for header in headers]
        median = statistics.median_low(values)
        lines.append(f"{dimension}: {min(values)} to {max(values)} px, median {median}")
    for title, values in (
        ("formats", [header.format for header in headers]),
        ("colour modes", [header.mode for header in headers]),
    ):
        counts = Counter(values).most_common()
        lines.append(f"{title}: " + ", ".join(f"{value} {count:,}" for value, count in counts))
    return lines


def _training_batch(prepared: Prepared) -> Pixels:
    """The first training batch, augmented, with normalisation undone: uint8 [B, S, S, C]."""
    config = prepared.config
    batches = prepared.training_batches()
    images = batches.batch(0, 0).images[: COLUMNS * ROWS].permute(0, 2, 3, 1).cpu()
    pixels = images * torch.tensor(config.preprocessing.std)
    pixels = pixels + torch.tensor(config.preprocessing.mean)
    if config.preprocessing.channel_order == "bgr":
        pixels = pixels.flip(-1)
    return pixels.round().clamp(0, 255).byte().numpy()


def _write_grid(file: Path, pixels: Pixels) -> None:
    """Tile uint8 [N, S, S, C] on white and write a PNG."""
    scale = -(-MIN_TILE // pixels.shape[1])
    tiles = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    size, channels = tiles.shape[1], tiles.shape[3]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full(
        (rows * (size + GAP) + GAP, columns * (size + GAP) + GAP, channels), 255, np.uint8
    )
    for index, tile in enumerate(tiles):
        top, left = (GAP + cell * (size + GAP) for cell in divmod(index, columns))
        sheet[top : top + size, left : left + size] = tile
    stream = io.BytesIO()
    mark = PngInfo()
    mark.add_text("Comment", DRAWN)
    image = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    image.save(stream, "PNG", pnginfo=mark, compress_level=1)  # three times as fast as 6
    check_output(file, (".png",), drawn=True)
    write_atomically(file, stream.getvalue())
