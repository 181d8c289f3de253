"""An HDF5 file, looked at before HDF5 does -> its groups, texts and tensors; no link is followed.

What a damaged file says of its texts makes HDF5 allocate gigabytes or never return. Format:
HDF5 File Format Specification 3.0, sections II.A (superblock), III.E (global heap) and IV.A.2.m
(attributes).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import torch
from torch import Tensor

from residua.errors import ResiduaError
from residua.weights.formats.raw import LARGEST_RATIO, damaged, first_twice, plain

HEAP = b"GCOL\1\0\0\0"  # begins a part of the file that keeps texts
USUAL_TEXT = 2**16  # bytes that a text may claim anywhere
SUPERBLOCKS = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}  # widths and base by version
IN_HEAP = 9  # the class of data whose length varies
TEXTS = (b"model_config", b"keras_version", b"layer_names", b"weight_names", b"name\0", b"dtype\0")
MOST_TEXT = 2**28  # bytes that the names in a small file may grow to


class Reader:
    """Takes groups, texts and tensors out of one file, whose bytes must really be in it.

    Raises ResiduaError or, where HDF5 would go astray, ValueError.
    """

    def __init__(self, path: Path, content: bytes | mmap.mmap) -> None:
        self.path, self.left = path, LARGEST_RATIO * len(content)
        self.most_text = max(self.left, MOST_TEXT)
        self.longest_text = _longest_text(content)
        self.walked: set[int] = set()

    def group(self, parent: h5py.Group, name: str) -> h5py.Group:
        """A group below `parent`. Raises ResiduaError where it lies outside, or is missing."""
        return cast("h5py.Group", self._member(parent, name))

    def tensor(self, parent: h5py.Group, name: str) -> Tensor:
        """A dataset as a tensor of its own. Raises ResiduaError."""
        found = self._member(parent, name)
        where = f"{parent.name.rstrip('/')}/{name}"
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise damaged(self.path, f"{where} holds no numbers")
        # NumPy has no bfloat16: Keras 3 says so beside two bytes
        brain = found.dtype == "V2" and self.text(found, "dtype") == "bfloat16"
        if not brain and (found.dtype.kind not in "fiu" or found.dtype.itemsize > 8):
            raise ResiduaError(
                f"{self.path}: {plain(where)}: expected numbers of up to 64 bits, found "
                f"{plain(found.dtype)}. Convert it and save it again."
            )
        if found.external or found.is_virtual:
            raise ResiduaError(
                f"{self.path}: {plain(where)} keeps its numbers in another file, which is not "
                "opened. Save them in one file with model.save_weights."
            )
        self._claim(found, where)
        if brain:
            return torch.from_numpy(found[()].view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(np.asarray(found[()], found.dtype.newbyteorder("=")))

    def _claim(self, found: h5py.Dataset, where: str) -> None:
        """Raise ResiduaError if not every number is stored, or they were packed too tightly."""
        unpacked = found.nbytes
        if found.chunks is None:
            whole = found.id.get_storage_size() >= unpacked
        else:
            sides = zip(found.shape, found.chunks, strict=True)
            count = math.prod(-(-side // chunk) for side, chunk in sides)
            whole = found.id.get_num_chunks() >= count
            unpacked = count * math.prod(found.chunks) * found.dtype.itemsize
        self.left -= unpacked
        if self.left < 0 or not whole:
            shape = " x ".join(map(str, found.shape))
            said = f"declares {shape} numbers, {unpacked:,} bytes, which are not in the file"
            raise damaged(self.path, f"{where} {said}")

    def text(self, owner: h5py.Group | h5py.Dataset, name: str) -> str:
        """An attribute that is one text; "" if there is none. Raises ResiduaError."""
        found = self.texts(owner, name) if name in owner.attrs else [""]
        return found[0] if len(found) == 1 else ""

    def texts(self, owner: h5py.Group | h5py.Dataset, name: str) -> list[str]:
        """An attribute that is some texts. Raises ResiduaError."""
        kept = owner.attrs.get_id(name)
        count = math.prod(kept.shape)
        if count and h5py.check_string_dtype(kept.dtype) is None:
            raise damaged(self.path, f"{owner.name} has {name} that is no text")
        if count * self.longest_text > self.most_text:  # all may be the same, long one
            raise ValueError(f"its {count:,} names would need too much memory")
        found = np.ravel(owner.attrs[name]).tolist() if count else []
        return [each.decode() if isinstance(each, bytes) else each for each in found]

    def walk(self, group: h5py.Group, path: str = "") -> Iterator[tuple[str, h5py.Group]]:
        """Every group below, in the file's order, with its path."""
        self.walked.add(h5py.h5o.get_info(group.id).addr)
        for name in group:
            if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                self._refuse_link(group, name)
            found = group[name]
            if isinstance(found, h5py.Group):
                if h5py.h5o.get_info(found.id).addr in self.walked:  # a circle, or a maze
                    self._refuse_link(group, name)
                yield f"{path}/{name}", found
                yield from self.walk(found, f"{path}/{name}")

    def refuse_twice(self, names: list[str], what: str) -> None:
        """Raise ResiduaError if a name occurs twice."""
        if twice := first_twice(names):
            raise damaged(self.path, f"lists the {what} {twice} twice")

    def _member(self, parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
        found = parent
        for piece in name.split("/"):
            kind = None
            if piece not in ("", ".") and isinstance(found, h5py.Group):
                kind = found.get(piece, getclass=True, getlink=True)
            if kind is None:
                raise damaged(self.path, f"lists {name} in {parent.name}, but holds no such thing")
            if kind is not h5py.HardLink:
                self._refuse_link(found, piece)
            found = found[piece]
        return found

    def _refuse_link(self, group: h5py.Group, name: str) -> None:
        where = plain(f"{group.name.rstrip('/')}/{name}")
        raise ResiduaError(
            f"{self.path}: {where} is a link to another place or file, which Keras never writes; "
            "it is not followed. Save the weights with model.save_weights."
        )


def _longest_text(content: bytes | mmap.mmap) -> int:
    """The size of the largest object in the heaps of a file, of which texts are some.

    Raises ValueError if a heap's objects do not add up, or a text claims to be longer than any.
    """
    widths, base = SUPERBLOCKS[content[8]]
    if content[widths : widths + 2] != b"\x08\x08" or any(content[base : base + 8]):
        raise ValueError("its addresses are not 64 bits from its start")
    sizes = [size for start in _found(content, HEAP) for size in _objects(content, start)]
    longest = max(sizes, default=0)
    for at in (at for name in TEXTS for at in _found(content, name)):
        if max(_lengths(content, at), default=0) > max(longest, USUAL_TEXT):
            raise ValueError("a text in it is longer than all that it keeps")
    return longest


def _found(content: bytes | mmap.mmap, wanted: bytes) -> Iterator[int]:
    """Where these bytes occur."""
    at = content.find(wanted)
    while at >= 0:
        yield at
        at = content.find(wanted, at + 1)


def _objects(content: bytes | mmap.mmap, start: int) -> Iterator[int]:
    """The sizes of the objects of one heap: each has 16 bytes before it and fills up to 8."""
    at, end = start + 16, start + int.from_bytes(content[start + 8 : start + 16], "little")
    while end - at >= 16:
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        is_free = content[at : at + 2] == b"\0\0"
        at += size if is_free else 16 + -(-size // 8) * 8
        if at > min(end, len(content)) or (is_free and size < 16):
            raise ValueError("its texts do not add up")
        yield size


def _lengths(content: bytes | mmap.mmap, at: int) -> Iterator[int]:
    """What an attribute, whose name stands here, says of the lengths of its texts in heaps."""
    end = content.find(b"\0", at) + 1
    for version, ahead, unit in ((1, 8, 8), (2, 8, 1), (3, 9, 1)):
        found, shared, *sizes = struct.unpack_from("<BB3H", content, at - ahead)
        if found != version or sizes[0] != end - at:  # no attribute of this version
            continue
        if shared:
            raise ValueError("an attribute says elsewhere what it is")
        name, kind, space = (-(-size // unit) * unit for size in sizes)
        start = at + name + kind
        if content[at + name] % 16 != IN_HEAP:
            continue
        sides = start + (8 if content[start] == 1 else 4)
        count = math.prod(struct.unpack_from(f"<{content[start + 1]}Q", content, sides))
        if 16 * count > len(content):
            raise ValueError("it lists more names than it holds")
        for place in range(count):
            yield struct.unpack_from("<I", content, start + space + 16 * place)[0]
