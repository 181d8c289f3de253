"""Networks cut after a stage, with other heads, folded, frozen: what they compute and keep."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import pytest
import torch
from references.weights_files import NETWORK, PREPARED
from torch import Tensor, nn

from residua.config.schema import Ordering
from residua.errors import ResiduaError
from residua.networks.analysis.cost import measure, smallest_input
from residua.networks.residual import ORDERINGS, Shortcut
from residua.networks.staged import Staged, pooled
from residua.networks.surgery.folding import fold_norms
from residua.networks.surgery.freezing import freeze
from residua.networks.surgery.fusing import FusedUnit
from residua.networks.zoo import catalogue
from residua.runs.sources import start_from
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata, to_bytes
from residua.weights.network import build_network

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = (
    "resnet18",
    "preact_resnet18",
    "cifar_resnet20",
    "vgg11",
    "alexnet",
    "densenet121",
    "googlenet",
    "xception",
    "mobilenet_v1",
)
every_family = pytest.mark.parametrize("name", FAMILIES)
OWN = {"cardinality": None, "head": None, "stage": None, "side": None}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
PLAIN = dataclasses.replace(PREPARED, size=16, mean=(0.0,) * 3, std=(255.0,) * 3)


@cache
def worn(name: str) -> Staged:
    """A network as a training leaves it: no norm stands at its start. Not to be changed."""
    return wear(catalogue.build(name, seed=3).eval())


def wear(network: Staged) -> Staged:
    chance = torch.Generator().manual_seed(5)
    for norm in (each for each in network.modules() if isinstance(each, NORMS)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(0, 0.3, generator=chance)
        norm.running_var.uniform_(0.5, 2, generator=chance)
        norm.weight.data.uniform_(0.5, 1.5, generator=chance)
        norm.bias.data.normal_(0, 0.3, generator=chance)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.fill_(7)
    return network


def images(name: str) -> Tensor:
    size = max(40, smallest_input(worn(name)))
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def same(found: Tensor, expected: Tensor, share: float) -> bool:
    return bool((found - expected).abs().max() <= share * expected.abs().max())


def test_totals_are_those_of_the_tutorials() -> None:
    """As Keras' summaries print them in tutorials 2 and 3."""
    with torch.device("meta"):
        resnet = catalogue.build("keras_resnet50", classes=10, head="mlp:256")
        vgg = catalogue.build("keras_vgg16", classes=10, head="mlp:4096,4096")
    freeze(resnet, 4)
    freeze(vgg, 5)
    found = measure(resnet, (3, 224, 224))
    assert (found.total, found.trainable, found.non_trainable) == (24_114_826, 527_114, 23_587_712)
    found = measure(vgg, (3, 48, 48))
    assert (found.total, found.trainable, found.non_trainable) == (
        33_638_218,
        18_923_530,
        14_714_688,
    )


@every_family
def test_a_cut_changes_nothing(name: str) -> None:
    network, x = worn(name), images(name)
    with torch.inference_mode():
        whole = network(x)
        assert len(network.stages) >= 2
        assert whole.abs().max() > 0
        for cut in range(len(network.stages) + 1):
            entered = network.enter(x, cut)
            assert torch.equal(network.leave(entered.clone(), cut), whole), cut
        last = network.enter(x, len(network.stages))
        assert torch.equal(last, network.features(x)[-1])


@pytest.mark.parametrize(
    ("name", "head", "stage", "side"),
    [
        *((name, "mlp:7", 2, 2) for name in FAMILIES),
        ("cifar_resnet20", "linear", None, None),
        ("preact_resnet18", "linear", None, None),  # with a tail
        ("mobilenet_v1", "linear", 5, 3),
    ],
)
def test_another_head_reads_the_map_of_its_stage(
    name: str, head: str, stage: int | None, side: int | None
) -> None:
    network, x = worn(name), images(name)
    told = {**NETWORK, "name": name, "classes": catalogue.row(name).classes, **OWN}
    weights = Weights(Path("weights"), network.state_dict(), Metadata(told, (), PLAIN, {}), "")
    asked = {**told, "classes": 5, "head": head, "stage": stage, "side": side}
    begun = start_from(weights, asked, new_head=True, seed=1).eval()
    before, cut = network.state_dict(), stage or len(network.stages)
    dropped = tuple(f"stages.{number}." for number in range(cut, len(network.stages)))
    dropped += ("head.", "tail.") if dropped else ("head.",)
    kept = {key for key in begun.state_dict() if not key.startswith("head.")}
    assert kept == {key for key in before if not key.startswith(dropped)}
    assert len(begun.stages) == cut
    assert all(torch.equal(begun.state_dict()[key], before[key]) for key in kept)
    with torch.inference_mode():
        expected = begun.head(pooled(network.enter(x, cut), side or 1))
        assert torch.equal(begun(x), expected)
        assert expected.shape == (2, 5)
        assert expected.std() > 0


