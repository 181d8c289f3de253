"""Another head reads the map of its stage, and a file records which head it holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from references.network_checks import narrow_spec
from references.weights_files import PREPARED
from references.worn_networks import images, worn

from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks.staged import pooled
from residua.networks.zoo import catalogue
from residua.runs.sources import start_from
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata, to_bytes
from residua.weights.network import build_network

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = dataclasses.replace(PREPARED, size=16, mean=(0.0,) * 3, std=(255.0,) * 3)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "head", "stage", "pool_size"),
    [
        *((name, "mlp:7", 2, 2) for name in ("cifar_resnet14", "vgg11", "alexnet", "densenet121")),
        *((name, "mlp:7", 2, 2) for name in ("googlenet", "xception")),
        ("cifar_resnet14", "linear", None, None),
        ("preact_resnet18", "linear", None, None),  # with a tail
        ("mobilenet_v1", "linear", 5, 3),
    ],
)
def test_another_head_reads_the_map_of_its_stage(
    name: str,
    head: str,
    stage: int | None,
    pool_size: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, x = worn(name), images(name)
    narrow_spec(name, monkeypatch)
    stored = NetworkSpec(name, catalogue.row(name).classes, 3)
    weights = Weights(Path("weights"), network.state_dict(), Metadata(stored, (), PLAIN, {}), "")
    spec = NetworkSpec(name, 5, 3, head=head, stage=stage, pool_size=pool_size)
    started = start_from(weights, spec, new_head=True, seed=1).eval()
    before, cut = network.state_dict(), stage or len(network.stages)
    dropped = tuple(f"stages.{number}." for number in range(cut, len(network.stages)))
    dropped += ("head.", "tail.") if dropped else ("head.",)
    body = {key for key in started.state_dict() if not key.startswith("head.")}
    assert body == {key for key in before if not key.startswith(dropped)}
    assert len(started.stages) == cut
    assert all(torch.equal(started.state_dict()[key], before[key]) for key in body)
    with torch.inference_mode():
        expected = started.head(pooled(network.between(x, 0, cut), pool_size or 1))
        assert torch.equal(started(x), expected)
        assert expected.shape == (2, 5)
        assert expected.std() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "logistic"}, "head 'logistic' is unknown: expected linear, or mlp:"),
        ({"head": "mlp:"}, "head 'mlp:' is unknown"),
        ({"head": "mlp:0"}, "head 'mlp:0' is unknown"),
        ({"head": "mlp:16,"}, "head 'mlp:16,' is unknown"),
        ({"head": "mlp:16 "}, "head 'mlp:16 ' is unknown"),
        ({"head": "linear", "stage": 0}, "stage = 0: the network has stages 1 to 3"),
        ({"head": "linear", "stage": 4}, "stage = 4: the network has stages 1 to 3"),
        ({"head": "linear", "pool_size": 0}, "pool_size = 0: expected 1 to 16"),
        ({"head": "linear", "pool_size": 17}, "pool_size = 17: expected 1 to 16"),
    ],
)
def test_malformed_heads_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ResiduaError, match=words), torch.device("meta"):
        catalogue.build_from(NetworkSpec("cifar_resnet14", 10, 3, **options))


@pytest.mark.parametrize(
    ("head", "stage", "pool_size"), [("linear", None, None), ("mlp:8,6", 2, 2), ("linear", 1, 4)]
)
def test_a_file_records_which_head_it_holds(
    head: str, stage: int | None, pool_size: int | None, tmp_path: Path
) -> None:
    spec = NetworkSpec("cifar_resnet20", 3, 3, head=head, stage=stage, pool_size=pool_size)
    network = catalogue.build_from(spec, seed=2).eval()
    file = tmp_path / "ours.safetensors"
    file.write_bytes(to_bytes(network.state_dict(), Metadata(spec, ("a", "b", "c"), PLAIN, {})))
    weights = read_file(file)
    assert weights.metadata.network == spec
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(build_network(weights, CPU)(x), network(x))
    again = start_from(weights, spec, new_head=False, seed=9).state_dict()
    assert all(torch.equal(tensor, weights.tensors[key]) for key, tensor in again.items())
    with pytest.raises(ResiduaError, match=r"ours\.safetensors: has weights of cifar_resnet20"):
        start_from(weights, NetworkSpec("cifar_resnet20", 3, 3), new_head=False, seed=9)


@pytest.mark.parametrize("ordering", [None, "e"])
def test_files_of_version_0_1_0_are_read(ordering: str | None, tmp_path: Path) -> None:
    """Without the settings of other heads, and with an ordering's letter in its header."""
    spec = NetworkSpec("cifar_resnet20", 10, 3, ordering)
    network, file = catalogue.build_from(spec, seed=2).eval(), tmp_path / "old.safetensors"
    content = to_bytes(network.state_dict(), Metadata(spec, (), PLAIN, {}))
    file.write_bytes(as_version_0_1_0(content, ordering))
    weights = read_file(file)
    assert weights.metadata.network == spec
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(build_network(weights, CPU)(x), network(x))
    started = start_from(weights, weights.metadata.network, new_head=False, seed=0)
    assert torch.equal(started.state_dict()["head.weight"], network.state_dict()["head.weight"])


def as_version_0_1_0(content: bytes, ordering: str | None) -> bytes:
    """A weights file with the network's settings of that version in its header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["residua"])
    network = {"name": "cifar_resnet20", "classes": 10, "channels": 3, "ordering": ordering}
    described["network"] = network | {"shortcut": None}
    header["__metadata__"]["residua"] = json.dumps(described)
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + content[8 + length :]
