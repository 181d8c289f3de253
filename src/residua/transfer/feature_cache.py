"""Features of images <-> files under the user's cache folder, found again by content alone.

A row belongs to the pixels that entered the network, to the network and to nothing else: not to
the file's name, its folder or its label. So a renamed folder finds everything, and a changed pixel
nothing. (An augmented view is drawn by the image's number, and so belongs to that too.) Rows are
written in pieces, each file whole or not at all: what a killed process has written is there for the
next one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from residua.system.files import write_atomically
from residua.transfer.feature_layers import Tap

Floats = npt.NDArray[np.float32]
KEY = 32  # bytes of SHA-256


class Store:
    """Rows of features of one network: `owner` names it, with all else that they depend on."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder = folder / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def read(self, keys: Sequence[bytes], into: Mapping[Tap, Floats]) -> npt.NDArray[np.bool_]:
        """Fill those rows of `into`, float32 [len(keys), D] for each tap, that there are.

        Returns bool [len(keys)]: where all taps have their row. A file that cannot be read counts
        as not there.
        """
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        found = {tap: np.zeros(len(keys), bool) for tap in into}
        for path in sorted(self.folder.glob("*.safetensors")):
            with contextlib.suppress(OSError, SafetensorError, ValueError, TypeError):
                self._read_piece(path, places, into, found)
        return np.asarray(np.stack(list(found.values())).all(axis=0))

    def _read_piece(
        self,
        path: Path,
        places: Mapping[bytes, list[int]],
        into: Mapping[Tap, Floats],
        found: Mapping[Tap, npt.NDArray[np.bool_]],
    ) -> None:
        with safe_open(str(path), "numpy") as piece:
            own = _verified(piece, "keys", np.uint8, (-1, KEY))
            pairs = [
                (row, place) for row, key in enumerate(own) for place in places.get(bytes(key), ())
            ]
            if not pairs:
                return
            rows, targets = (np.array(each, np.int64) for each in zip(*pairs, strict=True))
            for tap, values in into.items():
                if _name(tap) in piece.keys():  # noqa: SIM118 - it is no dictionary
                    shape = (len(own), values.shape[1])
                    values[targets] = _verified(piece, _name(tap), np.float32, shape)[rows]
                    found[tap][targets] = True

    def write(self, keys: Sequence[bytes], values: Mapping[Tap, Floats]) -> None:
        """Add rows float32 [len(keys), D] for each tap. Raises ResiduaError if the disk is full."""
        stacked = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)
        tensors = {"keys": stacked} | {
            _name(tap): np.ascontiguousarray(each, np.float32) for tap, each in values.items()
        }
        named = hashlib.sha256(stacked.tobytes() + "".join(sorted(tensors)).encode()).hexdigest()
        digests = {name: _digest(each) for name, each in tensors.items()}
        content = safetensors.numpy.save(tensors, digests)
        write_atomically(self.folder / f"{named[:32]}.safetensors", content)


def _verified(piece: Any, name: str, kind: type, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """A tensor of a piece, if it is what was written. Raises ValueError; -1 is any length."""
    found: npt.NDArray[Any] = piece.get_tensor(name)
    fits = found.ndim == 2 and all(a in (-1, b) for a, b in zip(shape, found.shape, strict=True))
    if found.dtype != kind or not fits or (piece.metadata() or {}).get(name) != _digest(found):
        raise ValueError(f"{name} is damaged")
    return found


def _digest(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _name(tap: Tap) -> str:
    return f"stage{tap.stage}side{tap.side}"
