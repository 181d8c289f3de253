"""Features of images <-> files under the user's cache folder, by content alone.

The key of a row is the SHA-256 of the pixels that enter the network; the folder depends on the
network and on everything else that changes a feature. Names, folders and labels play no role: a
renamed folder is still cached, an image with one changed pixel is not. (An augmented view is drawn
by the index of the image, so its key depends on that too.) Rows are written in pieces, each file
atomically: a killed process loses only the last piece.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from residua.errors import ResiduaError
from residua.inference.feature_layers import FeatureLayer
from residua.system.files import remove_leftovers, write_atomically

Floats = npt.NDArray[np.float32]
KEY = 32  # bytes of SHA-256


class FeatureCache:
    """Rows of features of one network. owner: names it, and all that its features depend on."""

    def __init__(self, folder: Path, owner: str, warn: Callable[[str], None] | None = None) -> None:
        """warn: receives one message if the folder cannot be written."""
        remove_leftovers(folder)
        self.folder = folder / hashlib.sha256(owner.encode()).hexdigest()[:32]
        self.warn, self.is_writable = warn, True

    def read(
        self, keys: Sequence[bytes], into: Mapping[FeatureLayer, Floats]
    ) -> npt.NDArray[np.bool_]:
        """Fill the cached rows of `into`, float32 [len(keys), D] of each layer.

        Returns bool [len(keys)]: where all layers have their row. Unreadable files are ignored.
        """
        rows: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, []).append(row)
        cached = {layer: np.zeros(len(keys), bool) for layer in into}
        for path in sorted(self.folder.glob("*.safetensors")):
            with contextlib.suppress(OSError, SafetensorError, ValueError, TypeError):
                self._read_piece(path, rows, into, cached)
        return np.asarray(np.stack(list(cached.values())).all(axis=0))

    def _read_piece(
        self,
        path: Path,
        rows: Mapping[bytes, list[int]],
        into: Mapping[FeatureLayer, Floats],
        cached: Mapping[FeatureLayer, npt.NDArray[np.bool_]],
    ) -> None:
        with safe_open(str(path), "numpy") as piece:
            keys = _verified(piece, "keys", np.uint8, (-1, KEY))
            pairs = [
                (source, target)
                for source, key in enumerate(keys)
                for target in rows.get(bytes(key), ())
            ]
            if not pairs:
                return
            sources, targets = (np.array(numbers) for numbers in zip(*pairs, strict=True))
            for layer, values in into.items():
                if _name(layer) in piece.keys():  # noqa: SIM118 - it is no dictionary
                    shape = (len(keys), values.shape[1])
                    values[targets] = _verified(piece, _name(layer), np.float32, shape)[sources]
                    cached[layer][targets] = True

    def write(self, keys: Sequence[bytes], values: Mapping[FeatureLayer, Floats]) -> None:
        """Add rows float32 [len(keys), D] per layer. Does nothing where the folder cannot be
        written: a cache saves time only."""
        if not self.is_writable:
            return
        stacked = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)
        tensors = {"keys": stacked} | {
            _name(layer): np.ascontiguousarray(rows, np.float32) for layer, rows in values.items()
        }
        content = stacked.tobytes() + "".join(sorted(tensors)).encode()
        digests = {name: _digest(tensor) for name, tensor in tensors.items()}
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.safetensors"
        try:
            write_atomically(path, safetensors.numpy.save(tensors, digests))
        except ResiduaError as error:
            self.is_writable = False
            if self.warn is not None:
                self.warn(
                    f"features are not cached: {error} RESIDUA_CACHE names the folder of the cache."
                )


def _verified(piece: Any, name: str, dtype: type, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """A tensor of a piece. -1: any length. Raises ValueError if it is not what was written."""
    tensor: npt.NDArray[Any] = piece.get_tensor(name)
    fits = tensor.ndim == 2 and all(a in (-1, b) for a, b in zip(shape, tensor.shape, strict=True))
    digest = (piece.metadata() or {}).get(name)
    if tensor.dtype != dtype or not fits or digest != _digest(tensor):
        raise ValueError(f"{name} is damaged")
    return tensor


def _digest(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _name(layer: FeatureLayer) -> str:
    return f"stage{layer.stage}side{layer.pool_size}"  # as version 0.1.0 wrote it
