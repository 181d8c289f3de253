"""Small data, random weights and contexts that the tests of transfer share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from references.images import write_shapes
from residua.config.recipes import compose
from residua.config.validate import checked
from residua.data.prepare import prepare
from residua.system.budget import Clock, seconds_of
from residua.system.console import Console
from residua.training.context import Context
from residua.transfer.context import StrategyContext
from residua.weights.load import read_file


@pytest.fixture(scope="session", autouse=True)
def feature_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache folder, of these tests alone; one thread, for tensors are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("RESIDUA_CACHE", str(folder))
        yield folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, write_weights: Callable[..., Path]) -> Path:
    """Random weights of cifar_resnet20, for images of 16 px."""
    return write_weights(tmp_path_factory.mktemp("weights") / "random.safetensors", 7)


@pytest.fixture(scope="session")
def blind(tmp_path_factory: pytest.TempPathFactory, write_weights: Callable[..., Path]) -> Path:
    """Weights whose features are the same for every image."""
    return write_weights(tmp_path_factory.mktemp("weights") / "blind.safetensors", 4, blind=True)


@pytest.fixture(scope="session")
def with_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 training, 6 validation and 4 test images of each of three classes."""
    folder = tmp_path_factory.mktemp("data") / "splits"
    everything = write_shapes(tmp_path_factory.mktemp("data") / "all", 18)
    for file in sorted(everything.rglob("*.png")):
        number = int(file.stem)
        split = "train" if number < 8 else "validation" if number < 14 else "test"
        target = folder / split / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def context_of() -> Callable[..., StrategyContext]:
    """A prepared training, as `residua train` hands it to a strategy."""

    def context(
        data: Path, weights: Path, strategy: str, console: Console | None = None, **settings: Any
    ) -> StrategyContext:
        named = {
            "network.weights": str(weights),
            "transfer.strategy": strategy,
            "training.precision": "fp32",
            "network.new_head": strategy == "none",
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        requested = checked(compose(data, None, named))
        source = read_file(weights)
        prepared = prepare(requested, Console(quiet=True), source.expects)
        clock = Clock(seconds_of(requested.transfer.budget))
        context = Context(prepared, source, requested, clock, console or Console(quiet=True))
        return StrategyContext.of(context)

    return context
