"""Two networks side by side compute what both compute alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references.worn_networks import wear

from residua.config.schema import NetworkSpec
from residua.errors import UsageError
from residua.networks.analysis.cost import measure
from residua.networks.side_by_side import FIRST, SCALE, SECOND, SHIFT
from residua.networks.staged import Staged
from residua.networks.surgery.folding import fold_norms_
from residua.networks.zoo.catalogue import build, build_from, outline_of, row

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("mobilenet_v1", "cifar_resnet20")  # maps of 2 x 2 and 16 x 16 for images of 64 px


def without_head(network: Staged) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    return {name: state[name] for name in state if not name.startswith("head")}


def joined(first: Staged, second: Staged) -> Staged:
    network = build("+".join(NAMES), classes=5, seed=0).eval()
    state = {f"{FIRST}{name}": tensor for name, tensor in without_head(first).items()}
    state |= {f"{SECOND}{name}": tensor for name, tensor in without_head(second).items()}
    rest = network.load_state_dict(state, strict=False)
    assert set(rest.missing_keys) == {SCALE, SHIFT, "head.weight", "head.bias"}
    assert not rest.unexpected_keys
    return network


@pytest.mark.slow
def test_logits_are_those_of_the_head_on_the_features_of_both() -> None:
    first, second = (wear(build(name, seed=3).eval()) for name in NAMES)
    network = joined(first, second)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 3, 64, 64, generator=generator)
    scale, shift = torch.tensor([1.5, 0.5, 2.0]), torch.tensor([0.1, -0.2, 0.3])
    network.load_state_dict(
        {**network.state_dict(), SCALE: scale[:, None, None], SHIFT: shift[:, None, None]}
    )
    own = torch.stack([x[:, c] * scale[c] + shift[c] for c in range(3)], 1)  # of the second
    with torch.inference_mode():
        parts = first.features(x), second.features(own)
        assert [each[-1].shape[2:] for each in parts] == [(2, 2), (16, 16)]
        maps = [stage for each in parts for stage in each[len(each) // 2 :]]
        features = torch.cat([part.mean((2, 3)) for part in maps], 1)
        expected = F.linear(features, network.head.weight, network.head.bias)
        logits = network(x)
        assert logits.std() > 0.01
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        (last,) = network.features(x)
        assert last.shape == (3, sum(part.shape[1] for part in maps), 2, 2)
        torch.testing.assert_close(last[:, -64:], F.adaptive_avg_pool2d(maps[-1], 2))
        folded = fold_norms_(network, "fp32")(x)
    torch.testing.assert_close(folded, logits, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_pair_has_the_layers_of_both_and_one_head() -> None:
    name = "+".join(NAMES)
    parts = [build(part) for part in NAMES]
    bodies = sum(
        weight.numel()
        for part in parts
        for key, weight in part.named_parameters()
        if not key.startswith("head")
    )
    network = build_from(NetworkSpec(name, 7, 3, head="linear"), seed=0)
    size = (3, 64, 64)
    maps = [part.features(torch.zeros(1, *size)) for part in parts]
    width = sum(stage.shape[1] for each in maps for stage in each[len(each) // 2 :])
    assert sum(weight.numel() for weight in network.parameters()) == bodies + 7 * (width + 1)
    cost, alone = measure(network, size), [measure(part, size) for part in parts]
    heads = 1024 * 1000 + 64 * 10 - 7 * width
    assert cost.multiply_adds == sum(part.multiply_adds for part in alone) - heads
    assert row(name).size == row(NAMES[0]).size
    assert outline_of(NetworkSpec(name, 7, 3)).state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18+resnet34+resnet50", "names 3 models"),
        ("resnet18+resnet3", r"unknown model 'resnet3'. Did you mean"),
        ("resnet18+", "unknown model ''"),
    ],
)
def test_other_joined_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(name)


def test_two_networks_have_no_ordering() -> None:
    with pytest.raises(UsageError, match=r"resnet18\+resnet34 .*ordering 'original'"):
        build("resnet18+resnet34", ordering="original")
