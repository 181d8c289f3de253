"""Groups of a bottleneck, and their width, as one word."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import residua
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue


def test_resnext_is_resnet_with_another_cardinality() -> None:
    ours = catalogue.build("resnet50", cardinality="32x4d", classes=5, seed=0).eval()
    published = catalogue.build("resnext50_32x4d", classes=5, seed=1).eval()
    published.load_state_dict(ours.state_dict())  # refuses another shape or name
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), published(images))


def test_one_group_of_64_is_the_bottleneck_of_resnet() -> None:
    ours = catalogue.build("resnet50", cardinality="1x64d", seed=0).state_dict()
    plain = catalogue.build("resnet50", seed=0).state_dict()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("name", "cardinality", "words"),
    [
        ("resnet18", "32x4d", "resnet18 has no bottlenecks"),
        ("vgg16", "32x4d", "has no residual units"),
        ("resnet50", "32x4", "such as 32x4d"),
        ("resnet50", "0x4d", "such as 32x4d"),
    ],
)
def test_what_has_no_cardinality(name: str, cardinality: str, words: str) -> None:
    with pytest.raises(ResiduaError, match=words):
        residua.build(name, cardinality=cardinality)


def test_a_run_keeps_it_with_its_weights(tmp_path: Path) -> None:
    settings = {"network.cardinality": "2x2d", "training.max_images": 64, "training.epochs": 1}
    run = residua.train(
        "digits",
        model="cifar_resnext29_8x64d",
        settings=settings,
        out=tmp_path / "run",
        quiet=True,
    )
    again = residua.build(weights=run.path)
    groups = {each.groups for each in again.modules() if isinstance(each, torch.nn.Conv2d)}
    assert groups == {1, 2}
    assert 0 <= residua.evaluate(run).scores.accuracy <= 1
    with pytest.raises(ResiduaError, match=r"cardinality '2x2d', asked was .*4x1d"):
        residua.build("cifar_resnext29_8x64d", weights=run.path, cardinality="4x1d")
