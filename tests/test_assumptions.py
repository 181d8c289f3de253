"""What a weights file does not say, says otherwise, or has seen before: never passed over."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.keras_networks import keras

import residua
from residua.errors import ResiduaError
from residua.weights.convert import convert
from residua.weights.load import read_file
from residua.weights.network import build_network

pytestmark = pytest.mark.usefixtures("one_thread")


def mobilenet(**options: object) -> keras.Model:
    keras.utils.clear_session()
    given = {"weights": None, "classes": 5, "input_shape": (64, 64, 3), **options}
    return keras.applications.MobileNet(**given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "five.keras"
    mobilenet().save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five class folders of two images."""
    generator = np.random.default_rng(0)
    for label in range(5):
        for number in range(2):
            file = tmp_path / "photos" / f"kind{label}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (64, 64, 3), np.uint8)).save(file)
    return tmp_path / "photos"


def test_the_input_size_is_that_of_the_model(whole: Path, tmp_path: Path) -> None:
    assert read_file(whole).metadata.preprocessing.size == 64
    mobilenet().save(tmp_path / "five.h5")
    assert read_file(tmp_path / "five.h5").metadata.preprocessing.size == 64


def test_what_is_assumed_is_said_and_stays_said(whole: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="its preprocessing is not recorded"):
        residua.predict(whole, photos)
    convert(read_file(whole), tmp_path / "ours.safetensors")
    with pytest.warns(UserWarning, match="its preprocessing is not recorded"):
        residua.predict(tmp_path / "ours.safetensors", photos)
    with pytest.warns(UserWarning, match="its preprocessing is not recorded"):
        residua.predict(whole, photos, preprocessing={"size": 96})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        residua.predict(whole, photos, preprocessing={"mean": [0, 0, 0], "std": [1, 1, 1]})


def test_names_of_outputs_may_be_given_and_are_kept(
    whole: Path, photos: Path, tmp_path: Path
) -> None:
    names = ("ant", "bee", "cow", "dog", "eel")
    kept = {"preprocessing": {"mean": [0, 0, 0]}, "classes": names}
    (row, *_) = residua.predict(whole, photos, **kept)
    assert row.top[0][0] in names
    convert(read_file(whole).with_classes(names), tmp_path / "named.safetensors")
    named = read_file(tmp_path / "named.safetensors")
    assert named.metadata.classes == names
    with pytest.raises(ResiduaError, match="class 'kind0' is unknown to these weights"):
        residua.evaluate(named.path, photos)
    with pytest.raises(ResiduaError, match="has 5 outputs, but 2 different class names"):
        residua.predict(whole, photos, classes=["a", "b"])
    with pytest.raises(ResiduaError, match="class 'kind0' is unknown to these weights"):
        residua.evaluate(whole, photos, **kept)  # no guess is better than what was said


def test_outputs_without_names_are_the_folders_in_order(whole: Path, photos: Path) -> None:
    with pytest.warns(UserWarning, match="sorted class names"):
        judged = residua.evaluate(whole, photos)
    assert judged.classes == tuple(f"kind{label}" for label in range(5))
    (photos / "kind9").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "kind9" / "a.png")
    with (
        pytest.raises(ResiduaError, match="has no class names for its 5 outputs"),
        pytest.warns(UserWarning, match="not recorded"),
    ):
        residua.evaluate(whole, photos)


def test_another_epsilon_or_activation_is_another_network(tmp_path: Path) -> None:
    """Names and shapes are equal, what is computed is not."""

    def changed(layer: keras.Layer) -> keras.Layer:
        if layer.name == "conv1_bn":
            return keras.layers.BatchNormalization(epsilon=0.01, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    other = keras.models.clone_model(mobilenet(), clone_function=changed)
    for ending in (".keras", ".h5"):
        other.save(tmp_path / f"epsilon{ending}")
        said = r"stem\.norm \(conv1_bn\): its epsilon is 0\.01, expected 0\.001"
        with pytest.raises(ResiduaError, match=said):
            read_file(tmp_path / f"epsilon{ending}")
    mobilenet(classifier_activation="sigmoid").save(tmp_path / "sigmoid.keras")
    with pytest.raises(ResiduaError, match="ends in sigmoid, expected relu or softmax"):
        read_file(tmp_path / "sigmoid.keras")

    def leaky(layer: keras.Layer) -> keras.Layer:
        if layer.name == "conv1_relu":
            return keras.layers.LeakyReLU(name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    keras.models.clone_model(mobilenet(), clone_function=leaky).save(tmp_path / "leaky.keras")
    with pytest.raises(ResiduaError, match="is a layer LeakyReLU, which it does not have"):
        read_file(tmp_path / "leaky.keras")


def test_a_state_dict_of_our_own_network_is_read(tmp_path: Path) -> None:
    network = residua.build("resnet18", classes=5, seed=1).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    found = read_file(tmp_path / "mine.pth")
    assert found.metadata.network.name == "resnet18"
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = network(images)
        again = build_network(found, torch.device("cpu"))(images)
        torch.testing.assert_close(again, expected)  # in another memory layout
    rebuilt = residua.build(weights=tmp_path / "mine.pth").eval()
    with torch.inference_mode():
        assert torch.equal(rebuilt(images), expected)


def test_checkpoints_keep_best_scores_as_numpy_scalars(tmp_path: Path) -> None:
    state = residua.build("cifar_resnet20", seed=1).state_dict()
    kept = {"state_dict": state, "best_prec1": np.float64(91.7), "epoch": np.int64(3)}
    torch.save(kept, tmp_path / "best.pth")
    assert read_file(tmp_path / "best.pth").metadata.network.name == "cifar_resnet20"
