"""Published ImageNet weights in the cache: predictions, class names, addresses, training."""

from __future__ import annotations

import csv
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from references import torch_networks
from references.command_line import residua as command
from safetensors.torch import save_file

import residua
from residua.data.augmentation import normalise
from residua.data.image import read_image
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue
from residua.weights.published.classes import imagenet_classes
from residua.weights.published.imagenet import SOURCES

NAME = "mobilenet_v1"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return torch_networks.state_dict(NAME)


@pytest.fixture(scope="module", autouse=True)
def cache(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]
) -> Iterator[None]:
    """The cache with a file that its user added, under the expected name."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "weights").mkdir()
    save_file(state, folder / "weights" / SOURCES[NAME].file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIDUA_CACHE", str(folder))
        yield


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two photos in class folders: one named by wnid, one by label with a space."""
    from sklearn.datasets import load_sample_images

    for photo, name in zip(
        load_sample_images().images, ("n02504013", "African elephant"), strict=True
    ):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(photo).save(tmp_path / "photos" / name / "photo.png")
    return tmp_path / "photos"


def expected(file: Path, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Probabilities by an independent reading of such a checkpoint."""
    preprocessing = SOURCES[NAME].preprocessing
    pixels = read_image(file, preprocessing, 10**8)
    x = normalise(torch.from_numpy(pixels[None]), preprocessing)
    with torch.inference_mode():
        return torch_networks.logits(NAME, state, x.contiguous()).softmax(1)[0]


@pytest.mark.slow
def test_the_top_three_are_wnid_label_and_probability(
    images: Path, state: dict[str, torch.Tensor]
) -> None:
    rows = residua.predict(f"imagenet:{NAME}", images, top=3)
    assert [Path(row.file).parent.name for row in rows] == ["African elephant", "n02504013"]
    for row in rows:
        best = expected(Path(row.file), state).topk(3)
        names = imagenet_classes()
        assert [name for name, _ in row.top] == [names[int(index)] for index in best.indices]
        assert [probability for _, probability in row.top] == pytest.approx(
            best.values.tolist(), abs=1e-5
        )


@pytest.mark.slow
def test_the_command_prints_the_predictions(images: Path, state: dict[str, torch.Tensor]) -> None:
    file = str(images / "n02504013" / "photo.png")
    best = imagenet_classes()[int(expected(Path(file), state).argmax())]
    printed = command("predict", f"imagenet:{NAME}", file, "--top", "3")
    assert printed.status == 0, printed.stderr
    assert f"{file}  {best} " in printed.stdout
    done = command("predict", f"imagenet:{NAME}", file, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert row["class1"] == best
    done = command("predict", f"imagenet:{NAME}", file, "--format", "json")
    assert json.loads(done.stdout)[0]["top"][0]["class"] == best


def test_class_folders_may_be_named_by_wnid_or_label(
    images: Path, state: dict[str, torch.Tensor]
) -> None:
    evaluation = residua.evaluate(f"imagenet:{NAME}", images)
    names = imagenet_classes()
    assert [names[label] for label in evaluation.labels] == [
        "n02504458 African_elephant",
        "n02504013 Indian_elephant",
    ]
    losses = [
        -expected(images / path, state)[label].log().item()
        for path, label in zip(evaluation.paths, evaluation.labels, strict=True)
    ]
    assert evaluation.metrics.loss == pytest.approx(np.mean(losses), rel=1e-3)
    (images / "no such class").mkdir()
    Image.new("RGB", (9, 9)).save(images / "no such class" / "a.png")
    with pytest.raises(ResiduaError, match="'no such class' is not among the 1,000 classes"):
        residua.evaluate(f"imagenet:{NAME}", images)


@pytest.mark.slow
def test_images_may_be_addresses(images: Path) -> None:
    content = (images / "n02504013" / "photo.png").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/elephant.png"
        file = images / "n02504013" / "photo.png"
        local, remote = residua.predict(f"imagenet:{NAME}", [file, address], allow_private=True)
        (refused,) = residua.predict(f"imagenet:{NAME}", address)
        drawn = images.parent / "grid.png"
        residua.predict(f"imagenet:{NAME}", [address], allow_private=True, grid=drawn)
        server.shutdown()
    assert remote.top == local.top
    assert remote.file == address
    assert refused.top == ()
    assert "resolves to 127.0.0.1, which is not a public IP address" in str(refused.error)
    assert Image.open(drawn).width > 100


def test_sources_that_do_not_exist_are_errors() -> None:
    for source, model, reason in (
        ("imagenet:resnet5", None, "unknown model"),
        ("imagenet:cifar_resnet20", None, "no published ImageNet weights of cifar_resnet20"),
        (f"imagenet:{NAME}", "resnet18", "has weights of mobilenet_v1, not of resnet18"),
    ):
        with pytest.raises(ResiduaError, match=reason):
            residua.predict(source, "x.png", model=model)


@pytest.mark.slow
def test_a_training_starts_from_published_weights(images: Path, tmp_path: Path) -> None:
    for name in ("n02504013", "African elephant"):
        for turned in range(4):
            image = Image.open(images / name / "photo.png").rotate(10 * turned)
            image.resize((64, 64)).save(images / name / f"{turned}.png")
    run = residua.train(
        images,
        model=NAME,
        weights="imagenet",
        new_head=True,
        epochs=1,
        size=64,
        out=tmp_path / "run",
        quiet=True,
    )
    assert run.config.network.classes == 2
    assert run.preprocessing.mean == SOURCES[NAME].preprocessing.mean
    recorded = json.loads((run.path / "weights.json").read_text())
    assert recorded["source"] == SOURCES[NAME].address


def test_every_source_is_listed_with_its_hash() -> None:
    done = command("weights", "sources")
    assert done.status == 0
    for name, source in SOURCES.items():
        assert f"{name}\n  {source.address}\n" in done.stdout
        assert source.digest in done.stdout
        assert name in catalogue.ROWS
