"""Networks cut after a stage compute what they compute in one piece."""

from __future__ import annotations

import pytest
import torch
from references.worn_networks import ARCHITECTURES, images, worn
from torch import nn

from residua.networks.staged import Staged, pooled

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_cut_changes_nothing(name: str) -> None:
    network, x = worn(name), images(name)
    with torch.inference_mode():
        logits = network(x)
        assert len(network.stages) >= 2
        assert logits.abs().max() > 0
        for cut in range(len(network.stages) + 1):
            entered = network.between(x, 0, cut)
            assert torch.equal(network.leave(entered.clone(), cut), logits), cut
        last = network.between(x, 0, len(network.stages))
        assert torch.equal(last, network.features(x)[-1])


class Tiny(Staged):
    """Every optional layer adds another power of ten."""

    def __init__(self) -> None:
        super().__init__(
            stem=Add(1),
            stages=[Add(10), Add(100)],
            tail=Add(1000),
            dropout=Add(10_000),
            head=nn.Identity(),
        )


class Add(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.number


def test_stem_and_tail_belong_to_the_first_and_the_last_stage() -> None:
    network, x = Tiny(), torch.zeros(1, 1, 2, 2)
    cuts = {(0, 0): 0, (0, 1): 11, (0, 2): 1111, (1, 1): 0, (1, 2): 1100, (2, 2): 0}
    assert {cut: float(network.between(x, *cut).max()) for cut in cuts} == cuts
    assert [float(y.max()) for y in network.features(x)] == [11, 1111]
    assert network(x).unique().tolist() == [11_111]  # dropout before the head


def test_a_head_that_reads_several_maps_gets_them_side_by_side_and_can_be_cut_before_them() -> None:
    network, x = Tiny(), torch.arange(4.0).reshape(1, 1, 2, 2)
    network.pool_size, network.earlier_pools = 1, (2,)
    assert network.last_cut == 1
    expected = [11.0, 12.0, 13.0, 14.0, 1112.5]
    assert [value - 10_000 for value in network(x)[0].tolist()] == expected
    for cut in (0, 1):
        assert torch.equal(network.leave(network.between(x, 0, cut), cut), network(x))


def test_pooling_averages_and_flattens() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pooled(x, 1).tolist() == [[7.5]]
    assert pooled(x, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
