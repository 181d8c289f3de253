"""Engines give the outputs of PyTorch, or are refused."""

from __future__ import annotations

import dataclasses
import gc
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from residua.config.schema import Preprocessing
from residua.inference import engine
from residua.inference.engine import Job, TorchEngine, engine_for, largest_difference
from residua.inference.feature_layers import FeatureLayer, FrozenStages
from residua.networks.zoo.catalogue import build

pytestmark = pytest.mark.slow  # OpenVINO takes seconds to convert a network
PREPROCESSING = Preprocessing(
    size=32,
    channels=3,
    channel_order="bgr",
    mean=(100.0, 110.0, 120.0),
    std=(50.0, 60.0, 70.0),
)
LAYERS = [FeatureLayer(1, 2), FeatureLayer(3, 1)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the network is converted once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(cache))
    monkeypatch.setattr(engine, "WORTH", {"fp32": 0, "bf16": 0})


@pytest.fixture
def pixels() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


@pytest.fixture
def job() -> Job:
    network = build("cifar_resnet14", classes=4, seed=0).eval()
    with torch.no_grad():  # statistics that folding must take into account
        for index, norm in enumerate(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.fill_(0.01 * index)
            norm.running_var.fill_(1.5)
    return FrozenStages(network, PREPROCESSING, "fp32").job(LAYERS, "of this test")


def test_openvino_agrees_with_pytorch_for_any_batch(job: Job, pixels: np.ndarray) -> None:
    fastest, refusal = engine_for(job, pixels[:2], len(pixels))
    assert (fastest.name.split()[0], refusal) == ("OpenVINO", "")
    for batch in (pixels, pixels[:1]):
        outputs, expected = fastest.run(batch), TorchEngine(job).run(batch)
        assert [output.shape for output in outputs] == [(len(batch), 64), (len(batch), 64)]
        assert largest_difference(outputs, expected) < 1e-4


def test_rows_of_several_streams_are_in_the_order_of_the_images(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    pixels = np.random.default_rng(1).integers(0, 256, (53, 32, 32, 3), np.uint8)
    fastest, _ = engine_for(job, pixels, len(pixels))
    assert fastest.name.startswith("OpenVINO")
    singly = [fastest.run(pixels[index : index + 1]) for index in range(len(pixels))]
    for layer, rows in enumerate(fastest.run(pixels)):
        assert np.array_equal(rows, np.concatenate([row[layer] for row in singly]))


def test_images_of_a_mapped_file_give_no_warning(job: Job, pixels: np.ndarray) -> None:
    """Many decoded images are in a file that is mapped for reading only."""
    pixels.flags.writeable = False
    torch.set_warn_always(True)  # else only the first one of the process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fastest, _ = engine_for(job, pixels[:2], len(pixels))
    finally:
        torch.set_warn_always(False)
    assert fastest.name.split()[0] == "OpenVINO"


def test_a_converted_network_is_read_from_the_cache(
    job: Job, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path))
    first, _ = engine_for(job, pixels, 5)
    (stored,) = tmp_path.glob("engines/*.xml")
    written = stored.stat().st_mtime_ns
    again, _ = engine_for(job, pixels, 5)
    assert stored.stat().st_mtime_ns == written
    assert np.array_equal(first.run(pixels)[1], again.run(pixels)[1])


def test_a_converted_network_is_proved_by_stored_images_without_pytorch(
    job: Job, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path))
    first, _ = engine_for(job, pixels, 5)

    def fails() -> nn.Module:
        raise AssertionError("PyTorch is not needed")

    again, refusal = engine_for(dataclasses.replace(job, plain=fails), pixels, 5)
    assert (again.name, refusal) == (first.name, "")


@pytest.mark.parametrize("is_proof_left", [True, False])
def test_a_converted_network_that_was_changed_is_refused(
    job: Job,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_proof_left: bool,
) -> None:
    """Its proof fails; without one, it is compared with PyTorch again."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path))
    engine_for(job, pixels, 5)
    other = FrozenStages(build("cifar_resnet14", seed=1).eval(), PREPROCESSING, "fp32")
    engine_for(other.job(LAYERS, "other"), pixels, 5)
    own, wrong = sorted(tmp_path.glob("engines/*.xml"), key=lambda file: file.stat().st_mtime_ns)
    for ending in (".xml", ".bin"):
        wrong.with_suffix(ending).replace(own.with_suffix(ending))
    for compiled in tmp_path.glob("engines/*.blob"):
        compiled.unlink()
    if not is_proof_left:
        own.with_suffix(".npz").unlink()
    chosen, refusal = engine_for(job, pixels, 5)
    assert chosen.name == "PyTorch (fp32)"
    assert refusal.startswith("OpenVINO refused: its outputs differ by ")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_damaged_proof_is_made_again(
    job: Job, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path))
    engine_for(job, pixels, 5)
    (proof,) = tmp_path.glob("engines/*.npz")
    proof.write_bytes(content)
    chosen, refusal = engine_for(job, pixels, 5)
    assert (chosen.name.split()[0], refusal) == ("OpenVINO", "")
    with np.load(proof) as arrays:
        assert len(arrays.files) == 3  # images and both outputs


def test_a_network_that_cannot_be_converted_runs_in_pytorch(job: Job, pixels: np.ndarray) -> None:
    class Strange(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            raise RuntimeError("no such operator")

    chosen, refusal = engine_for(
        dataclasses.replace(job, plain=Strange, key=lambda: "strange"), pixels, 5
    )
    assert chosen.name == "PyTorch (fp32)"
    assert "OpenVINO failed: " in refusal


def test_little_work_is_not_worth_a_conversion(
    job: Job, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.WORTH, "fp32", 6 * job.multiply_adds())
    assert engine_for(job, pixels, 5)[0].name.startswith("PyTorch")
    assert engine_for(job, pixels, 6)[0].name.startswith("OpenVINO")


def test_a_signal_after_two_freed_networks_is_harmless(job: Job, pixels: np.ndarray) -> None:
    handled: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: handled.append(number))
    first, _ = engine_for(job, pixels, 5)
    second, _ = engine_for(job, pixels, 5)
    del first
    gc.collect()
    del second
    gc.collect()
    signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert handled == [signal.SIGINT]
