"""Files that are no images are refused by their first bytes and size, before they are read."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from residua.data.dataset import Unreadable
from residua.data.recognition import read_file


@pytest.mark.parametrize(
    ("start", "size", "reason"),
    [
        (b"\xff\xd8\xff\xe0", 2**30, "is larger than 268,435,456 bytes"),
        (b"\x89PNG\r\n\x1a\n", 2**30 + 1, "is larger than 1,073,741,824 bytes"),
        (b"text ", 2**30 + 1, "is not an image: starts with 'text'"),
    ],
)
def test_a_file_too_large_for_its_format_is_not_read(
    tmp_path: Path, start: bytes, size: int, reason: str
) -> None:
    file = tmp_path / "sparse"
    file.write_bytes(start)
    os.truncate(file, size)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match=reason):
            read_file(file)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
