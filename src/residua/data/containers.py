"""Bytes of a PNG or JPEG file -> bytes that Pillow reads, where only what surrounds the pixels is
at fault: metadata that is damaged or too large, or a missing end marker."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from io import BytesIO

from PIL import JpegImagePlugin

_USED = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")  # chunks of PNG that pixels depend on
_XMP = b"XML:com.adobe.xmp\0\0"  # may hold the orientation; the second 0: not compressed
_MAX_METADATA = 2**20  # bytes that Pillow accepts
_END = b"\xff\xd9"  # of a JPEG
_FRAMES, _SCAN = (0xC0, 0xC1, 0xC2), 0xDA  # kinds of markers: baseline, extended, progressive
_MARKER = re.compile(rb"\xff[^\0\x01\xd0-\xd7\xff]")  # one that a segment follows


def without_metadata(content: bytes) -> bytes:
    """A PNG without the chunks that pixels and orientation do not depend on."""
    parts, whole, end = [content[:8]], True, 8
    for kind, start, end in _chunks(content):
        chunk = content[start:end]
        if kind in _USED or not kind[:1].islower() or _has_orientation(kind, chunk):
            parts.append(chunk)
        else:
            whole = False
    return content if whole else b"".join([*parts, content[end:]])


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each complete chunk."""
    start = 8
    while start + 12 <= len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        end = start + 12 + length
        if end > len(content):
            return
        yield content[start + 4 : start + 8], start, end
        start = end


def _has_orientation(kind: bytes, chunk: bytes) -> bool:
    is_metadata = kind == b"eXIf" or (kind == b"iTXt" and chunk[8:].startswith(_XMP))
    checksum = int.from_bytes(chunk[-4:], "big")
    return is_metadata and len(chunk) < _MAX_METADATA and zlib.crc32(chunk[4:-4]) == checksum


def completed(content: bytes) -> bytes | None:
    """A JPEG that lacks nothing but its end marker, with it; None for any other.

    Nothing is lacking if every coefficient has its last bit, and the pixels do not depend on the
    bytes that follow.
    """
    content = content.rstrip(b"\xff")
    if _END in content or not _has_all_coefficients(content):
        return None
    pixels = set()
    for following in (b"", b"\x55" * 64, b"\xaa" * 64, b"\0" * 64):
        image = JpegImagePlugin.JpegImageFile(BytesIO(content + following + _END))
        pixels.add(hashlib.sha256(image.tobytes()).digest())
    return content + _END if len(pixels) == 1 else None


def _has_all_coefficients(content: bytes) -> bool:
    """Whether the scans of a JPEG (ITU-T T.81; annex G: progressive) transmit every bit."""
    missing: dict[int, set[int]] = {}  # component -> coefficients whose last bit is missing
    at = 2
    while (marker := _MARKER.search(content, at)) is not None:
        kind, start = marker[0][1], marker.end()
        body = content[start + 2 : start + int.from_bytes(content[start : start + 2], "big")]
        if kind in _FRAMES and len(body) >= 6 and len(body) >= 6 + 3 * body[5]:
            missing = {body[6 + 3 * number]: set(range(64)) for number in range(body[5])}
        elif kind == _SCAN and body and len(body) >= 4 + 2 * body[0]:  # SOS
            first, last, approximation = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            if approximation & 15 == 0:
                for number in range(body[0]):
                    missing.get(body[1 + 2 * number], set()).difference_update(
                        range(first, last + 1)
                    )
        at = start + 2 + len(body)
    return bool(missing) and not any(missing.values())
