"""A weights file whose network no longer gives its stored outputs is refused."""

from __future__ import annotations

import base64
import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from references.weights_files import NAME, NETWORK, PREPARED

from residua.config.schema import Preprocessing
from residua.errors import ResiduaError
from residua.networks.zoo.catalogue import build
from residua.runs.sources import open_source
from residua.system.console import Console
from residua.weights.golden import check_golden, golden_of
from residua.weights.load import read_file
from residua.weights.native import Metadata, to_bytes, with_attached

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
SMALL = dataclasses.replace(PREPARED, size=16)
DEEP = dataclasses.replace(SMALL, value_range=(-40.0, 4095.0))


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Writes weights with golden images; `stated` replaces the preprocessing afterwards."""

    def write(
        stated: Preprocessing = SMALL,
        seed: int = 0,
        other_seed: int | None = None,
        true: Preprocessing = SMALL,
    ) -> Path:
        from residua.config.schema import NetworkSpec

        network = build(NAME, seed=seed).eval()
        golden = golden_of(network, true)
        kept = build(NAME, seed=seed if other_seed is None else other_seed).eval()
        metadata = Metadata(NetworkSpec(NAME, 10, 3), (), stated, {}, golden=golden)
        file = tmp_path / "weights.safetensors"
        file.write_bytes(to_bytes(kept.state_dict(), metadata))
        return file

    return write


def test_unchanged_weights_pass(store: Callable[..., Path]) -> None:
    check_golden(read_file(store()))


@pytest.mark.parametrize(
    "change",
    [
        {"channel_order": "bgr"},
        {"mean": (0.0, 0.0, 0.0)},
        {"std": tuple(value * 1.1 for value in PREPARED.std)},
        {"resize": "pad"},
        {"interpolation": "nearest"},
        {"value_range": (0.0, 300.0)},
    ],
)
def test_another_preprocessing_is_refused(
    store: Callable[..., Path], change: dict[str, object]
) -> None:
    file = store(dataclasses.replace(SMALL, **change))  # type: ignore[arg-type]
    with pytest.raises(ResiduaError, match=r"other outputs for the golden images .*--no-check"):
        open_source(file, None, None, None, Console(quiet=True))
    open_source(file, None, None, None, Console(quiet=True), check=False)


def test_another_range_of_values_is_refused(store: Callable[..., Path]) -> None:
    check_golden(read_file(store(DEEP, true=DEEP)))
    for value_range in (None, (0.0, 65535.0), (-40.0, 4500.0)):
        file = store(dataclasses.replace(DEEP, value_range=value_range), true=DEEP)
        with pytest.raises(ResiduaError, match="other outputs for the golden images"):
            check_golden(read_file(file))


def test_golden_images_without_a_range_are_those_of_earlier_versions(
    store: Callable[..., Path],
) -> None:
    weights = read_file(store(DEEP, true=DEEP))
    golden = weights.metadata.golden
    assert golden is not None
    assert golden.value_range == (-40, 4095)
    earlier = dataclasses.replace(golden, value_range=None)
    metadata = dataclasses.replace(weights.metadata, golden=earlier)
    weights.path.write_bytes(to_bytes(weights.tensors, metadata))
    again = read_file(weights.path)
    assert again.metadata.golden is not None
    assert again.metadata.golden.value_range is None
    check_golden(again)


def test_other_weights_are_refused_even_after_a_check(store: Callable[..., Path]) -> None:
    check_golden(read_file(store()))
    with pytest.raises(ResiduaError, match="golden images"):
        check_golden(read_file(store(other_seed=1)))


def test_damaged_golden_images_are_refused(store: Callable[..., Path]) -> None:
    from safetensors.torch import load, save

    file = store()
    content = file.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    import json

    text = json.loads(header)["__metadata__"]
    tensors = load(content)
    for broken in (tensors["golden.images"][:3], tensors["golden.images"].float()):
        file.write_bytes(save({**tensors, "golden.images": broken}, text))
        with pytest.raises(ResiduaError, match="cannot be read as the entry golden"):
            read_file(file)
    del tensors["golden.logits"]
    file.write_bytes(save(tensors, text))
    with pytest.raises(ResiduaError, match="cannot be read as the entry golden"):
        read_file(file)


def test_golden_images_of_another_number_of_classes_are_refused(store: Callable[..., Path]) -> None:
    import json

    from safetensors.torch import load, save

    file = store()
    content = file.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    tensors = load(content)
    tensors["golden.logits"] = tensors["golden.logits"][:, :7].contiguous()
    file.write_bytes(save(tensors, json.loads(header)["__metadata__"]))
    with pytest.raises(ResiduaError, match="10 outputs, but golden images or uncertainty of 7"):
        read_file(file)


def test_a_golden_image_that_would_unpack_to_gigabytes_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    entry = {"png": base64.b64encode(content).decode(), "logits": [0.0] * NETWORK.classes}
    metadata = Metadata(NETWORK, (), PREPARED, {})
    with pytest.raises(ResiduaError, match=r"x\.onnx: cannot be read as the entry golden"):
        with_attached(Path("x.onnx"), metadata, {"golden": [entry]})
