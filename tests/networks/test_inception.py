"""The Inceptions and their sentences against the maps of the papers; real Keras: tests/weights."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from residua.errors import ResiduaError
from residua.networks.analysis.shapes import on_meta
from residua.networks.inception import (
    GOOGLENET,
    INCEPTION_V3,
    INCEPTION_V4,
    KERAS_INCEPTION_V3,
    Block,
    InceptionConfig,
    parse,
)

CONFIGS: dict[str, InceptionConfig] = {
    "googlenet": GOOGLENET,
    "inception_v3": INCEPTION_V3,
    "inception_v4": INCEPTION_V4,
    "keras_inception_v3": KERAS_INCEPTION_V3,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def meta(config: InceptionConfig, classes: int = 1000, channels: int = 3) -> Any:
    """A network of shapes alone: two of them have 60 million parameters."""
    with on_meta():
        return config.build(classes, channels).eval()


def sides(config: InceptionConfig, size: int) -> list[int]:
    with on_meta():
        maps = meta(config).features(torch.empty(1, 3, size, size))
    return [tensor.shape[-1] for tensor in maps]


# Sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("googlenet", 224, [112, 56, 28, 14, 7]),  # Szegedy et al. 2014, table 1
        ("inception_v3", 299, [147, 71, 35, 17, 8]),  # Szegedy et al. 2015, table 1
        ("keras_inception_v3", 299, [147, 71, 35, 17, 8]),
        ("inception_v4", 299, [147, 71, 35, 17, 8]),  # Szegedy et al. 2016, figures 3 and 9
    ],
)
def test_maps_are_the_papers(name: str, size: int, expected: list[int]) -> None:
    assert sides(CONFIGS[name], size) == expected


@pytest.mark.parametrize("size", [15, 16, 33, 97])
def test_googlenet_rounds_its_pools_up(size: int) -> None:
    """Caffe's rule: a window that does not fit whole counts, ceil((n - kernel) / 2) + 1."""
    expected = [(size + 1) // 2]
    for kernel in (3, 3, 3, 2):
        expected.append(-(-(expected[-1] - kernel) // 2) + 1)
    assert sides(GOOGLENET, size) == expected


@pytest.mark.slow
@pytest.mark.parametrize("size", [75, 76, 139])
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
        ("googlenet", 15),
        ("inception_v3", 75),
        ("inception_v4", 75),
        ("keras_inception_v3", 75),  # Keras asks for as much
    ],
)
def test_the_smallest_input_is_the_papers(name: str, smallest: int) -> None:
    assert sides(CONFIGS[name], smallest)[-1] == 1
    with pytest.raises(RuntimeError):
        sides(CONFIGS[name], smallest - 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_any_classes_and_channels(name: str) -> None:
    network = meta(CONFIGS[name], classes=3, channels=1)
    with on_meta():
        images = torch.empty(2, 1, 97, 128)
        assert network(images).shape == (2, 3)
        pooled = F.adaptive_avg_pool2d(network.features(images)[-1], 1)
        assert network.head(pooled.flatten(1)).shape == (2, 3)


KEY = re.compile(
    r"(stages\.\d\.blocks\.\d(\.branches\.\d\.\d){1,2}\.(conv|norm)|head)"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


@pytest.mark.parametrize("name", CONFIGS)
def test_keys_of_weights_name_stage_and_layer(name: str) -> None:
    network = meta(CONFIGS[name])
    assert not [key for key in network.state_dict() if not KEY.fullmatch(key)]
    assert not any("features" in each for each, _ in network.named_modules())


# Sentences ----------------------------------------------------------------------------------------


def test_a_sentence_becomes_branches() -> None:
    branches: Any = block(
        "3x3/2v:8 (1x3:5|3x1:6) | max3 1x1:7 | avg5 | max2/2c | max3/2v", 4
    ).branches
    split, pooled, (average,), (ceil,), (valid,) = branches
    first, ends = split
    assert (first.conv.out_channels, first.conv.kernel_size) == (8, (3, 3))
    assert (first.conv.stride, first.conv.padding) == ((2, 2), (0, 0))
    kernels = [end[0].conv for end in ends.branches]
    assert [(conv.out_channels, conv.kernel_size) for conv in kernels] == [(5, (1, 3)), (6, (3, 1))]
    assert [conv.padding for conv in kernels] == [(0, 1), (1, 0)]
    assert pooled[1].conv.in_channels == 4
    assert (average.kernel_size, average.stride, average.padding) == (5, 1, 2)
    pools = [(pool.kernel, pool.stride, pool.rule) for pool in (pooled[0], ceil, valid)]
    assert pools == [(3, 1, "symmetric"), (2, 2, "ceil"), (3, 2, "valid")]


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
def test_malformed_sentences_are_refused(sentence: str, words: str) -> None:
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
    assert [tensor.shape[1] for tensor in ends] == [4, 5]
    expected = torch.cat([branches[0](x), *ends, F.max_pool2d(x, 3, 1, 1)], 1)
    assert built.out_channels == expected.shape[1] == 17
    assert torch.equal(built(x), expected)


@pytest.mark.parametrize(
    ("config", "widths"),
    [
        (GOOGLENET, [256, 480, 512, 512, 512, 528, 832, 832, 1024]),  # table 1
        (INCEPTION_V3, [256, 288, 288, *[768] * 5, 1280, 2048, 2048]),  # Keras' own comments
        (INCEPTION_V4, [160, 192, *[384] * 5, *[1024] * 8, *[1536] * 4]),  # figures 3 to 9
    ],
)
def test_widths_of_the_blocks(config: InceptionConfig, widths: list[int]) -> None:
    blocks = [block for stage in meta(config).stages for block in stage.blocks]
    assert [block.out_channels for block in blocks if len(block.branches) > 1] == widths


def test_average_at_the_rim() -> None:
    """In a corner four places of nine exist; torchvision divides by nine, Keras and v4 by four."""
    ones = torch.ones(1, 1, 5, 5)
    counted, left_out = (
        block("avg3", 1, pool_counts_padding=config.pool_counts_padding)(ones)[0, 0]
        for config in (INCEPTION_V3, KERAS_INCEPTION_V3)
    )
    assert [counted[0, 0].item(), counted[0, 2].item()] == pytest.approx([4 / 9, 6 / 9])
    assert torch.equal(left_out, torch.ones(5, 5))
    assert not INCEPTION_V4.pool_counts_padding


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "inception_v4"])
def test_dropout_is_before_the_head_at_the_rate_of_the_source(name: str) -> None:
    """Between the average and the head, at the rate of the source."""
    rate = {"googlenet": 0.2, "inception_v3": 0.5, "inception_v4": 0.0}[name]
    config: Any = CONFIGS[name]
    network: Any = replace(config, stages=(("1x1:400",),)).build(2, 1)
    seen: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    network(torch.randn(16, 1, 8, 8))  # no average of so many places is zero
    zeros = (seen[0] == 0).float().mean().item()
    assert zeros == pytest.approx(rate, abs=0.02)
