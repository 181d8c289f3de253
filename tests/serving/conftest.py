"""Real servers on free ports, in this process."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from residua.serving.app import create_app
from residua.serving.limits import Limits
from residua.serving.service import Model
from residua.weights.load import Weights, read_file

CLASSES = tuple(f"<b>class {letter}</b>" for letter in "abcdefghij")


@pytest.fixture(scope="package")
def weights(
    write_weights: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Weights:
    file = tmp_path_factory.mktemp("served") / "net.safetensors"
    return read_file(write_weights(file, 5)).with_classes(CLASSES)


@pytest.fixture(scope="package")
def model(weights: Weights) -> Model:
    return Model.of(weights, "net", torch.device("cpu"))


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two photos and a file that is no image."""
    folder = tmp_path_factory.mktemp("uploads")
    for name, seed in (("a.jpg", 1), ("b.png", 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "c.jpg").write_bytes(b"no image")
    return [folder / name for name in ("a.jpg", "b.png", "c.jpg")]


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


@contextlib.contextmanager
def serving(
    model: Model,
    limits: Limits | None = None,
    token: str | None = None,
    report: Callable[[str], None] | None = None,
) -> Iterator[httpx.Client]:
    """A client of a server that runs until the end of the block; it may report no error, unless
    `report` is given."""
    errors: list[str] = []
    app = create_app(model, limits or Limits(), token=token, report=report or errors.append)
    config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.005)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, timeout=20) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
    assert errors == []


@pytest.fixture(scope="package")
def client(model: Model) -> Iterator[httpx.Client]:
    with serving(model) as client:
        yield client
