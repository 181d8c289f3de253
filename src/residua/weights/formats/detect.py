"""A file, recognised by its first bytes -> its raw layers; no code in the file runs."""

from __future__ import annotations

from pathlib import Path

from residua.errors import ResiduaError
from residua.weights.exported import is_exported
from residua.weights.formats import checkpoints
from residua.weights.formats.guards import (
    EXPECTED,
    INSTEAD,
    MAX_NAME,
    damaged,
    first_bytes,
    is_safetensors,
    one_line,
    zip_names,
)
from residua.weights.formats.raw import RawWeights

HDF5 = b"\x89HDF\r\n\x1a\n"


def read_raw(path: Path) -> RawWeights:
    """The layers of a Keras or PyTorch file.

    Raises ResiduaError that names the file if it has another format, is damaged, declares more
    than it contains, or can only be read by running code.
    """
    if is_exported(path):
        raise ResiduaError(
            f"{path}: is an exported file: it predicts, evaluates and is served, but has no "
            "weights to train, convert or inspect. Use the weights that it was exported from."
        )
    raw = _read(path, first_bytes(path))
    if not raw.layers:
        raise ResiduaError(f"{path}: is {raw.form} without a tensor in it: expected {EXPECTED}.")
    for name in (*raw.layers, *(part for parts in raw.layers.values() for part in parts)):
        if len(name) > MAX_NAME or not name.isprintable():
            rule = f"expected names of at most {MAX_NAME} printable characters"
            raise damaged(path, f"{rule}, found {ascii(name)[:80]}")
    return raw


def _read(path: Path, start: bytes) -> RawWeights:
    if start.startswith(HDF5):
        return _read_keras(path, archive=False)
    if start.startswith(b"PK\3\4"):
        names = zip_names(path)
        if "model.weights.h5" in names:
            return _read_keras(path, archive=True)
        if any(name.endswith("data.pkl") for name in names):
            return checkpoints.read_pickle(path)
        if any("/data/weights/" in name or name.endswith("/archive_format") for name in names):
            raise ResiduaError(
                f"{path}: is a torch.export program, and code in a file is never run. {INSTEAD}"
            )
        raise ResiduaError(
            f"{path}: is a zip archive without weights ({one_line(', '.join(names[:3]))}, ...): "
            f"expected {EXPECTED}."
        )
    if is_safetensors(start):
        return checkpoints.read_safetensors(path)
    if start[:1] == b"\x80":
        return checkpoints.read_pickle(path)
    raise ResiduaError(f"{path}: {_foreign(start)}: expected {EXPECTED}.")


def _read_keras(path: Path, *, archive: bool) -> RawWeights:
    try:
        from residua.weights.formats import keras_files
    except ImportError as error:
        raise ResiduaError(
            f"{path}: is a Keras file, and reading it needs h5py: pip install h5py."
        ) from error
    return keras_files.read_archive(path) if archive else keras_files.read_hdf5(path)


def _foreign(start: bytes) -> str:
    """Why a file that starts like this contains no weights."""
    if not start:
        return "is empty"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not weights: its download went wrong"
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the file itself: run `git lfs pull`"
    return f"has an unknown format: it starts with {start[:8]!r}"
