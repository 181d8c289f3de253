"""Fixtures that several tests share.

They import what they need when they run: the process that hands out the tests needs none of it.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from residua.runs.folder import RunFolder

# Files that take long, longest first: begun late, one runs on while the other process is idle.
LONG = (
    *("test_docs", "test_keras_parity", "test_export", "test_rows", "test_notebooks"),
    *("test_experiment", "test_strategies", "test_catalogue", "test_cli", "test_compare"),
    *("test_keras_networks", "test_server", "test_search", "test_load", "test_bombs"),
)
SLOW = re.compile(r"^pytestmark = (\[[^\]]*)?pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without slow tests, do not import the files that have no others: some import Keras."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return True if SLOW.search(collection_path.read_text("utf-8")) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which processes take files (with --no-loadscope-reorder)."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """Collect garbage less often, and not among the imported modules: an eighth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def _no_flush_to_disk() -> Iterator[None]:
    """Files of tests need not survive a power cut, and waiting for the disk takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on two threads that others need too take far longer."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as residua's cache."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders of 20 images of 16 px that a network can tell apart."""
    from references.images import write_shapes

    return write_shapes(tmp_path_factory.mktemp("shapes"), 20)


@pytest.fixture(scope="module")
def keras() -> Any:
    """Real Keras, if it is installed, and its networks by our names."""
    return pytest.importorskip("references.keras_networks")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real images beside the repository (../shared/data), which it must not contain."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real images in {folder}, which travel beside the repository")
    return folder


@pytest.fixture(scope="session")
def write_digits() -> Callable[..., Path]:
    """Writes real images of handwritten digits as class folders: 8 px, PNG."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    held = load_digits()

    def write(folder: Path, count: int, start: int = 0) -> Path:
        """The images `start` to `start + count` of each of the ten classes."""
        for label in range(10):
            for place in np.flatnonzero(held.target == label)[start : start + count]:
                file = folder / str(label) / f"{place:04}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((held.images[place] * 15.9).astype(np.uint8)).save(file)
        return folder

    return write


@pytest.fixture(scope="session")
def write_weights() -> Callable[..., Path]:
    """Writes a weights file of cifar_resnet20 for images of 16 px that has learnt nothing yet."""
    import torch
    from references.weights_files import NETWORK, PREPARED

    from residua.networks.zoo import catalogue
    from residua.weights.native import Metadata, to_bytes

    colours = {"mean": (80.0, 90.0, 100.0), "std": (60.0, 60.0, 60.0)}
    preprocessing = dataclasses.replace(PREPARED, size=16, **colours)

    def write(file: Path, seed: int, *, blind: bool = False) -> Path:
        """A blind network makes the same of every image."""
        network = catalogue.build("cifar_resnet20", seed=seed)
        if blind:
            torch.nn.init.zeros_(network.stem.norm.weight)
        file.write_bytes(to_bytes(network.state_dict(), Metadata(NETWORK, (), preprocessing, {})))
        return file

    return write


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Writes the run folder of a training on a data folder, with the weights of a fresh network."""
    from references.runs import untrained

    def write(data: Path, name: str = "run", **settings: object) -> RunFolder:
        named = {key.replace("__", "."): value for key, value in settings.items()}
        return untrained(data, tmp_path / name, named)

    return write


@pytest.fixture
def run(shapes: Path, write_run: Callable[..., RunFolder]) -> RunFolder:
    """A run on 60 images of three classes, 12 of them for the test, of a fresh network."""
    return write_run(shapes)
