"""Weights of two sources, joined as A+B: one file with both networks, or a reason why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from references.weights_files import PREPARED

from residua.config.schema import NetworkSpec, Preprocessing
from residua.config.start import joined_sources
from residua.data.augmentation import normalise
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue
from residua.runs.sources import absolute_source, is_remote, locate, open_weights, start_from
from residua.system.console import Console
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata, to_bytes
from residua.weights.network import build_network

pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = Console(quiet=True)
RULE = dataclasses.replace(PREPARED, size=16)
OTHER = dataclasses.replace(
    PREPARED, size=20, resize="squash", mean=(80.0, 90.0, 70.0), std=(60.0, 30.0, 50.0)
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes random weights of a network under a name."""

    def weights(name: str, seed: int, rule: Preprocessing = RULE, **options: object) -> Path:
        spec = NetworkSpec("cifar_resnet20", 10, rule.channels, **options)  # type: ignore[arg-type]
        network = catalogue.build_from(spec, seed=seed)
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(to_bytes(network.state_dict(), Metadata(spec, (), rule, {})))
        return file

    return weights


def join(*files: Path) -> Weights:
    return open_weights("+".join(map(str, files)), None, QUIET)


def test_each_network_sees_the_images_as_in_its_own_training(write: Callable[..., Path]) -> None:
    """Each normalised by its own mean and standard deviation, cropped as for the first one."""
    files = write("first", 1), write("second", 2, OTHER)
    weights = join(*files)
    assert weights.metadata.network.name == "cifar_resnet20+cifar_resnet20"
    assert weights.metadata.preprocessing == RULE
    assert not weights.has_head
    spec = dataclasses.replace(weights.metadata.network, classes=3, head="linear")
    network = start_from(weights, spec, new_head=True, seed=0).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    with torch.inference_mode():
        features = []
        for file, rule in zip(files, (RULE, OTHER), strict=True):
            part = build_network(read_file(file), torch.device("cpu"))
            later = part.features(normalise(images, rule))[1:]  # of three stages
            features.append(torch.cat([stage.mean((2, 3)) for stage in later], 1))
        assert not torch.allclose(features[0], features[1], atol=0.01)
        expected = F.linear(torch.cat(features, 1), network.head.weight, network.head.bias)
        torch.testing.assert_close(network(normalise(images, RULE)), expected, rtol=1e-4, atol=1e-5)


def test_the_file_is_written_once_and_again_if_it_was_damaged(
    write: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    files = write("first", 1), write("second", 2)
    weights = join(*files)
    assert weights.path.parent == cache / "joined"
    content, stamp = weights.path.read_bytes(), weights.path.stat().st_mtime_ns
    moved = [file.rename(tmp_path / f"moved-{file.name}") for file in files]
    assert join(*moved).sha256() == weights.sha256()  # so a run on them can be resumed
    assert weights.path.stat().st_mtime_ns == stamp
    weights.path.write_bytes(content[:-1] + b"?")
    assert join(*moved).path.read_bytes() == content
    assert [weights.path] == list(weights.path.parent.iterdir())
    assert locate("+".join(map(str, moved)), None, QUIET) == weights.path


def test_both_origins_are_recorded(write: Callable[..., Path]) -> None:
    file = write("first", 1)
    weights = open_weights(f"imagenet+{file}", None, QUIET)
    address = open_weights("imagenet", None, QUIET).metadata.origin.source
    assert weights.metadata.origin.source == f"{address}; {file}"


def test_a_plus_sign_in_a_path_joins_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c++" / "a+b.safetensors"
    file.parent.mkdir()
    file.touch()
    missing = tmp_path / "c++" / "missing.pth"
    assert joined_sources(str(file)) == (str(file),)
    assert joined_sources(str(missing)) == (str(missing),)
    for pair in (("imagenet", str(file)), (str(file), "imagenet:resnet18")):
        assert joined_sources("+".join(pair)) == pair
    assert joined_sources("imagenet+missing.pth") == ("imagenet", "missing.pth")


def test_a_pair_is_found_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").touch()
    assert absolute_source("imagenet+weights.pth") == f"imagenet+{tmp_path / 'weights.pth'}"
    assert is_remote("imagenet+weights.pth")  # no path of its own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ordering": "full_preactivation"},
            "other.safetensors is of cifar_resnet20 with ordering ",
        ),
        ({"stage": 2, "head": "linear"}, "other.safetensors ends after stage 2 of the 3 of cifar"),
        (
            {"rule": dataclasses.replace(RULE, channels=1, mean=(120.0,), std=(60.0,))},
            r"reads images with 3 channels, \S*other.safetensors with 1 channel\.",
        ),
        (
            {"rule": dataclasses.replace(RULE, channel_order="bgr")},
            r"first.safetensors reads images in rgb order, \S*other.safetensors in bgr order\.",
        ),
    ],
)
def test_networks_that_do_not_fit_together_are_refused(
    write: Callable[..., Path], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ResiduaError, match=message) as refusal:
        join(write("first", 1), write("other", 2, **options))
    assert "first.safetensors+" in str(refusal.value)


def test_two_networks_are_joined_not_three(write: Callable[..., Path]) -> None:
    first, second, third = (write(name, seed) for seed, name in enumerate(("a", "b", "c")))
    with pytest.raises(ResiduaError, match=r"joins '\S+', '\S+', '\S+'\. Expected two different"):
        join(first, second, third)
    with pytest.raises(ResiduaError, match="Expected two different"):
        join(first, first)
    pair = join(first, second).path
    with pytest.raises(ResiduaError, match="which is two networks already"):
        join(pair, third)
    with pytest.raises(ResiduaError, match=r"has weights of cifar\S+, not of resnet18"):
        open_weights(f"{first}+{second}", "resnet18", QUIET)
    (exported := first.with_name("model.onnx")).write_bytes(b"any")
    with pytest.raises(ResiduaError, match=r"model.onnx: is an exported file.*cannot be joined"):
        join(first, exported)
    with pytest.raises(ResiduaError, match=r"missing\.pth: there is no such file"):
        join(first, third.with_name("missing.pth"))
