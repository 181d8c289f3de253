"""Predictions and features of files, folders and data sets, in their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from residua.data.augmentation import normalise
from residua.data.image import read_image
from residua.errors import ResiduaError
from residua.evaluation.inputs import Images, Inputs, Reading, dataset_inputs, inputs_of
from residua.evaluation.predict import features_of, predict_images
from residua.weights.load import Weights, read_file
from residua.weights.network import build_network

CLASSES = tuple("abcdefghij")
LIMIT = 10**6


@pytest.fixture(scope="module")
def weights(
    write_weights: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Weights:
    file = tmp_path_factory.mktemp("weights") / "net.safetensors"
    return read_file(write_weights(file, 5)).with_classes(CLASSES)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two images and a file that is none."""
    for name, value in (("a", 10), ("b", 200)):
        pixels = np.random.default_rng(value).integers(0, 256, (40, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    return [str(tmp_path / f"{name}.png") for name in "abc"]


def inputs(weights: Weights, images: Images, max_pixels: int = LIMIT) -> Inputs:
    """Images as `predict_images` takes them, or a data set as `features_of` does."""
    reading = Reading(weights.metadata.preprocessing, max_pixels)
    return dataset_inputs(images, reading) or inputs_of(images, reading)


def probabilities(weights: Weights, file: str) -> torch.Tensor:
    rule = weights.metadata.preprocessing
    images = normalise(torch.from_numpy(read_image(Path(file), rule, LIMIT)[None]), rule)
    with torch.inference_mode():
        return build_network(weights, torch.device("cpu"))(images).softmax(1)[0]


def test_predictions_are_the_most_likely_classes_in_order(
    weights: Weights, files: list[str]
) -> None:
    rows = list(predict_images(weights, inputs(weights, files), 3))
    assert [row.file for row in rows] == files
    for row in rows[:2]:
        best = probabilities(weights, row.file).topk(3)
        assert [name for name, _ in row.top] == [CLASSES[int(index)] for index in best.indices]
        assert [value for _, value in row.top] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert row.error is None
    assert rows[2].top == ()
    assert "is not an image" in str(rows[2].error)
    nothing = {"set": None, "unknown": None}
    assert rows[2].to_json() == {"file": files[2], "top": [], **nothing, "error": rows[2].error}
    (alone,) = predict_images(weights, inputs(weights, files[:1]), 1)
    assert alone.top == ((rows[0].top[0][0], pytest.approx(rows[0].top[0][1])),)
    assert [name for name, _ in inputs(weights, files)] == files
    with pytest.raises(ResiduaError, match="top = 0: must be a whole number of at least 1"):
        list(predict_images(weights, inputs(weights, files), 0))


def test_predictions_below_a_probability_are_unknown(weights: Weights, files: list[str]) -> None:
    rows = list(predict_images(weights, inputs(weights, files), 3))
    highest = max(row.top[0][1] for row in rows[:2])
    chosen = list(predict_images(weights, inputs(weights, files), 3, min_probability=highest))
    for row, before in zip(chosen, rows, strict=True):
        assert (row.top, row.error) == (before.top, before.error)
        is_below = bool(row.top) and row.top[0][1] < highest
        assert row.unknown == (f"probability is below {highest:g}" if is_below else None)
    with pytest.raises(ResiduaError, match="min_probability = 90: must be between 0 and 1"):
        list(predict_images(weights, inputs(weights, files), min_probability=90))


def test_an_empty_name_is_not_the_working_directory(
    weights: Weights, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(files[0]).parent)
    (row,) = predict_images(weights, inputs(weights, [""]))
    assert row.error == "is an empty name"
    with pytest.raises(ResiduaError, match="is an empty name"):
        features_of(weights, inputs(weights, [""]))


def test_a_folder_stands_for_the_images_below_it(weights: Weights, files: list[str]) -> None:
    folder = Path(files[0]).parent
    (folder / "below").mkdir()
    Image.new("L", (5, 5)).save(folder / "below" / "d.jpg")
    (folder / "notes.txt").write_text("no image")
    names = [row.file for row in predict_images(weights, inputs(weights, [str(folder)]))]
    assert sorted(names) == sorted([*files, str(folder / "below" / "d.jpg")])
    (missing,) = predict_images(weights, inputs(weights, [str(folder / "nowhere.png")]))
    assert missing.error


def test_images_above_the_limit_are_refused(weights: Weights, files: list[str]) -> None:
    (row,) = predict_images(weights, inputs(weights, files[:1], 40 * 32 - 1))
    assert row.error
    with pytest.raises(ResiduaError, match="no image could be read"):
        features_of(weights, inputs(weights, files[:1], 40 * 32 - 1))


def test_the_head_turns_the_features_into_the_predictions(
    weights: Weights, files: list[str]
) -> None:
    found = features_of(weights, inputs(weights, files))
    assert found.values.shape == (2, 64)
    assert found.files == tuple(files[:2])
    ((file, reason),) = found.unreadable
    assert file == files[2]
    assert "is not an image" in reason
    head = build_network(weights, torch.device("cpu")).head
    with torch.inference_mode():
        logits = head(torch.from_numpy(found.values))  # type: ignore[operator]
    for file, row in zip(found.files, logits.softmax(1), strict=True):
        torch.testing.assert_close(row, probabilities(weights, file), atol=1e-5, rtol=0)
    last = [*[files[0]] * 32, files[2]]  # the unreadable one is alone in the second batch
    assert features_of(weights, inputs(weights, last)).values.shape == (32, 64)


def test_features_may_be_of_an_earlier_stage_and_a_finer_grid(
    weights: Weights, files: list[str]
) -> None:
    network = build_network(weights, torch.device("cpu"))
    rule = weights.metadata.preprocessing
    images = normalise(torch.from_numpy(read_image(Path(files[0]), rule, LIMIT)[None]), rule)
    with torch.inference_mode():
        map_ = network.features(images)[1]
        expected = torch.nn.functional.adaptive_avg_pool2d(map_, 2).flatten(1).numpy()
    found = features_of(weights, inputs(weights, files[:1]), stage=2, pool_size=2)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    with pytest.raises(ResiduaError, match="stage 4: cifar_resnet20 has stages 1 to 3"):
        features_of(weights, inputs(weights, files[:1]), stage=4)


def test_features_are_saved_as_arrays_or_as_a_table(
    weights: Weights, files: list[str], tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = features_of(weights, inputs(weights, files))
    found.save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as stored:
        np.testing.assert_array_equal(stored["features"], found.values)
        assert stored["features"].dtype == np.float32
        assert stored["files"].tolist() == list(found.files)
    found.save(tmp_path / "features.parquet")
    table = parquet.read_table(tmp_path / "features.parquet")
    assert table["file"].to_pylist() == list(found.files)
    np.testing.assert_array_equal(table["feature63"].to_numpy(), found.values[:, 63])
    with pytest.raises(ResiduaError, match=r"features\.csv: expected a file name that ends"):
        found.save(tmp_path / "features.csv")


@pytest.mark.slow
def test_features_of_a_data_set_without_image_files(weights: Weights) -> None:
    found = features_of(weights, inputs(weights, ["digits"]), stage=1)
    assert found.values.shape == (1797, 16)
    assert found.files[0] == "digits/0000"
