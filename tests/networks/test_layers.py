"""The alphabet of the networks: paddings, pools, chains and initialisation, also against Keras."""

import copy
import math
import os
from typing import Any

import pytest
import torch
from torch import nn

from residua.errors import ResiduaError
from residua.networks.layers import (
    KERAS_NORM,
    PLAIN_NORM,
    BatchNorm,
    Convolution,
    Dropout,
    MaxPool,
    Norm,
    Separable,
    ZeroPadShortcut,
    chain,
    draw_dropout_from,
    initialise,
    same_margins,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_chain_names_its_layers_by_their_letters() -> None:
    convolutions = [Convolution(4, 8, 3), Convolution(8, 6, 1)]
    layers = chain("nacnacna", convolutions, channels=4, norm=KERAS_NORM, numbered=True)
    assert [name for name, _ in layers.named_children()] == [
        *("norm0", "act0", "conv1", "norm1", "act1", "conv2", "end_norm", "end_act")
    ]
    assert [norm.num_features for norm in layers if isinstance(norm, BatchNorm)] == [4, 8, 6]
    assert {norm.eps for norm in layers if isinstance(norm, BatchNorm)} == {1e-3}
    plain = chain("cna", [Convolution(4, 8, 3)], norm=PLAIN_NORM, activation=nn.ReLU6)
    assert [name for name, _ in plain.named_children()] == ["conv", "norm", "act"]
    assert isinstance(plain.act, nn.ReLU6)


def test_a_chain_overwrites_no_input_that_others_read() -> None:
    first = chain("a", norm=PLAIN_NORM)[0]
    later = chain("na", channels=3, norm=PLAIN_NORM)[1]
    assert (first.inplace, later.inplace) == (False, True)  # type: ignore[union-attr]


def test_a_norm_without_scale_has_no_gamma() -> None:
    assert [name for name, _ in Norm(scale=False).layer(3).named_parameters()] == ["bias"]


def test_a_frozen_norm_stays_in_evaluation_mode() -> None:
    norm = PLAIN_NORM.layer(3)
    assert norm.train().training
    norm.frozen = True
    assert not norm.train().training


def test_zero_padding_puts_half_of_the_zeros_before_the_channels() -> None:
    x = torch.ones(1, 2, 5, 5)
    y = ZeroPadShortcut(2, 5, 2)(x)
    assert y.shape == (1, 5, 3, 3)
    assert y[0, :, 0, 0].tolist() == [0, 1, 1, 0, 0]
    with pytest.raises(ResiduaError, match=r"cannot make 2 of 5. Use B"):
        ZeroPadShortcut(5, 2, 1)


def test_pools_count_the_padding_as_their_rule_requires() -> None:
    x = -torch.ones(1, 1, 6, 6)
    assert MaxPool(3, 2)(x).max() == -1  # padding never wins
    assert MaxPool(3, 2, "same")(x).max() == -1
    assert MaxPool(3, 2, "zeros")(x)[0, 0].tolist() == [[0, 0, 0], [0, -1, -1], [0, -1, -1]]
    sizes = {rule: MaxPool(3, 2, rule)(x).shape[-1] for rule in ("valid", "ceil", "symmetric")}  # type: ignore[arg-type]
    assert sizes == {"valid": 2, "ceil": 3, "symmetric": 3}


def test_a_separable_convolution_has_nothing_between_its_two() -> None:
    layer = Separable(4, 6)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(layer(x), layer.pointwise(layer.depthwise(x)))
    assert (layer.depthwise.groups, layer.pointwise.kernel_size) == (4, (1, 1))


@pytest.mark.parametrize(
    ("rule", "sigma"),
    [("he", math.sqrt(2 / (9 * 32))), ("he_truncated", math.sqrt(2 / (9 * 16)))],
)
def test_kernels_have_the_width_of_their_rule(rule: Any, sigma: float) -> None:
    """ "he" scales by the outputs, Keras' he_normal by the inputs."""
    layer = Convolution(16, 32, 3, bias=True)
    initialise(layer, rule)
    assert layer.weight.std().item() == pytest.approx(sigma, rel=0.05)
    assert not layer.state_dict()["bias"].any()


def test_same_padding_puts_the_odd_pixel_last() -> None:
    def margins(height: int, width: int, kernel: int, stride: int) -> object:
        x = torch.empty(1, 1, height, width, device="meta")
        return same_margins(x, (kernel, kernel), stride)

    assert margins(224, 225, 3, 2) == ((0, 1), (1, 1))
    assert margins(224, 32, 7, 2) == ((2, 3), (2, 3))
    assert margins(224, 224, 1, 2) == ((0, 0), (0, 0))


# Against Keras ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_keras(keras: Any, stride: int, kernel: int, size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, size, size - 1)  # one side even, one odd
    last = x.permute(0, 2, 3, 1)
    theirs = keras.layers.Conv2D(3, kernel, stride, padding="same", data_format="channels_last")
    theirs.build(last.shape)
    ours = Convolution(2, 3, kernel, stride=stride, bias=True, padding="same")
    kernel_weights = ours.weight.permute(2, 3, 1, 0).detach().numpy()
    theirs.set_weights([kernel_weights, ours.state_dict()["bias"].numpy()])
    pool = keras.layers.MaxPooling2D(kernel, stride, padding="same", data_format="channels_last")
    with torch.inference_mode():
        for mine, other in ((ours, theirs), (MaxPool(kernel, stride, "same"), pool)):
            expected = keras.ops.convert_to_numpy(other(last))
            actual = mine(x).permute(0, 2, 3, 1).contiguous()
            torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__")
def test_he_truncated_is_keras_he_normal(keras: Any) -> None:
    torch.manual_seed(0)
    layer = Convolution(64, 512, 3, bias=True)
    initialise(layer, "he_truncated")
    drawn = keras.initializers.HeNormal(seed=1)((3, 3, 64, 512))
    theirs = torch.as_tensor(keras.ops.convert_to_numpy(drawn)).flatten()
    ours = layer.weight.detach().flatten()
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.01)
    assert ours.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.01)
    levels = torch.tensor([0.001, 0.01, 0.1, 0.9, 0.99, 0.999])  # not the extremes: on torch Keras
    torch.testing.assert_close(  # draws four times and then lets a value beyond the cut pass
        ours.quantile(levels), theirs.quantile(levels), rtol=0.015, atol=0
    )
    assert not layer.state_dict()["bias"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_of_a_generator_gives_the_numbers_of_the_global_one(dtype: torch.dtype) -> None:
    x = torch.ones(40, 30, dtype=dtype)
    network = nn.Sequential(Dropout(0.3), Dropout(0.5))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = network(x)
        before = torch.get_rng_state()
        draw_dropout_from(network, torch.Generator().manual_seed(5))
        assert torch.equal(network(x), expected)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(copy.deepcopy(network).eval()(x), x)
