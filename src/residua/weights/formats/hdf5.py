"""An HDF5 file, checked before HDF5 opens it -> its groups, texts and tensors; no link is followed.

In a damaged file the declared length of a text makes HDF5 allocate gigabytes or never return.
Format: HDF5 File Format Specification 3.0, sections II.A (superblock), III.E (global heap) and
IV.A.2.m (attributes).
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
from residua.weights.formats.guards import MAX_RATIO, damaged, first_duplicate, one_line

Content = bytes | mmap.mmap
HEAP = b"GCOL\1\0\0\0"  # starts a heap, which stores texts
USUAL_TEXT = 2**16  # bytes that a text may declare in any file
SUPERBLOCKS = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}  # widths and base by version
VARIABLE_LENGTH = 9  # the class of such a datatype
TEXTS = (b"model_config", b"keras_version", b"layer_names", b"weight_names", b"name\0", b"dtype\0")
MAX_TEXT = 2**28  # bytes that the names in a small file may unpack to


class Reader:
    """Reads groups, texts and tensors of one file whose bytes must really be in it.

    Raises ResiduaError or, where HDF5 itself would fail badly, ValueError.
    """

    def __init__(self, path: Path, content: Content) -> None:
        self.path, self.budget = path, MAX_RATIO * len(content)
        self.max_text = max(self.budget, MAX_TEXT)
        self.longest_text = _longest_text(content)
        self.visited: set[int] = set()

    def group(self, parent: h5py.Group, name: str) -> h5py.Group:
        """A group below `parent`. Raises ResiduaError if it is a link or missing."""
        return cast("h5py.Group", self._member(parent, name))

    def tensor(self, parent: h5py.Group, name: str) -> Tensor:
        """A dataset below `parent`, copied into a tensor. Raises ResiduaError."""
        dataset = self._member(parent, name)
        where = f"{parent.name.rstrip('/')}/{name}"
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise damaged(self.path, f"{where} contains no numbers")
        # NumPy has no bfloat16: Keras 3 stores two bytes and an attribute
        bfloat16 = dataset.dtype == "V2" and self.text(dataset, "dtype") == "bfloat16"
        if not bfloat16 and (dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8):
            raise ResiduaError(
                f"{self.path}: {one_line(where)}: expected numbers of up to 64 bits, found "
                f"{one_line(dataset.dtype)}. Convert it and save it again."
            )
        if dataset.external or dataset.is_virtual:
            raise ResiduaError(
                f"{self.path}: {one_line(where)} stores its numbers in another file, which is not "
                "opened. Save them in one file with model.save_weights."
            )
        self._claim(dataset, where)
        if bfloat16:
            return torch.from_numpy(dataset[()].view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(np.asarray(dataset[()], dataset.dtype.newbyteorder("=")))

    def _claim(self, dataset: h5py.Dataset, where: str) -> None:
        """Raise ResiduaError unless every number is stored and the budget covers all of them."""
        unpacked = dataset.nbytes
        if dataset.chunks is None:
            complete = dataset.id.get_storage_size() >= unpacked
        else:
            sides = zip(dataset.shape, dataset.chunks, strict=True)
            count = math.prod(-(-side // chunk) for side, chunk in sides)
            complete = dataset.id.get_num_chunks() >= count
            unpacked = count * math.prod(dataset.chunks) * dataset.dtype.itemsize
        self.budget -= unpacked
        if self.budget < 0 or not complete:
            size = f"{' x '.join(map(str, dataset.shape))} numbers, {unpacked:,} bytes"
            raise damaged(self.path, f"{where} declares {size}, which are not in the file")

    def text(self, owner: h5py.Group | h5py.Dataset, name: str) -> str:
        """An attribute that is a single text; "" if there is none. Raises ResiduaError."""
        texts = self.texts(owner, name) if name in owner.attrs else [""]
        return texts[0] if len(texts) == 1 else ""

    def texts(self, owner: h5py.Group | h5py.Dataset, name: str) -> list[str]:
        """An attribute that is an array of texts. Raises ResiduaError."""
        attribute = owner.attrs.get_id(name)
        count = math.prod(attribute.shape)
        if count and h5py.check_string_dtype(attribute.dtype) is None:
            raise damaged(self.path, f"{owner.name}: attribute {name} is no text")
        if count * self.longest_text > self.max_text:  # all may be the same long one
            raise ValueError(f"its {count:,} names would need too much memory")
        texts = np.ravel(owner.attrs[name]).tolist() if count else []
        return [text.decode() if isinstance(text, bytes) else text for text in texts]

    def walk(self, group: h5py.Group, path: str = "") -> Iterator[tuple[str, h5py.Group]]:
        """Every group below, in the file's order, with its path."""
        self.visited.add(h5py.h5o.get_info(group.id).addr)
        for name in group:
            if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                self._refuse_link(group, name)
            child = group[name]
            if isinstance(child, h5py.Group):
                if h5py.h5o.get_info(child.id).addr in self.visited:  # a cycle, or a maze
                    self._refuse_link(group, name)
                yield f"{path}/{name}", child
                yield from self.walk(child, f"{path}/{name}")

    def refuse_duplicates(self, names: list[str], kind: str) -> None:
        """Raise ResiduaError if a name occurs twice."""
        if duplicate := first_duplicate(names):
            raise damaged(self.path, f"lists the {kind} {duplicate} twice")

    def _member(self, parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
        member = parent
        for piece in name.split("/"):
            link = None
            if piece not in ("", ".") and isinstance(member, h5py.Group):
                link = member.get(piece, getclass=True, getlink=True)
            if link is None:
                raise damaged(self.path, f"lists {name} in {parent.name}, which does not exist")
            if link is not h5py.HardLink:
                self._refuse_link(member, piece)
            member = member[piece]
        return member

    def _refuse_link(self, group: h5py.Group, name: str) -> None:
        where = one_line(f"{group.name.rstrip('/')}/{name}")
        raise ResiduaError(
            f"{self.path}: {where} is a link to another place or file, which Keras never writes; "
            "it is not followed. Save the weights with model.save_weights."
        )


def _longest_text(content: Content) -> int:
    """Bytes of the largest object in the file's heaps, where texts are stored.

    Raises ValueError if a heap's sizes do not add up, or a text declares to be longer than that.
    """
    widths, base = SUPERBLOCKS[content[8]]
    if content[widths : widths + 2] != b"\x08\x08" or any(content[base : base + 8]):
        raise ValueError("its addresses are not 64 bits from its start")
    longest, left = 0, len(content) // 8  # an object takes 16 bytes, and heaps do not overlap
    for size in (s for at in _positions(content, HEAP) for s in _object_sizes(content, at)):
        longest, left = max(longest, size), left - 1
        if left < 0:
            raise ValueError("its heaps overlap")
    for at in (at for name in TEXTS for at in _positions(content, name)):
        if max(_declared_lengths(content, at), default=0) > max(longest, USUAL_TEXT):
            raise ValueError("a text in it is longer than all that it stores")
    return longest


def _positions(content: Content, pattern: bytes) -> Iterator[int]:
    """Where these bytes occur."""
    at = content.find(pattern)
    while at >= 0:
        yield at
        at = content.find(pattern, at + 1)


def _object_sizes(content: Content, start: int) -> Iterator[int]:
    """The sizes of the objects in one heap: each has a 16-byte header and is padded to 8 bytes."""
    at, end = start + 16, start + int.from_bytes(content[start + 8 : start + 16], "little")
    while end - at >= 16:
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        is_free = content[at : at + 2] == b"\0\0"
        at += size if is_free else 16 + -(-size // 8) * 8
        if at > min(end, len(content)) or (is_free and size < 16):
            raise ValueError("its texts do not add up")
        yield size


def _declared_lengths(content: Content, at: int) -> Iterator[int]:
    """The lengths that an attribute, whose name is at `at`, declares for its texts in heaps."""
    end = content.find(b"\0", at) + 1
    for version, header, unit in ((1, 8, 8), (2, 8, 1), (3, 9, 1)):
        stored, shared, *sizes = struct.unpack_from("<BB3H", content, at - header)
        if stored != version or sizes[0] != end - at:  # no attribute of this version
            continue
        if shared:
            raise ValueError("an attribute stores its type elsewhere")
        name, datatype, dataspace = (-(-size // unit) * unit for size in sizes)
        start = at + name + datatype
        if content[at + name] % 16 != VARIABLE_LENGTH:
            continue
        sides = start + (8 if content[start] == 1 else 4)
        count = math.prod(struct.unpack_from(f"<{content[start + 1]}Q", content, sides))
        if 16 * count > len(content):
            raise ValueError("it lists more names than it contains")
        for index in range(count):
            yield struct.unpack_from("<I", content, start + dataspace + 16 * index)[0]
