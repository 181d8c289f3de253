"""What a third-party file does not record is assumed as its network's publisher states it."""

from __future__ import annotations

import dataclasses

import pytest

from residua.networks.zoo.catalogue import ROWS
from residua.weights.published.classes import CIFAR10, imagenet_classes
from residua.weights.published.defaults import defaults_for
from residua.weights.published.imagenet import RGB, SOURCES


def test_published_networks_have_the_preprocessing_of_their_publisher() -> None:
    for name, source in SOURCES.items():
        defaults = defaults_for(name, 1000, 3)
        assert defaults.preprocessing == source.preprocessing, name
        assert defaults.classes == imagenet_classes()
        assert defaults.origin.assumed_classes.endswith("those of ImageNet are assumed")
    keras = defaults_for("keras_resnet50", 1000, 3).origin.assumed_preprocessing
    assert "that of Keras is assumed: bgr, mean [103.939, 116.779, 123.68]" in keras


def test_another_number_of_classes_keeps_the_preprocessing_and_has_no_names() -> None:
    defaults = defaults_for("keras_resnet50", 5, 3)
    assert defaults.preprocessing == SOURCES["keras_resnet50"].preprocessing
    assert (defaults.classes, defaults.origin.assumed_classes) == ((), "")


@pytest.mark.parametrize(
    ("name", "classes", "source", "mean"),
    [
        ("cifar_resnet20", 10, "pytorch_resnet_cifar10", RGB.mean),
        ("tutorial_cifar_resnet32_e", 10, "tutorial 1", (125.307, 122.95, 113.865)),
        ("tutorial_resnet18", 6, "its tutorial", (0.0, 0.0, 0.0)),
        ("tutorial_resnet50", 2, "its tutorial", (0.0, 0.0, 0.0)),
        ("resnet18", 6, "torchvision", RGB.mean),
    ],
)
def test_other_networks_have_the_preprocessing_of_their_origin(
    name: str, classes: int, source: str, mean: tuple[float, ...]
) -> None:
    defaults = defaults_for(name, classes, 3)
    assert f"that of {source} is assumed" in defaults.origin.assumed_preprocessing
    assert defaults.preprocessing.mean == mean
    assert defaults.preprocessing.size == ROWS[name].size
    assert defaults.classes == (CIFAR10 if classes == 10 else ())


def test_one_channel_takes_the_mean_of_three() -> None:
    colour, grey = defaults_for("resnet18", 6, 3), defaults_for("resnet18", 6, 1)
    assert grey.preprocessing.mean == pytest.approx((sum(RGB.mean) / 3,))
    assert grey.preprocessing.std == pytest.approx((sum(RGB.std) / 3,))
    statistics = {"mean": RGB.mean, "std": RGB.std}
    restored = dataclasses.replace(grey.preprocessing, channels=3, **statistics)
    assert restored == colour.preprocessing
