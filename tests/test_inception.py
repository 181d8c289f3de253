"""AlexNet and the Inceptions against published counts, papers' formulas and the real Keras."""

import os
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.networks.alexnet import ALEXNET, ALEXNET_2012, AlexNetConfig, ResponseNorm
from residua.networks.inception import (
    GOOGLENET,
    INCEPTION_V3,
    INCEPTION_V4,
    KERAS_INCEPTION_V3,
    NORM,
    Block,
    ConvItem,
    InceptionConfig,
    PoolItem,
    parse,
)

Plan = AlexNetConfig | InceptionConfig
PLANS: dict[str, Plan] = {
    "alexnet": ALEXNET,
    "alexnet_2012": ALEXNET_2012,
    "googlenet": GOOGLENET,
    "inception_v3": INCEPTION_V3,
    "inception_v4": INCEPTION_V4,
    "keras_inception_v3": KERAS_INCEPTION_V3,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def meta(plan: Plan, classes: int = 1000, channels: int = 3) -> Any:
    """A network of shapes alone: two of them have 60 million parameters."""
    with torch.device("meta"):
        return plan.build(classes, channels).eval()


def sides(plan: Plan, size: int) -> list[int]:
    maps = meta(plan).features(torch.empty(1, 3, size, size, device="meta"))
    return [each.shape[-1] for each in maps]


# Sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trainable", "total"),
    [
        ("alexnet", 61_100_840, 61_100_840),
        ("alexnet_2012", 60_965_224, 60_965_224),
        ("googlenet", 6_624_904, None),
        ("inception_v3", 23_834_568, None),
        ("inception_v4", 42_679_816, None),
        ("keras_inception_v3", 23_817_352, 23_851_784),
    ],
)
def test_published_counts(name: str, trainable: int, total: int | None) -> None:
    network = meta(PLANS[name])
    assert sum(each.numel() for each in network.parameters()) == trainable
    statistics = [each for each in network.buffers() if each.ndim]
    assert total in (None, trainable + sum(each.numel() for each in statistics))


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("alexnet", 224, [55, 27, 13, 6]),  # Krizhevsky et al. 2012, figure 2
        ("alexnet_2012", 224, [55, 27, 13, 6]),
        ("googlenet", 224, [112, 56, 28, 14, 7]),  # Szegedy et al. 2014, table 1
        ("inception_v3", 299, [147, 71, 35, 17, 8]),  # Szegedy et al. 2015, table 1
        ("keras_inception_v3", 299, [147, 71, 35, 17, 8]),
        ("inception_v4", 299, [147, 71, 35, 17, 8]),  # Szegedy et al. 2016, figures 3 and 9
    ],
)
def test_maps_are_the_papers(name: str, size: int, expected: list[int]) -> None:
    assert sides(PLANS[name], size) == expected


