"""Features of images are computed once: what is found again, what is not, what a kill leaves."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

import residua
from residua.config.recipes import compose
from residua.data.prepare import prepare
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.networks.staged import pooled
from residua.system.budget import Clock
from residua.system.console import Console
from residua.transfer.context import Job
from residua.transfer.feature_layers import Tap, _means
from residua.transfer.features import Frozen
from residua.weights.load import read_file

QUIET = Console(quiet=True)
TAPS = [Tap(1, 4), Tap(3, 1)]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, of one test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RESIDUA_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, write_weights: Callable[..., Path]) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "ours.safetensors", 7)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_digits: Callable[..., Path]) -> Path:
    """Fifty images of ten classes."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits", 5)


def frozen_of(data: Path, weights: Path, **settings: object) -> Frozen:
    """What a features run on that data computes features with."""
    named = {f"preprocessing.{name}": value for name, value in settings.items() if name == "mean"}
    named |= {"training.seed": settings["seed"]} if "seed" in settings else {}
    config = compose(
        data,
        None,
        {
            "network.weights": str(weights),
            "network.new_head": True,
            "transfer.strategy": "features",
            "training.precision": "fp32",
            **named,
        },
    )
    held = read_file(weights)
    prepared = prepare(config, QUIET, held.metadata)
    return Job(prepared, held, Clock(math.inf), QUIET, config).frozen


def every(frozen: Frozen) -> Integers:
    return np.arange(len(frozen.labels))


def written(cache: Path) -> dict[str, int]:
    """Every file of features, and when it was written."""
    found = sorted((cache / "features").rglob("*"))
    return {str(each): each.stat().st_mtime_ns for each in found if each.is_file()}


def head_of(run: residua.Run) -> dict[str, torch.Tensor]:
    tensors = read_file(run.folder.weights).tensors
    return {name: each for name, each in tensors.items() if name.startswith("head.")}


def features_run(data: Path, weights: Path, out: Path, **options: object) -> residua.Run:
    return residua.train(
        data,
        weights=weights,
        transfer="features",
        precision="fp32",
        out=out,
        quiet=True,
        **options,  # type: ignore[arg-type]
    )