@every_family
def test_folding_changes_nothing_but_the_layers(name: str) -> None:
    network, x = worn(name), images(name)
    before = {key: each.clone() for key, each in network.state_dict().items()}
    quick = fold_norms(network, "fp32")
    with torch.inference_mode():
        for number, (found, expected) in enumerate(
            zip(quick.features(x), network.features(x), strict=True), start=1
        ):
            assert same(found, expected, 1e-4), number
        assert same(quick(x), network(x), 1e-4)
    count = [sum(isinstance(each, NORMS) for each in one.modules()) for one in (network, quick)]
    assert count[1] < count[0] or count[0] == 0
    assert not any(each.requires_grad for each in quick.parameters())
    assert all(each.requires_grad for each in network.parameters())
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(each, before[key]) for key, each in network.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("shortcut", ["A", "B", "D", "none"])
def test_every_order_and_shortcut_folds(
    ordering: Ordering, shortcut: Shortcut, precision: str
) -> None:
    """On a CPU sums and ReLUs are part of the convolutions, where nothing stands between."""
    fused = torch.backends.mkldnn.is_available()
    if precision == "bf16":
        fused = fused and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    network = wear(catalogue.build("cifar_resnet14", ordering=ordering, shortcut=shortcut, seed=0))
    x = images("cifar_resnet14")
    quick = fold_norms(network, precision)
    kind, rough = (torch.float32, 1e-4) if precision == "fp32" else (torch.bfloat16, 0.05)
    with torch.inference_mode():
        found = quick.between(x.to(kind), 0, 3).float()
        assert same(found, network.eval().between(x, 0, 3), rough)
    sums = [each for each in quick.modules() if isinstance(each, FusedUnit)]
    between = ordering in ("bn_after_addition", "relu_before_addition")
    assert len(sums) == (6 if fused and not between and shortcut != "none" else 0)
    left = [each for each in quick.modules() if isinstance(each, nn.ReLU)]
    if fused and ordering == "original" and shortcut != "none":
        assert not left


def test_folding_takes_a_network_in_training_mode() -> None:
    network = catalogue.build("cifar_resnet20", seed=3)
    network.load_state_dict(worn("cifar_resnet20").state_dict())
    x = images("cifar_resnet20")
    with torch.inference_mode():
        assert same(fold_norms(network, "fp32")(x), worn("cifar_resnet20")(x), 1e-4)
    assert all(each.training for each in network.modules())


@pytest.mark.parametrize(
    ("name", "stages"), [("cifar_resnet20", 2), ("preact_resnet18", 4), ("densenet121", 4)]
)
def test_frozen_layers_stay_whatever_is_called(name: str, stages: int) -> None:
    """All stages frozen: so is the tail, which stands between them and the head."""
    network = catalogue.build(name, classes=3, seed=0)
    freeze(network, stages)
    frozen = ("stem.", *(f"stages.{number}." for number in range(stages)))
    frozen += ("tail.",) if stages == len(network.stages) else ()
    before = {key: each.clone() for key, each in network.state_dict().items()}
    network.eval()
    network.train()
    network.stages.train()
    learning = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(learning, 0.1)
    network(images(name)).square().sum().backward()
    optimizer.step()
    for key, parameter in network.named_parameters():
        assert (parameter.grad is None) == key.startswith(frozen), key
    for key, tensor in network.state_dict().items():
        if key.startswith(frozen):
            assert torch.equal(tensor, before[key]), key
    assert not torch.equal(network.state_dict()["head.weight"], before["head.weight"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"head": "logistic"}, "head 'logistic' is unknown: expected linear, or mlp:"),
        ({"head": "mlp:"}, "head 'mlp:' is unknown"),
        ({"head": "mlp:0"}, "head 'mlp:0' is unknown"),
        ({"head": "mlp:16,"}, "head 'mlp:16,' is unknown"),
        ({"head": "mlp:16 "}, "head 'mlp:16 ' is unknown"),
        ({"head": "linear", "stage": 0}, "stage = 0: the network has stages 1 to 3"),
        ({"head": "linear", "stage": 4}, "stage = 4: the network has stages 1 to 3"),
        ({"head": "linear", "side": 0}, "side = 0: expected 1 to 16"),
        ({"head": "linear", "side": 17}, "side = 17: expected 1 to 16"),
        ({"stage": 2}, "cifar_resnet20: stage and side belong to another head: give head too"),
        ({"side": 2}, "stage and side belong to another head"),
    ],
)
def test_what_is_no_head_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(ResiduaError, match=said):
        catalogue.build("cifar_resnet20", **asked)  # type: ignore[arg-type]


def test_more_stages_than_there_are_cannot_be_frozen() -> None:
    with pytest.raises(ResiduaError, match="freeze = 4: the network has 3 stages"):
        freeze(catalogue.build("cifar_resnet20", seed=0), 4)


@pytest.mark.parametrize(
    ("head", "stage", "side"), [("linear", None, None), ("mlp:8,6", 2, 2), ("linear", 1, 4)]
)
def test_a_file_says_which_head_it_holds(
    head: str, stage: int | None, side: int | None, tmp_path: Path
) -> None:
    told = {**NETWORK, **OWN, "classes": 3, "head": head, "stage": stage, "side": side}
    network = catalogue.build(**told, seed=2).eval()  # type: ignore[arg-type]
    file = tmp_path / "ours.safetensors"
    file.write_bytes(to_bytes(network.state_dict(), Metadata(told, ("a", "b", "c"), PLAIN, {})))
    held = read_file(file)
    assert held.metadata.network == told
    assert held.has_head
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(build_network(held, torch.device("cpu"))(x), network(x))
    again = start_from(held, told, new_head=False, seed=9)
    assert all(torch.equal(each, held.tensors[key]) for key, each in again.state_dict().items())
    with pytest.raises(ResiduaError, match=r"ours\.safetensors: has weights of cifar_resnet20"):
        start_from(held, {**told, **OWN}, new_head=False, seed=9)


def test_files_from_before_there_were_other_heads_are_read(tmp_path: Path) -> None:
    network, file = catalogue.build("cifar_resnet20", seed=2).eval(), tmp_path / "old.safetensors"
    file.write_bytes(to_bytes(network.state_dict(), Metadata(NETWORK, (), PLAIN, {})))
    held = read_file(file)
    assert held.metadata.network == {**NETWORK, **OWN}
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(build_network(held, torch.device("cpu"))(x), network(x))
    begun = start_from(held, held.metadata.network, new_head=False, seed=0)
    assert torch.equal(begun.state_dict()["head.weight"], network.state_dict()["head.weight"])
