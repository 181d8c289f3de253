"""Frozen stages change neither weights nor statistics, whatever is called."""

from __future__ import annotations

import pytest
import torch

from residua.errors import ResiduaError
from residua.networks.analysis.cost import measure
from residua.networks.layers import BatchNorm
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo import catalogue

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "stages"), [("cifar_resnet14", 2), ("preact_resnet18", 4), ("densenet121", 4)]
)
def test_frozen_layers_do_not_change(name: str, stages: int) -> None:
    """All stages frozen: so is the tail between them and the head."""
    network = catalogue.build(name, classes=3, seed=0)
    freeze(network, stages)
    frozen = ("stem.", *(f"stages.{number}." for number in range(stages)))
    frozen += ("tail.",) if stages == len(network.stages) else ()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.eval()
    network.train()
    network.stages.train()
    trainable = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trainable, 0.1)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    for key, parameter in network.named_parameters():
        assert (parameter.grad is None) == key.startswith(frozen), key
    for key, tensor in network.state_dict().items():
        if key.startswith(frozen):
            assert torch.equal(tensor, before[key]), key
    assert not torch.equal(network.state_dict()["head.weight"], before["head.weight"])


def test_zero_stages_freeze_nothing() -> None:
    network = catalogue.build("cifar_resnet14", seed=0)
    freeze(network, 0)
    assert all(weight.requires_grad for weight in network.parameters())
    assert not any(module.frozen for module in network.modules() if isinstance(module, BatchNorm))


def test_more_stages_than_there_are_cannot_be_frozen() -> None:
    with pytest.raises(ResiduaError, match="freeze = 4: the network has 3 stages"):
        freeze(catalogue.build("cifar_resnet14", seed=0), 4)


def test_totals_are_those_of_the_tutorials() -> None:
    """As Keras' summaries print them in tutorials 2 and 3."""
    with torch.device("meta"):
        resnet = catalogue.build("keras_resnet50", classes=10, head="mlp:256")
        vgg = catalogue.build("keras_vgg16", classes=10, head="mlp:4096,4096")
    freeze(resnet, 4)
    freeze(vgg, 5)
    cost = measure(resnet, (3, 224, 224))
    assert (cost.total, cost.trainable, cost.non_trainable) == (24_114_826, 527_114, 23_587_712)
    cost = measure(vgg, (3, 48, 48))
    assert (cost.total, cost.trainable, cost.non_trainable) == (33_638_218, 18_923_530, 14_714_688)
