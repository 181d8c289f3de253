"""Features of images are computed once, and cached by content; a kill loses the last piece."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import residua
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.inference import features
from residua.inference.feature_layers import FeatureLayer
from residua.inference.features import FeatureExtractor
from residua.transfer.context import StrategyContext
from residua.weights.load import read_file

LAYERS = [FeatureLayer(1, 4), FeatureLayer(3, 1)]
SAVES_EACH_BATCH = """
from residua.__main__ import main
from residua.inference import features
features.PIECE_SECONDS, features.BATCH_PIXELS = 0.0, 64 * 16 * 16
main()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, of one test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RESIDUA_CACHE", str(folder))
    return folder


@pytest.fixture
def extractor_of(context_of: Callable[..., StrategyContext]) -> Callable[..., FeatureExtractor]:
    def extractor(data: Path, weights: Path, **settings: Any) -> FeatureExtractor:
        return context_of(data, weights, "features", **settings).features

    return extractor


def every(extractor: FeatureExtractor) -> Integers:
    return np.arange(len(extractor.labels))


def test_renamed_and_moved_images_are_cached(
    shapes: Path, weights: Path, tmp_path: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    first = extractor_of(shapes, weights)
    rows = first.rows(LAYERS, every(first))
    assert rows.computed == 60
    for file in sorted(shapes.rglob("*.png")):
        target = tmp_path / "elsewhere" / f"class {file.parent.name}" / f"image{file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    moved = extractor_of(tmp_path / "elsewhere", weights)
    again = moved.rows(LAYERS, every(moved))
    assert again.computed == 0
    assert all(np.array_equal(again.values[layer], rows.values[layer]) for layer in LAYERS)


def test_one_changed_pixel_is_one_row(
    shapes: Path, weights: Path, tmp_path: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    extractor = extractor_of(shapes, weights)
    before = extractor.rows(LAYERS, every(extractor))
    copy = shutil.copytree(shapes, tmp_path / "copy")
    file = sorted(copy.rglob("*.png"))[17]
    pixels = np.array(Image.open(file))
    pixels[4, 4] ^= 128
    Image.fromarray(pixels).save(file)
    changed = extractor_of(copy, weights)
    after = changed.rows(LAYERS, every(changed))
    assert after.computed == 1
    differs = (after.values[LAYERS[0]] != before.values[LAYERS[0]]).any(axis=1)
    assert np.flatnonzero(differs).tolist() == [17]


def test_rows_that_an_earlier_run_has_cached_count_only_when_requested(
    shapes: Path, weights: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    """So the audit of a run checks the same labels whatever the cache has."""
    earlier, extractor = extractor_of(shapes, weights), extractor_of(shapes, weights)
    earlier.rows(LAYERS, every(earlier))
    assert len(extractor.cached(LAYERS[0], every(extractor)).samples) == 0
    extractor.rows(LAYERS[:1], np.arange(10, 30))
    extractor.rows(LAYERS[1:], np.arange(20, 40))
    found = [extractor.cached(layer, np.arange(25)).samples.tolist() for layer in LAYERS]
    assert found == [list(range(10, 25)), list(range(20, 25))]


@pytest.mark.slow
def test_other_weights_and_other_preprocessing_are_other_rows(
    shapes: Path,
    weights: Path,
    blind: Path,
    extractor_of: Callable[..., FeatureExtractor],
) -> None:
    extractor = extractor_of(shapes, weights)
    before = extractor.rows(LAYERS, every(extractor))
    for other in (
        extractor_of(shapes, blind),
        extractor_of(shapes, weights, preprocessing__mean=[10.0, 20.0, 30.0]),
    ):
        rows = other.rows(LAYERS, every(other))
        assert rows.computed == 60
        for layer in LAYERS:
            assert not np.allclose(rows.values[layer], before.values[layer], rtol=1e-3)
    assert extractor.rows(LAYERS, every(extractor)).computed == 0


@pytest.mark.slow
def test_cached_values_are_the_computed_ones_and_those_of_the_network(
    shapes: Path, weights: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    extractor = extractor_of(shapes, weights)
    part = extractor.rows(LAYERS, every(extractor)[10:30])
    computed = extractor.rows(LAYERS, every(extractor))
    assert (part.computed, computed.computed) == (20, 40)
    cached = extractor_of(shapes, weights).rows(LAYERS, every(extractor)[::-1])
    assert cached.computed == 0
    files = [str(file) for file in sorted(shapes.rglob("*.png"))]
    for layer in LAYERS:
        assert np.array_equal(cached.values[layer][::-1], computed.values[layer])
        assert np.array_equal(cached.values[layer][::-1][10:30], part.values[layer])
        plain = residua.features(weights, files, stage=layer.stage, pool_size=layer.pool_size)
        expected = dict(zip(plain.files, plain.values, strict=True))
        rows = np.stack([expected[file] for file in files])
        np.testing.assert_allclose(computed.values[layer], rows, rtol=1e-3, atol=1e-4)


def test_a_new_layer_is_computed_and_the_others_stay(
    shapes: Path, weights: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    extractor = extractor_of(shapes, weights)
    extractor.rows(LAYERS[:1], every(extractor))
    assert extractor.rows(LAYERS, every(extractor)).computed == 60
    assert extractor.rows(LAYERS, every(extractor)).computed == 0
    assert extractor.rows(LAYERS[1:], every(extractor)).computed == 0


def test_features_are_saved_while_they_are_computed(
    shapes: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    extractor_of: Callable[..., FeatureExtractor],
) -> None:
    """Whatever ends the process: all but the last piece are there for the next one."""
    monkeypatch.setattr(features, "PIECE_SECONDS", 0.0)
    extractor = extractor_of(shapes, weights)
    extractor.batch = 20

    def report(done: int, total: int) -> None:
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extractor.rows(LAYERS, every(extractor), report=report)
    assert extractor.rows(LAYERS, every(extractor)).computed == 20


def write_idx(folder: Path, count: int) -> Path:
    """Noise with a bright square whose position is the class, in files as MNIST's."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    labels = (np.arange(count) % 10).astype(np.uint8)
    pixels = generator.integers(0, 200, (count, 16, 16), dtype=np.uint8)
    for number, label in enumerate(labels):
        pixels[number, label : label + 4, label : label + 4] = 255
    for name, values in (("images-idx3", pixels), ("labels-idx1", labels)):
        head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
        (folder / f"train-{name}-ubyte").write_bytes(head + values.tobytes())
    return folder


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_features_that_it_had_saved(
    weights: Path, cache: Path, tmp_path: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    count, layer = 2_000, FeatureLayer(1, 1)
    data, run = write_idx(tmp_path / "data", count), tmp_path / "run"
    words = [sys.executable, "-c", SAVES_EACH_BATCH, "train", str(data), "--weights", str(weights)]
    words += ["--transfer", "features", "--val-fraction", "0", "--out", str(run)]
    for setting in ("network.stage=1", "network.pool_size=1", "training.precision=fp32"):
        words += ["--set", setting]
    restarted = {"OMP_NUM_THREADS": "1", "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"}
    environment = {**os.environ, **restarted}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    while len(list(cache.rglob("*.safetensors"))) < 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "best.safetensors").exists()
    extractor = extractor_of(data, weights)
    values = {layer: np.zeros((count, 16), np.float32)}
    saved = int(extractor.cache.read(extractor.keys(every(extractor)), values).sum())
    assert 0 < saved < count
    resumed = residua.resume(run, quiet=True)
    assert extractor.rows([layer], every(extractor)).computed == 0
    assert resumed.folder.read_json("transfer.json")["computed"] == count - saved
    assert read_file(resumed.folder.weights).metadata.network.stage == 1


@pytest.mark.slow
def test_a_view_depends_on_the_seed_its_number_and_the_sample(
    shapes: Path, weights: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    extractor = extractor_of(shapes, weights)
    other = extractor_of(shapes, weights, training__seed=1)

    def maps(extractor: FeatureExtractor, samples: list[int], view: int) -> torch.Tensor:
        return extractor.maps(np.array(samples), 1, view).flatten(1)

    together = maps(extractor, [3, 41, 7], 2)
    for index, sample in enumerate([3, 41, 7]):
        alone = maps(extractor, [sample], 2)[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-4, atol=1e-4)
        for different in (
            maps(extractor, [sample], 1)[0],
            maps(extractor, [sample], 0)[0],
            maps(other, [sample], 2)[0],
        ):
            assert (different - alone).abs().max() > 0.01
    assert torch.equal(maps(extractor, [3], 0), maps(other, [3], 0))  # the image itself
    rows = [extractor.rows(LAYERS, every(extractor), view=view) for view in (0, 1, 2, 2)]
    assert [row.computed for row in rows] == [60, 60, 60, 0]
    assert not np.array_equal(rows[1].values[LAYERS[0]], rows[2].values[LAYERS[0]])
    assert other.rows(LAYERS, every(other), view=2).computed == 60
    assert other.rows(LAYERS, every(other)).computed == 0


def test_cached_rows_count_among_the_first_of_each_class(
    shapes: Path, weights: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    """However little time there is, a second call does not compute as many again."""
    extractor = extractor_of(shapes, weights)
    extractor.batch = 8  # less than what is required
    first = extractor.rows(LAYERS, every(extractor), deadline=0.0)
    assert first.computed == len(first.samples) == 24  # 8 of each class
    assert np.bincount(extractor.labels[first.samples]).tolist() == [8] * 3
    again = extractor.rows(LAYERS, every(extractor), deadline=0.0)
    assert again.computed == 0
    assert np.array_equal(np.sort(again.samples), np.sort(first.samples))
    more = extractor.rows(LAYERS, every(extractor), deadline=0.0, least=40)
    assert more.computed == 16
    assert len(more.samples) == 40


def test_the_key_of_a_network_is_that_of_version_0_1_0(
    shapes: Path, weights: Path, extractor_of: Callable[..., FeatureExtractor]
) -> None:
    """A cache that is already filled stays valid."""
    extractor = extractor_of(shapes, weights)
    mean, std = (80.0, 90.0, 100.0), (60.0,) * 3
    network = ["cifar_resnet20", 3, None, None, None]
    owner = (3, read_file(weights).sha256(), network, ("rgb", mean, std), "fp32", "cpu")
    assert (
        extractor.cache.folder
        == features.FeatureCache(extractor.cache.folder.parent, repr(owner)).folder
    )


@pytest.mark.slow
def test_features_are_saved_as_a_table(weights: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    rows = residua.features(weights, "digits", stage=2, pool_size=2)
    assert rows.values.shape == (1797, 32 * 4)
    assert rows.files[0] == "digits/0000"
    rows.save(tmp_path / "features.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "features.parquet")
    assert table["file"].to_pylist() == list(rows.files)
    columns = [table[f"feature{number}"].to_numpy() for number in range(128)]
    np.testing.assert_array_equal(np.stack(columns, axis=1), rows.values)
    with pytest.raises(ResiduaError, match="stages 1 to 3"):
        residua.features(weights, "digits", stage=4)
