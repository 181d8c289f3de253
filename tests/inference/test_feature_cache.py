"""Rows of features are found by key and layer; a damaged file is ignored, never believed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from residua.inference.feature_cache import FeatureCache
from residua.inference.feature_layers import FeatureLayer

LAYERS = [FeatureLayer(1, 4), FeatureLayer(3, 1)]
KEYS = [hashlib.sha256(bytes([number])).digest() for number in range(20)]
VALUES = {
    LAYERS[0]: np.arange(80, dtype=np.float32).reshape(20, 4),
    LAYERS[1]: np.arange(60, dtype=np.float32).reshape(20, 3) / 7,
}


def read(cache: FeatureCache, keys: list[bytes] = KEYS) -> tuple[np.ndarray, dict]:
    into = {layer: np.zeros((len(keys), VALUES[layer].shape[1]), np.float32) for layer in LAYERS}
    return cache.read(keys, into), into


def test_rows_are_read_in_any_order_from_any_piece(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "network")
    for part in (slice(0, 5), slice(5, 12)):
        cache.write(KEYS[part], {layer: rows[part] for layer, rows in VALUES.items()})
    order = [*range(19, -1, -1), 3, 3]
    known, rows = read(cache, [KEYS[number] for number in order])
    assert known.tolist() == [number < 12 for number in order]
    for layer in LAYERS:
        expected = VALUES[layer][order]
        assert np.array_equal(rows[layer][known], expected[known])


def test_a_row_is_known_only_if_all_its_layers_are(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "network")
    cache.write(KEYS, {LAYERS[0]: VALUES[LAYERS[0]]})
    assert not read(cache)[0].any()
    cache.write(KEYS[:4], {LAYERS[1]: VALUES[LAYERS[1]][:4]})
    assert read(cache)[0].tolist() == [True] * 4 + [False] * 16


def test_networks_do_not_share_rows(tmp_path: Path) -> None:
    FeatureCache(tmp_path, "network").write(KEYS, VALUES)
    assert not read(FeatureCache(tmp_path, "another"))[0].any()
    assert read(FeatureCache(tmp_path, "network"))[0].all()


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_keys(content: bytes) -> bytes:
    tensors = safetensors.numpy.load(content)
    return safetensors.numpy.save({name: tensors[name] for name in tensors if name != "keys"})


def with_single_key(content: bytes) -> bytes:
    tensors = safetensors.numpy.load(content)
    return safetensors.numpy.save(tensors | {"keys": np.array(7, np.uint8)})


def with_numbers_as_keys(content: bytes) -> bytes:
    tensors = safetensors.numpy.load(content)
    return safetensors.numpy.save(tensors | {"keys": np.full(20, 10**15)})


def with_fewer_rows(content: bytes) -> bytes:
    tensors = safetensors.numpy.load(content)
    fewer = {name: tensors[name][:5] for name in tensors}
    return safetensors.numpy.save(fewer | {"keys": tensors["keys"]})


def with_narrow_rows(content: bytes) -> bytes:
    tensors = safetensors.numpy.load(content)
    return safetensors.numpy.save(
        {name: tensors[name] if name == "keys" else tensors[name][:, :1] for name in tensors}
    )


def with_a_flipped_bit(content: bytes) -> bytes:
    at = 8 + int.from_bytes(content[:8], "little") + 3  # of the first number
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        cut_off,
        without_keys,
        with_single_key,
        with_numbers_as_keys,
        with_fewer_rows,
        with_narrow_rows,
        with_a_flipped_bit,
        lambda _: b"",
        lambda _: b"no features",
        lambda _: (2**62).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_damaged_file_is_ignored_and_repaired(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    cache = FeatureCache(tmp_path, "network")
    cache.write(KEYS, VALUES)
    (piece,) = cache.folder.iterdir()
    piece.write_bytes(damage(piece.read_bytes()))
    (cache.folder / "0.safetensors").mkdir()
    (cache.folder / "notes.txt").write_text("not features")
    assert not read(cache)[0].any()
    cache.write(KEYS, VALUES)
    known, rows = read(cache)
    assert known.all()
    assert all(np.array_equal(rows[layer], VALUES[layer]) for layer in LAYERS)


def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    warnings: list[str] = []
    for folder in (tmp_path / "file", Path("/proc/residua")):
        cache = FeatureCache(folder, "network", warnings.append)
        for _ in range(2):
            cache.write(KEYS, VALUES)
        assert not read(cache)[0].any()
    assert len(warnings) == 2
    assert all("features are not cached" in text and "RESIDUA_CACHE" in text for text in warnings)