@pytest.mark.parametrize("size", [15, 16, 17, 33, 64, 97, 225])
def test_googlenet_rounds_its_pools_up(size: int) -> None:
    """Caffe's rule: a window that does not fit whole counts, ceil((n - kernel) / 2) + 1."""
    expected = [(size + 1) // 2]
    for kernel in (3, 3, 3, 2):
        expected.append(-(-(expected[-1] - kernel) // 2) + 1)
    assert sides(GOOGLENET, size) == expected


@pytest.mark.parametrize("size", [75, 76, 77, 139, 160, 300])
def test_later_inceptions_round_down(size: int) -> None:
    half = (size - 3) // 2 + 1 - 2
    quarter = (half - 3) // 2 + 1 - 2
    expected = [half, quarter]
    for _ in range(3):
        expected.append((expected[-1] - 3) // 2 + 1)
    assert sides(INCEPTION_V3, size) == sides(INCEPTION_V4, size) == expected


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("alexnet", 63),
        ("alexnet_2012", 63),
        ("googlenet", 15),
        ("inception_v3", 75),
        ("inception_v4", 75),
        ("keras_inception_v3", 75),  # Keras asks for as much
    ],
)
def test_smallest_input(name: str, smallest: int) -> None:
    assert sides(PLANS[name], smallest)[-1] == 1
    with pytest.raises(RuntimeError):
        sides(PLANS[name], smallest - 1)


@pytest.mark.parametrize("name", PLANS)
def test_any_classes_and_channels(name: str) -> None:
    network = meta(PLANS[name], classes=3, channels=1)
    images = torch.empty(2, 1, 97, 128, device="meta")
    assert network(images).shape == (2, 3)
    last = network.features(images)[-1]
    pooled = F.adaptive_avg_pool2d(last, getattr(network, "side", 1))
    assert network.head(pooled.flatten(1)).shape == (2, 3)


KEY = re.compile(
    r"(stages\.\d(\.conv\d|\.blocks\.\d(\.branches\.\d\.\d){1,2}\.(conv|norm))|head(\.linear[123])?)"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


@pytest.mark.parametrize("name", PLANS)
def test_names_of_the_weights(name: str) -> None:
    network = meta(PLANS[name])
    assert not [key for key in network.state_dict() if not KEY.fullmatch(key)]
    assert not any("features" in each for each, _ in network.named_modules())


# Sentences ----------------------------------------------------------------------------------------


def test_a_sentence_is_read() -> None:
    read = parse("1x1:4 | 3x3/2v:8 (1x3:5|3x1:6) | max3 1x1:7 | avg5 | max2/2c | max3/2v")
    one, split, pooled, average, ceil, valid = read
    assert one == (ConvItem((1, 1), 1, False, 4),)
    ends = ((ConvItem((1, 3), 1, False, 5),), (ConvItem((3, 1), 1, False, 6),))
    assert split == (ConvItem((3, 3), 2, True, 8), ends)
    assert pooled == (PoolItem("max", 3), ConvItem((1, 1), 1, False, 7))
    assert (average, ceil) == ((PoolItem("avg", 5),), (PoolItem("max", 2, 2, "ceil"),))
    assert valid == (PoolItem("max", 3, 2, "valid"),)


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("", "empty branch at the end"),
        ("1x1:4 |", "empty branch at the end"),
        ("| 1x1:4", r"empty branch before a '\|'"),
        ("1x1:4 ( | 1x1:4)", r"empty branch before a '\|'"),
        ("1x1:4 ()", r"empty branch before a '\)'"),
        ("1x1:4 (1x3:4 | 3x1:4", r"'\(' is not closed"),
        ("1x1:4 | 3x1:4)", r"'\)' closes nothing"),
        ("3x3", "'3x3' is no item. Expected a convolution such as 3x3:64"),
        ("3:64", "'3:64' is no item"),
        ("3x3:0", "'3x3:0' is no item"),
        ("3x3/0:8", "'3x3/0:8' is no item"),
        ("3x3/2c:8", "'3x3/2c:8' is no item"),  # only a pool rounds up
        ("avg3/2", "'avg3/2' is no item"),
        ("max3:8", "'max3:8' is no item"),
        ("1x1:8 then 3x3:8", "'then' is no item"),
    ],
)
def test_nonsense_is_refused(sentence: str, words: str) -> None:
    with pytest.raises(ResiduaError, match=f"Block {re.escape(repr(sentence))}: .*{words}"):
        InceptionConfig((("3x3:8",), (sentence,))).build(2, 3)


def block(sentence: str, inputs: int, **options: Any) -> Block:
    return Block(parse(sentence), inputs, InceptionConfig((), **options)).eval()


def test_branches_are_joined_in_their_order() -> None:
    """Also of a split end, which reads what stands before it in its branch."""
    built = block("1x1:2 | 1x1:3 (1x3:4 | 3x1:5) | max3", 6)
    x = torch.randn(1, 6, 7, 7)
    branches: Any = built.branches
    middle = branches[1][0](x)
    ends = [end(middle) for end in branches[1][1].branches]
    assert [each.shape[1] for each in ends] == [4, 5]
    expected = torch.cat([branches[0](x), *ends, F.max_pool2d(x, 3, 1, 1)], 1)
    assert built.out_channels == expected.shape[1] == 17
    assert torch.equal(built(x), expected)


@pytest.mark.parametrize(
    ("plan", "widths"),
    [
        (GOOGLENET, [256, 480, 512, 512, 512, 528, 832, 832, 1024]),  # table 1
        (INCEPTION_V3, [256, 288, 288, *[768] * 5, 1280, 2048, 2048]),  # Keras' own comments
        (INCEPTION_V4, [160, 192, *[384] * 5, *[1024] * 8, *[1536] * 4]),  # figures 3 to 9
    ],
)
def test_widths_of_the_blocks(plan: InceptionConfig, widths: list[int]) -> None:
    blocks = [each for stage in meta(plan).stages for each in stage.blocks]
    assert [each.out_channels for each in blocks if len(each.branches) > 1] == widths


def test_average_at_the_rim() -> None:
    """In a corner four places of nine exist; torchvision divides by nine, Keras and v4 by four."""
    ones = torch.ones(1, 1, 5, 5)
    counted, left_out = (
        block("avg3", 1, pool_counts_padding=plan.pool_counts_padding)(ones)[0, 0]
        for plan in (INCEPTION_V3, KERAS_INCEPTION_V3)
    )
    assert [counted[0, 0].item(), counted[0, 2].item()] == pytest.approx([4 / 9, 6 / 9])
    assert torch.equal(left_out, torch.ones(5, 5))
    assert not INCEPTION_V4.pool_counts_padding


# Numbers ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["alexnet", "alexnet_2012"])
def test_alexnet_written_out(name: str) -> None:
    two_groups = name == "alexnet_2012"
    torch.manual_seed(0)
    network: Any = PLANS[name].build(5, 3).eval()
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


def test_where_alexnet_drops() -> None:
    """One column: before both hidden layers (torchvision). 2012: behind both (section 4.2)."""
    one, two = (
        [type(each).__name__ for each in meta(PLANS[name]).head]
        for name in ("alexnet", "alexnet_2012")
    )
    hidden = ["Linear", "ReLU"]
    assert one == ["Dropout", *hidden, "Dropout", *hidden, "Linear"]
    assert two == [*hidden, "Dropout", *hidden, "Dropout", "Linear"]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "inception_v4"])
