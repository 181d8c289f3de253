"""What a weights file does not record is assumed, which is printed and can be set."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import residua
from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks.zoo.catalogue import build
from residua.weights.convert import convert
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata
from residua.weights.published.defaults import defaults_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*not recorded in the file:UserWarning"),
]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras file of five unnamed classes."""
    name = "keras_mobilenet"
    preprocessing = defaults_for(name, 5, 3).preprocessing
    metadata = Metadata(NetworkSpec(name, 5, 3), (), preprocessing, {})
    path = tmp_path_factory.mktemp("keras") / "five.weights.h5"
    state = build(name, classes=5, seed=0).state_dict()
    companion = convert(Weights(Path("ours"), state, metadata, ""), path)
    assert companion is not None
    companion.unlink()  # another program writes none
    return path


SMALL = {"preprocessing": {"size": 64}}


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


def test_assumed_preprocessing_is_printed_and_stays_recorded(
    foreign: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="its preprocessing is not recorded"):
        residua.predict(foreign, photos)
    convert(read_file(foreign), tmp_path / "ours.safetensors")
    with pytest.warns(UserWarning, match="its preprocessing is not recorded"):
        residua.predict(tmp_path / "ours.safetensors", photos)
    with pytest.warns(UserWarning, match="its preprocessing is not recorded"):
        residua.predict(foreign, photos, preprocessing={"size": 96})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        residua.predict(foreign, photos, preprocessing={"mean": [0, 0, 0], "std": [1, 1, 1]})


def test_class_names_can_be_set_and_are_saved(foreign: Path, photos: Path, tmp_path: Path) -> None:
    names = ("ant", "bee", "cow", "dog", "eel")
    given = {"preprocessing": {"mean": [0, 0, 0]}, "classes": names}
    (row, *_) = residua.predict(foreign, photos, **given)
    assert row.top[0][0] in names
    convert(read_file(foreign).with_classes(names), tmp_path / "named.safetensors")
    named = read_file(tmp_path / "named.safetensors")
    assert named.metadata.classes == names
    with pytest.raises(ResiduaError, match="class 'kind0' is not among the"):
        residua.evaluate(named.path, photos)
    with pytest.raises(ResiduaError, match="has 5 outputs, but 2 different class names"):
        residua.predict(foreign, photos, classes=["a", "b"])
    with pytest.raises(ResiduaError, match="class 'kind0' is not among the"):
        residua.evaluate(foreign, photos, **given)  # set names are never guessed again


def test_outputs_without_names_are_the_folders_in_order(foreign: Path, photos: Path) -> None:
    with pytest.warns(UserWarning, match="sorted class names"):
        evaluation = residua.evaluate(foreign, photos)
    assert evaluation.classes == tuple(f"kind{label}" for label in range(5))
    (photos / "kind9").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "kind9" / "a.png")
    with (
        pytest.raises(ResiduaError, match="has no class names for its 5 outputs"),
        pytest.warns(UserWarning, match="not recorded"),
    ):
        residua.evaluate(foreign, photos)
