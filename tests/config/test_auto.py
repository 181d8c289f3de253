"""Automatic settings: an explicit value wins, each has a reason, and those without effect go."""

from __future__ import annotations

import pytest
import yaml

from residua.config import auto
from residua.config.auto import Choice, Chooser, effective, has_effect, is_explicit
from residua.config.parse import to_yaml, with_settings
from residua.config.schema import AUTO, Config, NetworkSpec, Preprocessing


def chooser(**settings: object) -> Chooser:
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return Chooser(with_settings(Config(), given))


def complete(chooser: Chooser, side: int, counts: list[int], *, grey: bool = False) -> Chooser:
    chooser.choose("training.device", "cpu", "test")
    chooser.choose("training.precision", "fp32", "test")
    auto.choose_geometry(chooser, side, grey)
    auto.choose_validation(chooser, sum(counts), len(counts), {None})
    chooser.choose("preprocessing.mean", [1.0], "test")
    chooser.choose("preprocessing.std", [2.0], "test")
    auto.choose_network(chooser, len(counts), sum(counts))
    auto.choose_training(chooser, counts)
    auto.choose_augmentation(chooser, grey)
    return chooser


def test_an_explicit_value_wins() -> None:
    made = complete(chooser(training__epochs=7, network__name="vgg16"), 100, [50, 50])
    assert made.config.training.epochs == 7
    assert made.config.network.name == "vgg16"
    assert not {"training.epochs", "network.name"} & {choice.setting for choice in made.choices}
    assert is_explicit(made.config, made.choices, "training.epochs")
    assert not is_explicit(made.config, made.choices, "training.batch_size")
    assert not is_explicit(made.config, made.choices, "network.freeze")  # 0 is off


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"training__batch_size": 1024}, 0.025),
        ({"training__batch_size": 1024, "training__max_images": 16}, 0.0125),
        ({"training__batch_size": 16}, 0.0125),
        ({"training__batch_size": 1024, "optimization__learning_rate": 0.8}, 0.8),
    ],
)
def test_the_learning_rate_is_for_the_images_that_a_step_really_has(
    settings: dict[str, object], expected: float
) -> None:
    made = complete(chooser(**settings), 32, [16, 16])
    assert made.config.optimization.learning_rate == pytest.approx(expected)


def test_every_automatic_value_has_a_reason() -> None:
    made = complete(chooser(), 300, [120, 120, 120])
    assert all(choice.reason for choice in made.choices)
    assert len({choice.setting for choice in made.choices}) == len(made.choices)
    for choice in made.choices:
        value = auto.value_of(made.config, choice.setting)
        assert value == (tuple(choice.value) if isinstance(choice.value, list) else choice.value)


@pytest.mark.parametrize(
    ("side", "size", "name"),
    [(8, 16, "cifar_resnet20"), (32, 32, "cifar_resnet20"), (300, 128, "resnet18")],
)
def test_size_and_network_follow_the_images(side: int, size: int, name: str) -> None:
    made = complete(chooser(), side, [100, 100])
    assert (made.config.preprocessing.size, made.config.network.name) == (size, name)


def test_an_imbalanced_data_set_gets_class_weights() -> None:
    for counts, expected in (([100, 90], "none"), ([100, 20], "balanced")):
        assert complete(chooser(), 100, counts).config.optimization.class_weights == expected


def test_greyscale_images_are_not_mirrored() -> None:
    assert not complete(chooser(), 28, [100, 100], grey=True).config.augmentation.flip
    assert complete(chooser(), 100, [100, 100]).config.augmentation.flip


def test_the_learning_rate_follows_the_batch_size() -> None:
    small = complete(chooser(training__batch_size=32), 100, [90, 90]).config.optimization
    large = complete(chooser(training__batch_size=128), 100, [90, 90]).config.optimization
    assert large.learning_rate == pytest.approx(4 * small.learning_rate)
    adam = complete(chooser(optimization__optimizer="adamw"), 100, [50, 50]).config.optimization
    assert adam.learning_rate == 1e-3


def test_a_probe_on_few_images_uses_all_for_training() -> None:
    probe = {"transfer__strategy": "features", "network__weights": "x"}
    assert complete(chooser(**probe), 100, [20, 20]).config.data.val_fraction == 0
    assert complete(chooser(**probe), 100, [500, 500]).config.data.val_fraction == 0.2
    assert complete(chooser(), 100, [20, 20]).config.data.val_fraction == 0.2


def test_weights_bring_their_preprocessing_along_for_a_transfer() -> None:
    spec = NetworkSpec("resnet18", 1000, 3)
    preprocessing = Preprocessing(
        size=224,
        channels=3,
        resize="crop",
        crop=0.875,
        interpolation="antialias",
        channel_order="rgb",
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
    )
    plain, probe = chooser(), chooser(transfer__strategy="features")
    for made in (plain, probe):
        auto.choose_from_weights(made, spec, preprocessing)
        assert made.config.network.name == "resnet18"
        assert made.config.preprocessing.mean == (1.0, 2.0, 3.0)
    assert probe.config.preprocessing.size == 224
    assert plain.config.preprocessing.size == AUTO


def test_choices_without_effect_are_left_out() -> None:
    settings = (
        "optimization.learning_rate",
        "optimization.class_weights",
        "training.epochs",
        "augmentation.flip",
        "network.freeze_norms",
        "preprocessing.size",
    )
    choices = [Choice(name, 1, "reason") for name in settings]
    probe = {"transfer.strategy": "features", "network.head": "logistic"}
    config = with_settings(Config(), probe)
    shown = {choice.setting for choice in effective(config, choices)}
    assert shown == {"optimization.class_weights", "preprocessing.size"}
    views = with_settings(config, {"transfer.views": 2})
    assert "augmentation.flip" in {choice.setting for choice in effective(views, choices)}
    mlp = with_settings(config, {"network.head": "mlp:8"})
    assert effective(mlp, choices) == choices
    assert effective(Config(), choices) == choices
    text = to_yaml(config, lambda setting: has_effect(config, setting))
    assert set(yaml.safe_load(text)["optimization"]) == {"class_weights"}
    assert not {"epochs", "batch_size"} & set(yaml.safe_load(text)["training"])
    assert "augmentation" not in yaml.safe_load(text)


def test_large_data_are_compared_on_a_thousand_images() -> None:
    for images, fraction in ((4_000, 0.2), (10_000, 0.1), (60_000, 0.05)):
        made = chooser(transfer__strategy="auto")
        auto.choose_validation(made, images, 10, {None})
        assert made.config.data.val_fraction == fraction


def test_near_duplicates_are_searched_among_few_images_of_enough_pixels() -> None:
    for images, side, expected in ((600, 224, "near"), (60_000, 224, "exact"), (600, 28, "exact")):
        made = chooser()
        auto.choose_duplicates(made, images, side)
        assert made.config.data.duplicates == expected


def test_of_several_choices_for_a_setting_the_last_is_shown() -> None:
    choices = [Choice("transfer.strategy", "auto", "first"), Choice("training.device", "cpu", "")]
    last = Choice("transfer.strategy", "full", "best of the search")
    assert effective(Config(), [*choices, last]) == [last, choices[1]]
