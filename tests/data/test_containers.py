"""Images whose pixels are whole are read, whatever is wrong around them; others are not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from residua.data import image as images
from residua.data.dataset import Unreadable

LIMIT = 10_000
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def encoded(format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format, **options)
    return buffer.getvalue()


def with_text(kind: str, size: int) -> bytes:
    text = PngImagePlugin.PngInfo()
    if kind == "iTXt":
        text.add_itxt("prompt", "x" * size)
    else:
        text.add_text("prompt", "x" * size, zip=kind == "zTXt")
    return encoded("PNG", pnginfo=text)


def with_wrong_checksum(kind: bytes, body: bytes, *, at_end: bool) -> bytes:
    plain = encoded("PNG")
    at = len(plain) - 12 if at_end else 33
    chunk = struct.pack(">I", len(body)) + kind + body
    return plain[:at] + chunk + struct.pack(">I", zlib.crc32(kind + body) ^ 1) + plain[at:]


@pytest.mark.parametrize(
    "content",
    [
        with_text("zTXt", 3_000_000),
        with_text("iTXt", 3_000_000),
        with_text("tEXt", 3_000_000),
        encoded("PNG", icc_profile=bytes(3_000_000)),
        with_wrong_checksum(b"tIME", bytes(7), at_end=False),
        with_wrong_checksum(b"tIME", bytes(7), at_end=True),
        with_wrong_checksum(b"eXIf", b"II*\0", at_end=False),
        b"\r\n" + encoded("PNG"),
    ],
)
def test_metadata_of_png_does_not_spoil_the_pixels(content: bytes) -> None:
    images.header(content, LIMIT)
    np.testing.assert_array_equal(images.decode(content, 3, LIMIT), PIXELS)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [-2, -1])
def test_a_jpeg_may_lack_its_end_marker_alone(progressive: bool, kept: int) -> None:
    content = encoded("JPEG", progressive=progressive, quality=90)
    whole = images.decode(content, 3, LIMIT)
    np.testing.assert_array_equal(images.decode(b"\n\n" + content[:kept], 3, LIMIT), whole)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_more_is_cut_off(progressive: bool) -> None:
    content = encoded("JPEG", progressive=progressive, quality=90)
    first_scan = content.index(b"\xff\xda")
    for length in range(first_scan + 20, len(content) - 3, 37):
        with pytest.raises(Unreadable, match="is truncated after"):
            images.decode(content[:length], 3, LIMIT)


def test_a_jpeg_without_its_last_scan_is_cut_off() -> None:
    content = encoded("JPEG", progressive=True)
    with pytest.raises(Unreadable, match="is truncated after"):
        images.decode(content[: content.rindex(b"\xff\xda")], 3, LIMIT)