def test_where_inceptions_drop(name: str) -> None:
    """Between the average and the head, at the rate of the source."""
    rate = {"googlenet": 0.2, "inception_v3": 0.5, "inception_v4": 0.0}[name]
    plan: Any = PLANS[name]
    network: Any = replace(plan, stages=(("1x1:400",),)).build(2, 1)
    seen: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    network(torch.randn(16, 1, 8, 8))  # no average of so many places is zero
    zeros = (seen[0] == 0).float().mean().item()
    assert zeros == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("plan", [GOOGLENET, KERAS_INCEPTION_V3], ids=["googlenet", "keras"])
def test_every_weight_learns(plan: InceptionConfig, precision: torch.dtype) -> None:
    network = plan.build(5, 3)
    images = torch.randn(4, 3, *((15, 33) if plan is GOOGLENET else (75, 91)))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = network(images)
    loss = F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3]))
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))  # refuses an unused one
    for name, gradient in zip(parameters, gradients, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


# Against Keras ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras_model() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    model = keras.applications.InceptionV3(
        weights=None, input_shape=(75, 75, 3), classes=7, classifier_activation=None
    )
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.startswith("batch_normalization"):
            layer.beta.assign(random.uniform(-0.1, 0.3, layer.beta.shape))
            layer.moving_mean.assign(random.uniform(-0.2, 0.2, layer.beta.shape))
            layer.moving_variance.assign(random.uniform(0.3, 1.2, layer.beta.shape))
    return model


def in_order(model: Any, name: str) -> list[Any]:
    """Layers with automatic names, in the order of creation: theirs start at no certain number."""
    found = {
        int(match[1] or 0): layer
        for layer in model.layers
        if (match := re.fullmatch(rf"{name}(?:_(\d+))?", layer.name))
    }
    return [found[number] for number in sorted(found)]


def of_kind(network: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [each for each in network.modules() if isinstance(each, kind)]


def moved(model: Any, plan: InceptionConfig) -> Any:
    """A network of ours with the weights of the Keras model, both in the order of creation."""
    network = plan.build(7, 3).eval()

    def fill(tensor: Tensor, variable: Any, order: tuple[int, ...] = ()) -> None:
        value = torch.as_tensor(np.asarray(variable.numpy()))
        value = value.permute(order) if order else value
        assert tensor.shape == value.shape
        tensor.copy_(value)

    with torch.no_grad():
        pairs = zip(of_kind(network, nn.Conv2d), in_order(model, "conv2d"), strict=True)
        for mine, other in pairs:
            fill(mine.weight, other.kernel, (3, 2, 0, 1))
        norms = in_order(model, "batch_normalization")
        for mine, other in zip(of_kind(network, nn.BatchNorm2d), norms, strict=True):
            fill(mine.bias, other.beta)
            fill(mine.running_mean, other.moving_mean)
            fill(mine.running_var, other.moving_variance)
        fill(network.head.weight, model.get_layer("predictions").kernel, (1, 0))
        fill(network.head.bias, model.get_layer("predictions").bias)
    return network


def test_modules_come_in_keras_order(keras_model: Any) -> None:
    ours = [tuple(each.weight.shape) for each in of_kind(meta(KERAS_INCEPTION_V3), nn.Conv2d)]
    theirs = [tuple(each.kernel.shape) for each in in_order(keras_model, "conv2d")]
    assert len(ours) == 94
    assert [(rows, columns, i, o) for o, i, rows, columns in ours] == theirs


def largest_difference(model: Any, network: Any) -> float:
    """Of the logits, as a share of the largest."""
    images = np.random.default_rng(1).uniform(-1, 1, (3, 75, 75, 3)).astype("float32")
    expected = torch.as_tensor(np.asarray(model.predict_on_batch(images)))
    with torch.inference_mode():
        logits = network(torch.as_tensor(images).permute(0, 3, 1, 2))
    return float((logits - expected).abs().max() / expected.abs().max())


@pytest.mark.filterwarnings("ignore:__array__")
def test_logits_are_those_of_keras(keras_model: Any) -> None:
    assert largest_difference(keras_model, moved(keras_model, KERAS_INCEPTION_V3)) < 1e-4


@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize("wrong", ["epsilon", "average", "split"])
def test_that_comparison_sees_an_error(keras_model: Any, wrong: str) -> None:
    plan = KERAS_INCEPTION_V3
    if wrong == "epsilon":
        plan = replace(plan, norm=replace(NORM, epsilon=1e-5, scale=False))
    if wrong == "average":
        plan = replace(plan, pool_counts_padding=True)
    network = moved(keras_model, plan)
    if wrong == "split":
        ends = network.stages[4].blocks[2].branches[1][1]
        ends.branches = nn.ModuleList(reversed(list(ends.branches)))
    assert largest_difference(keras_model, network) > 20 * 1e-4