def test_renamed_and_moved_images_are_found_again(
    data: Path, weights: Path, cache: Path, tmp_path: Path
) -> None:
    first = features_run(data, weights, tmp_path / "first")
    computed = written(cache)
    assert computed
    for file in sorted(data.rglob("*.png")):
        target = tmp_path / "elsewhere" / f"class {file.parent.name}" / f"image{file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    again = features_run(tmp_path / "elsewhere", weights, tmp_path / "again")
    assert written(cache) == computed  # nothing was written, so nothing was computed
    assert again.classes == tuple(f"class {each}" for each in range(10))
    heads = [head_of(run) for run in (first, again)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    frozen = frozen_of(tmp_path / "elsewhere", weights)
    taps = [
        Tap(each["stage"], each["side"])
        for each in json.loads((first.path / "transfer.json").read_text())["taps"]
    ]
    assert set(taps) == set(frozen.taps())
    assert frozen.rows(taps, every(frozen)).computed == 0


def test_one_changed_pixel_is_one_row(data: Path, weights: Path, tmp_path: Path) -> None:
    frozen = frozen_of(data, weights)
    assert frozen.rows(TAPS, every(frozen)).computed == 50
    own = shutil.copytree(data, tmp_path / "own")
    file = sorted(own.rglob("*.png"))[17]
    pixels = np.array(Image.open(file))
    pixels[4, 4] ^= 128
    Image.fromarray(pixels).save(file)
    changed = frozen_of(own, weights)
    found = changed.rows(TAPS, every(changed))
    assert found.computed == 1
    before, (place,) = (
        frozen.rows(TAPS, every(frozen)),
        np.flatnonzero(
            (found.values[TAPS[1]] != frozen.rows(TAPS, every(frozen)).values[TAPS[1]]).any(axis=1)
        ),
    )
    assert changed.images.pixels[place].tobytes() != frozen.images.pixels[place].tobytes()
    assert np.array_equal(
        np.delete(found.values[TAPS[0]], place, 0), np.delete(before.values[TAPS[0]], place, 0)
    )


def test_other_weights_and_other_preparation_are_other_rows(
    data: Path, weights: Path, tmp_path: Path, write_weights: Callable[..., Path]
) -> None:
    frozen = frozen_of(data, weights)
    before = frozen.rows(TAPS, every(frozen))
    for other in (
        frozen_of(data, write_weights(tmp_path / "other.safetensors", 8)),
        frozen_of(data, weights, mean=[10.0, 20.0, 30.0]),
    ):
        found = other.rows(TAPS, every(other))
        assert found.computed == 50
        for tap in TAPS:
            assert not np.allclose(found.values[tap], before.values[tap], rtol=1e-3)
    assert frozen.rows(TAPS, every(frozen)).computed == 0  # the first ones are still there


def test_cached_values_are_the_computed_ones_and_the_networks(data: Path, weights: Path) -> None:
    frozen = frozen_of(data, weights)
    some = every(frozen)[10:30]
    part = frozen.rows(TAPS, some)
    computed = frozen.rows(TAPS, every(frozen))
    assert (part.computed, computed.computed) == (20, 30)
    cached = frozen_of(data, weights).rows(TAPS, every(frozen)[::-1])
    assert cached.computed == 0
    files = [str(each) for each in sorted(data.rglob("*.png"))]
    for tap in TAPS:
        assert np.array_equal(cached.values[tap][::-1], computed.values[tap])
        assert np.array_equal(cached.values[tap][::-1][10:30], part.values[tap])
        plain = residua.features(weights, files, stage=tap.stage, side=tap.side)
        expected = dict(zip(plain.files, plain.values, strict=True))
        found = np.stack([expected[each] for each in files])
        np.testing.assert_allclose(computed.values[tap], found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("length", "side"), [(56, 2), (56, 4), (30, 2), (28, 1), (7, 1), (3, 2)])
def test_means_of_a_map_keep_its_precision(length: int, side: int) -> None:
    """Wherever a wide map is averaged in two steps, each field counts the same."""
    x = torch.rand(2, 8, length, length, generator=torch.Generator().manual_seed(1))
    for kind, error in ((torch.float32, 1e-5), (torch.bfloat16, 2**-8)):
        whole = x.to(kind)
        expected = pooled(whole.double(), side)
        assert _means(whole, side).dtype == torch.float32
        assert ((_means(whole, side) - expected).abs() <= error * expected).all()


def test_a_tap_that_was_not_asked_before_is_computed(data: Path, weights: Path) -> None:
    frozen = frozen_of(data, weights)
    frozen.rows(TAPS[:1], every(frozen))
    assert frozen.rows(TAPS, every(frozen)).computed == 50
    assert frozen.rows(TAPS, every(frozen)).computed == 0
    assert frozen.rows(TAPS[1:], every(frozen)).computed == 0


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_keys(content: bytes) -> bytes:
    held = safetensors.numpy.load(content)
    return safetensors.numpy.save({name: held[name] for name in held if name != "keys"})


def with_single_key(content: bytes) -> bytes:
    held = safetensors.numpy.load(content)
    return safetensors.numpy.save(held | {"keys": np.array(7, np.uint8)})


def with_numbers_as_keys(content: bytes) -> bytes:
    held = safetensors.numpy.load(content)
    return safetensors.numpy.save(held | {"keys": np.full(50, 10**15)})


def with_fewer_rows(content: bytes) -> bytes:
    held = safetensors.numpy.load(content)
    kept = {name: held[name][:5] for name in held}
    return safetensors.numpy.save(kept | {"keys": held["keys"]})


def with_narrow_rows(content: bytes) -> bytes:
    held = safetensors.numpy.load(content)
    return safetensors.numpy.save(
        {name: held[name] if name == "keys" else held[name][:, :1] for name in held}
    )


def with_other_numbers(content: bytes) -> bytes:
    """A disk that turned a bit of the first number: nothing but the number is wrong."""
    at = 8 + int.from_bytes(content[:8], "little") + 3
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
        with_other_numbers,
        lambda _: b"",
        lambda _: b"no features",
        lambda _: (2**62).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_file_that_is_none_of_ours_counts_as_not_there(
    data: Path, weights: Path, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    frozen = frozen_of(data, weights)
    before = frozen.rows(TAPS, every(frozen))
    (piece,) = map(Path, written(cache))
    piece.write_bytes(damage(piece.read_bytes()))
    (piece.parent / "0.safetensors").mkdir()
    (piece.parent / "notes.txt").write_text("not ours")
    after = frozen.rows(TAPS, every(frozen))
    for tap in TAPS:
        np.testing.assert_allclose(after.values[tap], before.values[tap], rtol=1e-3, atol=1e-5)
    assert frozen.rows(TAPS, every(frozen)).computed == 0  # and is repaired


def test_what_is_computed_is_kept_while_it_is_computed(weights: Path) -> None:
    """Whatever ends the process: all but about the last five seconds are there for the next one."""
    frozen = frozen_of(Path("digits"), weights)
    known: list[int] = []

    def report(done: int, all: int) -> None:
        known.append(done)
        if len(known) == 1:
            time.sleep(5.2)
        if len(known) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frozen.rows(TAPS, every(frozen), report=report)
    total = len(frozen.labels)
    assert 0 < known[0] < known[1] < total
    assert frozen.rows(TAPS, every(frozen)).computed == total - known[1]


def write_idx(folder: Path, count: int) -> Path:
    """Noise with a bright square, whose place says the class, as files like MNIST's."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    labels = (np.arange(count) % 10).astype(np.uint8)
    pixels = chance.integers(0, 200, (count, 16, 16), dtype=np.uint8)
    for number, label in enumerate(labels):
        pixels[number, label : label + 4, label : label + 4] = 255
    for name, values in (("images-idx3", pixels), ("labels-idx1", labels)):
        head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
        (folder / f"train-{name}-ubyte").write_bytes(head + values.tobytes())
    return folder


def test_killed_in_the_middle_it_goes_on_from_there(
    weights: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, tap = 9_000, Tap(1, 1)
    data, broken = write_idx(tmp_path / "data", count), tmp_path / "broken"
    settings = [
        f"network.stage={tap.stage}",
        f"network.pool_size={tap.side}",
        "training.precision=fp32",
    ]
    words = [sys.executable, "-m", "residua", "train", str(data), "--weights", str(weights)]
    words += ["--transfer", "features", "--val-fraction", "0", "--out", str(broken)]
    words += [part for each in settings for part in ("--set", each)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    while len(list(cache.rglob("*.safetensors"))) < 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (broken / "best.safetensors").exists()
    frozen = frozen_of(data, weights)
    values = {tap: np.zeros((count, 16), np.float32)}
    kept = int(frozen.store.read(frozen.keys(every(frozen)), values).sum())
    assert 0 < kept < count
    resumed = residua.resume(broken, quiet=True)
    assert frozen.rows(list(values), every(frozen)).computed == 0

    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "another cache"))
    named = dict(each.split("=") for each in settings)
    whole = features_run(data, weights, tmp_path / "whole", val_fraction=0, settings=named)
    (first, second) = head_of(resumed), head_of(whole)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)
    judged = [
        json.loads((run.path / "transfer.json").read_text())["cross_validated"]["accuracy"]
        for run in (resumed, whole)
    ]
    assert judged[0] == pytest.approx(judged[1], abs=1e-3)


def test_a_view_depends_on_the_seed_its_number_and_the_sample(data: Path, weights: Path) -> None:
    frozen, other = frozen_of(data, weights), frozen_of(data, weights, seed=1)

    def seen(frozen: Frozen, samples: list[int], view: int) -> torch.Tensor:
        return frozen.maps(np.array(samples), 1, view).flatten(1)

    together = seen(frozen, [3, 41, 7], 2)
    for place, sample in enumerate([3, 41, 7]):
        alone = seen(frozen, [sample], 2)[0]
        torch.testing.assert_close(together[place], alone, rtol=1e-4, atol=1e-4)
        for different in (
            seen(frozen, [sample], 1)[0],
            seen(frozen, [sample], 0)[0],
            seen(other, [sample], 2)[0],
        ):
            assert (different - alone).abs().max() > 0.01
    assert torch.equal(seen(frozen, [3], 0), seen(other, [3], 0))  # no view: no chance
    rows = [frozen.rows(TAPS, every(frozen), view=view) for view in (0, 1, 2, 2)]
    assert [each.computed for each in rows] == [50, 50, 50, 0]
    assert not np.array_equal(rows[1].values[TAPS[0]], rows[2].values[TAPS[0]])
    assert other.rows(TAPS, every(other), view=2).computed == 50
    assert other.rows(TAPS, every(other)).computed == 0


def test_what_is_known_counts_among_the_first_of_each_class(
    weights: Path, tmp_path: Path, write_digits: Callable[..., Path]
) -> None:
    """However little time there is, no second call computes as many again."""
    frozen = frozen_of(write_digits(tmp_path / "many", 20), weights)
    frozen.batch = 8  # smaller than what is computed whatever the time
    first = frozen.rows(TAPS, every(frozen), until=0.0)
    assert first.computed == len(first.samples) == 80  # 8 of each of ten classes
    assert np.bincount(frozen.labels[first.samples]).tolist() == [8] * 10
    again = frozen.rows(TAPS, every(frozen), until=0.0)
    assert again.computed == 0
    assert np.array_equal(np.sort(again.samples), np.sort(first.samples))


def test_views_change_the_head_and_are_repeatable(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []
    for number, (views, seed) in enumerate([(0, 0), (2, 0), (2, 0), (2, 1)]):
        monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / f"cache{number}"))
        run = features_run(
            data,
            weights,
            tmp_path / f"run{number}",
            views=views,
            seed=seed,
            settings={"network.stage": 1, "network.pool_size": 4},
        )
        heads.append(head_of(run)["head.weight"])
    assert torch.equal(heads[1], heads[2])
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[2], heads[3])


def test_features_as_a_table_and_of_a_packed_data_set(weights: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    found = residua.features(weights, "digits", stage=2, side=2)
    assert found.values.shape == (1797, 32 * 4)
    assert found.files[0] == "digits/0000"
    found.save(tmp_path / "features.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "features.parquet")
    assert table["file"].to_pylist() == list(found.files)
    columns = [table[f"feature{place}"].to_numpy() for place in range(128)]
    np.testing.assert_array_equal(np.stack(columns, axis=1), found.values)
    with pytest.raises(ResiduaError, match="stages 1 to 3"):
        residua.features(weights, "digits", stage=4)
