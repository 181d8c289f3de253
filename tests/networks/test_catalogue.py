"""The whole catalogue: every row's counts and shapes, and one row of each kind with numbers.

benchmarks/every_network.py runs the checks with numbers on every row.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from references import network_checks as checks

from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks.analysis.shapes import on_meta
from residua.networks.residual import ORDERINGS
from residua.networks.zoo import catalogue
from residua.networks.zoo.rows import KERAS_VARIANTS, PAPERS, TUTORIALS

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = (  # one of each architecture, branch, ordering, shortcut, padding, pool and norm
    *("resnet18", "preact_resnet18", "cifar_resnet20", "cifar_preact_resnet164", "keras_resnet50"),
    *("keras_resnet50v2", "tutorial_resnet50", "tutorial_cifar_resnet32_b", "tutorial_resnet18"),
    *("tutorial_cifar_resnet32_d_v2", "tutorial_cifar_resnet34", "tutorial_cifar_resnet50"),
    *("tutorial_resnext50", "vgg11_bn", "tutorial_vgg16_mnist", "tutorial_vgg19_cifar"),
    *("alexnet_2012", "googlenet", "keras_inception_v3", "keras_xception", "densenet121"),
    *("mobilenet_v1", "keras_mobilenet", "mobilenet_v2", "resnet50d"),
)
QUICK = ("resnet18", "cifar_resnet20", "keras_resnet50v2", "vgg11_bn", "mobilenet_v1")
every_kind = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in KINDS]
)


# Every row, without memory ------------------------------------------------------------------------


def test_the_catalogue_lists_papers_keras_and_tutorials() -> None:
    assert list(catalogue.ROWS) == [*PAPERS, *KERAS_VARIANTS, *TUTORIALS]
    assert {row.source for row in KERAS_VARIANTS.values()} == {"keras.applications"}
    assert {row.source for row in TUTORIALS.values()} == {f"tutorial {n}" for n in range(5)}


def strides(name: str) -> tuple[int, ...]:
    """Of the feature maps, by name, so that no config is tested against itself."""
    if re.match("tutorial_cifar_resnet(50|101|152)", name):
        return 2, 4, 8, 16
    if "cifar" in name and "vgg" not in name:
        return 1, 2, 4
    if re.match(r"keras_resnet\d+v2", name):
        return 8, 16, 32, 32  # it strides in the last unit of a stage
    if re.search("mobilenet_v2|efficientnet", name):
        return 2, 4, 8, 16, 16, 32, 32  # Sandler et al. 2018, table 2
    if re.search("resne|densenet|alexnet|xception", name):
        return 4, 8, 16, 32
    return 2, 4, 8, 16, 32


DEEPEST = ("cifar_resnet1202", "cifar_preact_resnet1001")  # take seconds to build


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in DEEPEST)) for n in catalogue.ROWS]
)
def test_a_row_has_its_published_parameters_and_strides(name: str) -> None:
    row = catalogue.row(name)
    with on_meta():
        network: Any = catalogue.build(name).eval()
        maps = network.features(torch.empty(2, row.channels, row.size, row.size))
        logits = network.classify(network.pool(maps[-1:]))
    trainable = sum(weight.numel() for weight in network.parameters())
    statistics = sum(x.numel() for x in network.buffers() if x.ndim)
    assert trainable == row.trainable
    assert row.total in (None, trainable + statistics)
    assert logits.shape == (2, row.classes)
    assert len(maps) == len(strides(name))
    for feature_map, stride in zip(maps, strides(name), strict=True):
        height, width = feature_map.shape[-2:]
        # windows without padding lose a rim: 55 of 56 pixels, 8 of 9
        assert int(0.85 * row.size / stride) <= height == width <= math.ceil(row.size / stride)


@pytest.mark.parametrize("size", [224, 225])
def test_strides_at_the_imagenet_stem(size: int) -> None:
    with on_meta():
        network: Any = catalogue.build("resnet18").eval()
        sides = [x.shape[-1] for x in network.features(torch.empty(1, 3, size, size))]
    assert sides == [math.ceil(size / stride) for stride in (4, 8, 16, 32)]


# One row of each kind -----------------------------------------------------------------------------


@pytest.fixture
def spec(name: str, monkeypatch: pytest.MonkeyPatch) -> NetworkSpec:
    """The row, made narrow, for other classes and channels than its own."""
    return checks.narrow_spec(name, monkeypatch)


@every_kind
def test_every_parameter_trains(spec: NetworkSpec) -> None:
    checks.check_training(spec)


@every_kind
def test_the_head_pools_the_last_map(spec: NetworkSpec) -> None:
    checks.check_head(spec)


@every_kind
def test_the_smallest_image_is_accepted_and_a_smaller_one_is_not(spec: NetworkSpec) -> None:
    checks.check_smallest_image(spec)


@every_kind
def test_weights_are_restored_and_take_another_head(spec: NetworkSpec, tmp_path: Path) -> None:
    checks.check_weights(spec, tmp_path)


# Building -----------------------------------------------------------------------------------------


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator() -> None:
    state = torch.get_rng_state()
    first, same, other = (catalogue.build("cifar_resnet14", seed=seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[key]), key
    stem = "stem.conv.weight"
    assert not torch.equal(first.get_parameter(stem), other.get_parameter(stem))
    catalogue.build("cifar_resnet14")
    assert not torch.equal(torch.get_rng_state(), state)


def test_options_reach_the_network() -> None:
    network = catalogue.build("cifar_resnet14", classes=3, channels=1, ordering="e", shortcut="B")
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 3)
    assert "stages.1.units.0.shortcut.conv.weight" in network.state_dict()


@pytest.mark.parametrize(("letter", "ordering"), [*zip("abcde", ORDERINGS, strict=True)])
def test_an_ordering_may_be_given_by_its_letter(letter: str, ordering: str) -> None:
    """As version 0.1.0 wrote it into weights files and recipes."""
    assert NetworkSpec("resnet18", 2, 3, letter) == NetworkSpec("resnet18", 2, 3, ordering)
    with torch.device("meta"):
        by_letter, by_name = (
            catalogue.build("cifar_resnet14", ordering=word) for word in (letter, ordering)
        )
    assert repr(by_letter) == repr(by_name)


@pytest.mark.parametrize("cardinality", ["4d", "0x4d", "32x4", "32 x 4d"])
def test_a_cardinality_is_groups_and_width(cardinality: str) -> None:
    with pytest.raises(ResiduaError, match="expected groups and the width of each"):
        catalogue.build("resnet50", cardinality=cardinality)
    with pytest.raises(ResiduaError, match="resnet18 has no bottlenecks"):
        catalogue.build("resnet18", cardinality="32x4d")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "resnet5O"}, "'resnet5O'.*Did you mean resnet50"),
        ({"name": "ResNeXt50"}, "unknown model.*residua models"),
        ({"name": "resnet18", "ordering": "f"}, "'f' .*original, .*or a, b, c, d, e"),
        ({"name": "resnet18", "shortcut": "C"}, "shortcut 'C' .*none, A, B, D"),
        ({"name": "vgg16", "ordering": "e"}, "vgg16 has no residual units: ordering 'full"),
        ({"name": "vgg16_bn", "shortcut": "none"}, "vgg16_bn has no residual units: shortcut"),
        ({"name": "resnet18", "classes": 0}, "classes = 0"),
        ({"name": "resnet18", "channels": -1}, "channels = -1"),
    ],
)
def test_errors_name_what_cannot_be_built(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ResiduaError, match=words):
        catalogue.build(**options)


@pytest.mark.parametrize("options", [{"stage": 2}, {"pool_size": 2}, {"earlier_pools": (1,)}])
def test_what_belongs_to_another_head_needs_one(options: dict[str, Any]) -> None:
    spec = NetworkSpec("cifar_resnet14", 10, 3, **options)
    with pytest.raises(ResiduaError, match="stage, pool_size and earlier_pools belong to another"):
        catalogue.build_from(spec)


def test_a_features_network_and_its_head_are_the_whole() -> None:
    network: Any = catalogue.build("cifar_resnet14", seed=0).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        pooled = F.adaptive_avg_pool2d(network.features(x)[-1], 1).flatten(1)
        torch.testing.assert_close(network.head(pooled), network(x))
