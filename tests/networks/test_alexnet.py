"""AlexNet against its papers' maps and formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from references.architecture_checks import sides
from torch import Tensor, nn

from residua.networks.alexnet import ALEXNET, ALEXNET_2012, AlexNetConfig, ResponseNorm

pytestmark = pytest.mark.usefixtures("one_thread")
both = pytest.mark.parametrize("config", [ALEXNET, ALEXNET_2012], ids=["2014", "2012"])


@both
def test_maps_are_the_papers(config: AlexNetConfig) -> None:
    """Krizhevsky et al. 2012, figure 2."""
    assert sides(config, 224) == [55, 27, 13, 6]


@both
def test_the_smallest_image_has_63_pixels(config: AlexNetConfig) -> None:
    assert sides(config, 63)[-1] == 1
    with pytest.raises(RuntimeError):
        sides(config, 62)


@both
def test_keys_of_weights_name_stage_and_layer(config: AlexNetConfig) -> None:
    with torch.device("meta"):
        state = config.build(3, 1).state_dict()
    layers = ["stages.0.conv1", "stages.1.conv1", *(f"stages.2.conv{n}" for n in (1, 2, 3))]
    layers += [f"head.linear{n}" for n in (1, 2, 3)]
    assert list(state) == [f"{layer}.{key}" for layer in layers for key in ("weight", "bias")]


def test_response_norm_is_the_papers_formula() -> None:
    """b_i = a_i / (k + alpha * sum of a_j^2, j from i - n/2 to i + n/2)^beta, section 3.3."""
    a = 60 * np.random.default_rng(0).standard_normal((2, 9, 3, 4))
    expected = np.empty_like(a)
    for i in range(9):
        squares = (a[:, max(0, i - 2) : min(8, i + 2) + 1] ** 2).sum(1)
        expected[:, i] = a[:, i] / (2 + 1e-4 * squares) ** 0.75
    x = torch.tensor(a, dtype=torch.float32)
    torch.testing.assert_close(ResponseNorm()(x), torch.tensor(expected, dtype=torch.float32))
    rounded = ResponseNorm()(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), ResponseNorm()(x), rtol=0.02, atol=1e-6)


@pytest.mark.slow
@both
def test_it_computes_what_is_written_out(config: AlexNetConfig) -> None:
    two_groups = config is ALEXNET_2012
    torch.manual_seed(0)
    network: Any = config.build(5, 3).eval()
    state = network.state_dict()
    for tensor in state.values():
        if tensor.ndim == 1:
            nn.init.uniform_(tensor, -0.1, 0.3)

    def convolved(x: Tensor, key: str, stride: int, padding: int, groups: int) -> Tensor:
        weight, bias = (state[f"stages.{key}.{part}"] for part in ("weight", "bias"))
        return F.relu(F.conv2d(x, weight, bias, stride, padding, groups=groups))

    def pooled(x: Tensor) -> Tensor:
        if two_groups and len(maps) < 2:
            x = F.local_response_norm(x, 5, 5e-4, 0.75, 2.0)  # its own test is above
        maps.append(x)
        return F.max_pool2d(x, 3, 2)

    maps: list[Tensor] = []
    images, both = torch.randn(2, 3, 79, 97), 2 if two_groups else 1
    x = pooled(convolved(images, "0.conv1", 4, 2, 1))
    x = pooled(convolved(x, "1.conv1", 1, 2, both))
    x = convolved(x, "2.conv1", 1, 1, 1)
    x = convolved(x, "2.conv2", 1, 1, both)
    maps.append(pooled(convolved(x, "2.conv3", 1, 1, both)))
    y = F.adaptive_avg_pool2d(maps[-1], 6).flatten(1)
    for number in (1, 2, 3):
        weight, bias = (state[f"head.linear{number}.{part}"] for part in ("weight", "bias"))
        y = F.linear(F.relu(y) if number > 1 else y, weight, bias)
    with torch.inference_mode():
        for mine, expected in zip(network.features(images), maps, strict=True):
            torch.testing.assert_close(mine, expected)
        torch.testing.assert_close(network(images), y)


def test_dropout_comes_before_the_hidden_layers_in_2014_and_after_them_in_2012() -> None:
    """One column: before both hidden layers (torchvision). 2012: behind both (section 4.2)."""
    with torch.device("meta"):
        heads: list[Any] = [config.build(9, 3).head for config in (ALEXNET, ALEXNET_2012)]
    one, two = ([type(layer).__name__ for layer in head] for head in heads)
    hidden = ["Linear", "ReLU"]
    assert one == ["Dropout", *hidden, "Dropout", *hidden, "Linear"]
    assert two == [*hidden, "Dropout", *hidden, "Dropout", "Linear"]
