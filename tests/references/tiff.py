"""TIFF files of kinds that Pillow does not write."""

from __future__ import annotations

import struct
from collections.abc import Sequence

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS = 256, 257, 258, 259, 262, 273
SAMPLES, ROWS, SIZES, LARGEST, PLANES, FORMAT = 277, 278, 279, 281, 284, 339


def tiff(
    pieces: Sequence[bytes],
    *,
    size: tuple[int, int],
    bits: int,
    samples: int = 1,
    photometric: int = 1,
    number: int = 1,
    largest: int | None = None,
) -> bytes:
    """Uncompressed little-endian TIFF: one piece of pixels, or one for each plane.

    size: (width, height). number: format of a sample, 1: unsigned, 2: signed, 3: float.
    """
    tags: dict[int, Sequence[int]] = {
        WIDTH: [size[0]],
        HEIGHT: [size[1]],
        BITS: [bits] * samples,
        COMPRESSION: [1],
        PHOTOMETRIC: [photometric],
        OFFSETS: [0] * len(pieces),
        SAMPLES: [samples],
        ROWS: [size[1]],
        SIZES: [len(piece) for piece in pieces],
        PLANES: [1 if len(pieces) == 1 else 2],
        FORMAT: [number] * samples,
    }
    if largest is not None:
        tags[LARGEST] = [largest] * samples
    end = 8 + 2 + 12 * len(tags) + 4
    long = {tag: 4 * len(values) for tag, values in tags.items() if len(values) > 1}
    start = end + sum(long.values())
    tags[OFFSETS] = [start + sum(map(len, pieces[:index])) for index in range(len(pieces))]
    directory, blob = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        field = struct.pack("<I", end + len(blob)) if tag in long else packed
        directory += struct.pack("<HHI", tag, 4, len(values)) + field
        blob += packed if tag in long else b""
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return head + directory + bytes(4) + blob + b"".join(pieces)
