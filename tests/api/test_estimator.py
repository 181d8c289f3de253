"""ImageClassifier: scikit-learn's contract on arrays, paths, Pillow images and tensors."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted, validate_data

import residua
from residua.errors import ResiduaError

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"network.head": "linear", "network.stage": 1, "training.precise_bn_images": 0}
CHECKS = {  # of scikit-learn; the others train many more networks
    "check_estimator_cloneable",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_set_params",
    "check_dict_unchanged",
    "check_estimators_overwrite_params",
    "check_estimators_nan_inf",
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_requires_y_none",
    "check_supervised_y_no_nan",
    "check_supervised_y_2d",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
}
Pixels = npt.NDArray[np.uint8]


def colours(count: int) -> tuple[Pixels, npt.NDArray[Any]]:
    """Noisy red, green and blue images of 12 px, and their names."""
    rng = np.random.default_rng(0)
    names = np.array(["red", "green", "blue"])
    channels = np.arange(count) % 3
    images = rng.integers(0, 100, (count, 12, 12, 3))
    images[np.arange(count), :, :, channels] += 100
    return images.astype(np.uint8), names[channels]


def small(**changes: Any) -> residua.ImageClassifier:
    """One that trains a tiny network in half a second."""
    settings = {"model": "cifar_resnet14", "size": 12, "epochs": 3, "settings": SMALL, "lr": 0.1}
    return residua.ImageClassifier(**{**settings, **changes})


@pytest.fixture(scope="module")
def fitted() -> residua.ImageClassifier:
    return small().fit(*colours(48))


def test_it_predicts_in_the_order_of_its_classes(fitted: residua.ImageClassifier) -> None:
    images, names = colours(12)
    assert fitted.classes_.tolist() == ["blue", "green", "red"]
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (12, 3)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (fitted.predict(images) == names).all()
    assert fitted.score(images, names) == 1


def test_the_device_of_predictions_can_be_chosen(fitted: residua.ImageClassifier) -> None:
    images, _ = colours(4)
    expected = fitted.predict_proba(images)
    there = pickle.loads(pickle.dumps(fitted)).set_params(device="cuda:99")
    with pytest.raises(ResiduaError, match="device 'cuda:99' is not available"):
        there.predict(images)
    for device in ("cpu", "auto"):
        assert np.allclose(there.set_params(device=device).predict_proba(images), expected)


def test_classes_are_in_numpys_order_whatever_their_order_in_a_data_set() -> None:
    images, names = colours(48)
    labels = np.array([{"red": "10", "green": "9", "blue": "100"}[name] for name in names])
    fitted = small().fit(images, labels)
    assert fitted.classes_.tolist() == ["10", "100", "9"]
    assert fitted.score(images, labels) == 1
    with pytest.raises(ValueError, match="cannot be distinguished as text"):
        small().fit(images, np.where(labels == "10", "9 ", labels))


def test_every_kind_of_image_gives_the_same_probabilities(
    fitted: residua.ImageClassifier, tmp_path: Path
) -> None:
    images, _ = colours(3)
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(files[-1])
    expected = fitted.predict_proba(images)
    for kind in (
        files,
        np.array([str(file) for file in files]),
        [file.read_bytes() for file in files],
        [Image.open(file) for file in files],
        images / 255,
        torch.from_numpy(images).permute(0, 3, 1, 2),
        tuple(images),
    ):
        assert np.array_equal(fitted.predict_proba(kind), expected)


@pytest.mark.slow
def test_a_fit_on_files_is_that_on_their_pixels(tmp_path: Path) -> None:
    images, names = colours(12)
    files = [tmp_path / f"{number:02}.png" for number in range(12)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    pillow = [Image.fromarray(image) for image in images]
    settings = SMALL | {"data.val_fraction": 0}  # a random split depends on the names of files
    one = small(epochs=1, settings=settings)
    both = [one.fit(kind, names).predict_proba(images) for kind in (files, pillow)]
    assert np.array_equal(*both)


@pytest.mark.slow
def test_a_pickle_of_a_fitted_one_predicts_in_another_process(
    fitted: residua.ImageClassifier, tmp_path: Path
) -> None:
    images, _ = colours(6)
    file = tmp_path / "fitted.pickle"
    file.write_bytes(pickle.dumps((fitted, images)))
    code = (
        "import pickle, sys; fitted, images = pickle.load(open(sys.argv[1], 'rb')); "
        "print(fitted.predict(images).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(fitted.predict(images).tolist())


@pytest.mark.slow
def test_cross_validation_pipelines_and_searches_use_it(tmp_path: Path) -> None:
    images, labels = colours(24)
    numbers = np.unique(labels, return_inverse=True)[1]
    scores = cross_val_score(small(runs=tmp_path), images, numbers, cv=2)
    assert scores.tolist() == [1, 1]
    runs = [residua.load(folder) for folder in sorted(tmp_path.iterdir())]
    assert [run.classes for run in runs] == [("0", "1", "2")] * 2  # each fit has its own folder
    assert (runs[0].path / "report.html").exists()
    pipeline = make_pipeline(FunctionTransformer(lambda x: x[:, ::-1]), small())
    assert pipeline.fit(images, labels).score(images, labels) == 1
    search = GridSearchCV(small(), {"epochs": np.arange(1, 2)}, cv=2).fit(images, labels)
    assert search.best_estimator_.classes_.tolist() == ["blue", "green", "red"]


def test_parameters_are_cloned_and_listed() -> None:
    estimator = residua.ImageClassifier(seed=3, effort="best")
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params()
    assert copy.set_params(effort=None).effort is None
    assert repr(copy) == "ImageClassifier(seed=3)"


@pytest.mark.slow
def test_by_default_it_is_a_probe_on_installed_weights() -> None:
    images, names = colours(12)
    small_images = [Image.fromarray(image) for image in images]
    fitted = residua.ImageClassifier().fit(small_images, names)
    assert fitted.score(images, names) == 1


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 12), np.uint8), [0, 1, 0, 1], r"shape \(4, 12\): expected an array \[N"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1, 0], "inconsistent numbers of samples"),
        (np.zeros((4, 8, 8), np.uint8), [0, 0, 0, 0], "y has 1 class"),
        (np.zeros((2, 8, 8)) * np.nan, [0, 1], "NaN"),
        (np.full((2, 8, 8), 200.0), [0, 1], "state their range"),
        (np.zeros((0, 8, 8)), [], "0 images"),
        (["missing.png", "gone.png"], [0, 1], "X: 2 images cannot be read, the first is"),
        (np.zeros((3, 8, 8), np.uint8), np.array(["a", None, 3], object), "different types"),
        ("photos", [0, 1], "is of type str"),
        ([3, 4], [0, 1], "is of type int"),
        (np.zeros((4, 8, 8, 7), np.uint8), [0, 1, 0, 1], r"shape \(8, 8, 7\)"),
    ],
)
def test_what_is_no_training_set_is_refused(images: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().fit(images, labels)


def test_a_missing_file_is_named_as_it_was_given(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "there.png")
    files = [tmp_path / "there.png", tmp_path / "gone.png"]
    with pytest.raises(ValueError, match="gone") as caught:
        small().fit(files, [0, 1])
    assert str(caught.value) == (
        f"X: 1 image cannot be read, the first is {tmp_path / 'gone.png'}: there is no such file. "
        "Correct the path or the file, or remove it from X and y."
    )


def test_an_unreadable_image_is_named(fitted: residua.ImageClassifier) -> None:
    with pytest.raises(ResiduaError, match=r"nothing\.png: cannot be read"):
        fitted.predict(["nothing.png"])


class OfRows(residua.ImageClassifier):
    """Rows of numbers [N, D] as images of one line, so that scikit-learn can check it."""

    def fit(self, X: Any, y: Any) -> Any:  # noqa: N803
        return super().fit(self._images(validate_data(self, X)), y)

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        check_is_fitted(self)
        return super().predict_proba(self._images(validate_data(self, X, reset=False)))

    def _images(self, rows: Any) -> Any:
        return np.clip(rows.astype(float), -100, 100)[:, None, :]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags


def checks() -> list[Any]:
    from sklearn.utils import estimator_checks  # which takes longer to import than most tests

    estimator = OfRows(
        value_range=(-100, 100), model="cifar_resnet14", size=8, epochs=1, settings=SMALL
    )
    found = estimator_checks.estimator_checks_generator(estimator)
    return [pair for pair in found if estimator_checks._check_name(pair[1]) in CHECKS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn_pass() -> None:
    run = checks()
    assert len(run) >= len(CHECKS)
    for estimator, check in run:
        check(estimator)
