"""The public functions: their names, arguments under both names, and what they refuse."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.runs import ONE_STAGE, trained

import residua
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue
from residua.weights.native import read_weights, to_bytes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> residua.Run:
    """One epoch on images of three classes; images of more than 300 pixels are refused."""
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {**ONE_STAGE, "data.max_pixels": 300}
    return trained(shapes, out, settings, epochs=1, lr=0.05, batch_size=12, test_fraction=0.2)


@pytest.fixture(scope="module")
def weights(write_weights: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "net.safetensors", 5)


def test_dir_lists_the_public_names() -> None:
    assert [name for name in dir(residua) if name[0] != "_"] == sorted(residua.__all__)
    assert {"train", "evaluate", "predict", "Run", "ResiduaError"} <= set(dir(residua))
    for function in ("audit", "compare", "evaluate", "export", "load", "predict", "transform"):
        result = getattr(residua, function).__annotations__["return"]
        assert isinstance(getattr(residua, result), type), function
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", residua.__version__)
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = residua.fit


def test_models_are_those_of_the_catalogue() -> None:
    assert residua.models() == list(catalogue.ROWS)
    assert "resnet50" in residua.models()


@pytest.mark.slow
def test_a_run_shows_its_settings_history_and_network(run: residua.Run, shapes: Path) -> None:
    assert (run.config.training.batch_size, run.config.optimization.learning_rate) == (12, 0.05)
    assert repr(run) == f"Run({str(run.path)!r})"
    assert run.classes == ("class0", "class1", "class2")
    assert run.preprocessing == run.config.preprocessing
    (row,) = run.history
    assert {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"} <= row.keys()
    network = run.network()
    assert not network.training
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert residua.load(run.path).config == run.config
    assert run.evaluate().to_json() == residua.evaluate(run.path).to_json()
    assert run.predict(shapes / "class0", top=1) == residua.predict(run, shapes / "class0", top=1)
    with Image.open(shapes / "class0" / "000.png") as image:
        pixels = np.asarray(image)
    (row,) = run.predict(pixels.astype(float), value_range=(0, 255), coverage=0.5)
    assert (row,) == tuple(residua.predict(run, pixels, coverage=0.5))
    given = run.predict_proba(pixels.astype(float), value_range=(0, 255))
    assert np.array_equal(given, run.predict_proba(pixels))


@pytest.mark.slow
def test_probabilities_are_those_of_the_predictions_in_the_order_of_the_classes(
    run: residua.Run, shapes: Path
) -> None:
    photos = shapes / "class2"
    rows, probabilities = run.predict(photos), run.predict_proba(photos)
    assert probabilities.shape == (len(rows), 3)
    assert probabilities.dtype == np.float64
    for row, chances in zip(rows, probabilities, strict=True):
        assert dict(row.top) == dict(zip(run.classes, chances, strict=True))
    assert run.predict_proba([]).shape == (0, 3)
    with pytest.raises(ResiduaError, match=r"nowhere\.png: cannot be read"):
        run.predict_proba([photos, "nowhere.png"])
    for method in (run.predict, run.predict_proba, run.evaluate):
        with pytest.raises(ResiduaError, match="device 'gpu' is"):
            method(photos, device="gpu")


def test_features_and_explanations_are_methods_of_a_run(run: residua.Run, shapes: Path) -> None:
    file = shapes / "class0" / "000.png"
    expected = residua.features(run, file, pool_size=2).values
    np.testing.assert_array_equal(run.features(file, pool_size=2).values, expected)
    (row,) = run.explain(file, class_name="class1")
    assert row.class_name == "class1"


def test_channels_are_an_argument_as_on_the_command_line(shapes: Path) -> None:
    with pytest.raises(ResiduaError, match=r"preprocessing\.channels = 2"):
        residua.train(shapes, channels=2, quiet=True)


def test_earlier_argument_names_still_work(weights: Path, shapes: Path) -> None:
    for arguments in ({"batch": 0}, {"batch_size": 0}, {"settings": {"training.batch": 0}}):
        with pytest.raises(ResiduaError, match=r"training\.batch_size = 0: must be at least 1"):
            residua.train(shapes, quiet=True, **arguments)
    file = shapes / "class0" / "000.png"
    old, new = residua.features(weights, file, side=2), residua.features(weights, file, pool_size=2)
    np.testing.assert_array_equal(old.values, new.values)
    with pytest.raises(ResiduaError, match="batch is the earlier name of batch_size"):
        residua.train(shapes, batch=30, batch_size=30, quiet=True)
    with pytest.raises(ResiduaError, match="side is the earlier name of pool_size"):
        residua.features(weights, file, side=2, pool_size=2)


@pytest.mark.slow
def test_build_starts_from_weights(weights: Path) -> None:
    images = torch.randn(2, 3, 16, 16)
    network = residua.build("cifar_resnet20", weights=weights)
    assert network.training
    other = residua.build(classes=4, weights=weights, new_head=True)
    with torch.inference_mode():
        assert network.eval()(images).shape == (2, 10)
        assert other.eval()(images).shape == (2, 4)
        torch.testing.assert_close(network.features(images), other.features(images))  # type: ignore[operator]
    for arguments, reason in (
        ({"name": "cifar_resnet20", "classes": 4, "weights": weights}, "--new-head"),
        ({"name": "cifar_resnet20", "new_head": True}, "give weights too"),
        ({"name": "resnet18", "weights": weights}, "not of resnet18"),
        ({"weights": weights, "ordering": "e"}, "full_preactivation"),
        ({}, "which network"),
    ):
        with pytest.raises(ResiduaError, match=reason):
            residua.build(**arguments)


def test_build_without_weights_takes_every_option() -> None:
    options = {"classes": 3, "channels": 1, "ordering": "e", "shortcut": "B", "seed": 4}
    network = residua.build("cifar_resnet20", **options)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    options["ordering"] = "full_preactivation"
    again = residua.build("cifar_resnet20", **options)
    states = network.state_dict(), again.state_dict()
    assert states[0].keys() == states[1].keys()
    grouped = residua.build("resnext50_32x4d", cardinality="2x4d", classes=2)
    assert grouped(torch.zeros(1, 3, 64, 64).expand(2, -1, -1, -1)).shape == (2, 2)


@pytest.mark.slow
def test_a_run_refuses_images_as_large_as_its_training_did(
    run: residua.Run, tmp_path: Path
) -> None:
    for side in (17, 18):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side}.png")
    found = residua.features(run, [tmp_path / "17.png", tmp_path / "18.png"])
    assert [Path(file).name for file in found.files] == ["17.png"]
    assert [Path(file).name for file, _ in found.unreadable] == ["18.png"]


@pytest.mark.slow
def test_what_a_run_records_cannot_be_overridden(run: residua.Run, shapes: Path) -> None:
    for options in ({"model": "resnet18"}, {"classes": "abc"}, {"preprocessing": {"size": 9}}):
        with pytest.raises(ResiduaError, match="a run records its network, classes"):
            residua.predict(run, shapes, **options)


def test_weights_need_data_to_evaluate_on(weights: Path) -> None:
    with pytest.raises(ResiduaError, match="has no images to evaluate on: give a DATA folder"):
        residua.evaluate(weights)


@pytest.mark.slow
def test_every_kind_of_image_gives_the_same_prediction(weights: Path, shapes: Path) -> None:
    file = shapes / "class0" / "000.png"
    with Image.open(file) as opened:
        image = opened.copy()
    array = np.asarray(image)
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy())
    kinds = [str(file), file, file.read_bytes(), image, array, tensor, tensor / 255]
    kinds += [array.astype(np.uint16) * 257, array.astype(np.float32) / 255]
    rows = residua.predict(weights, (kind for kind in kinds))
    assert [row.file for row in rows] == [str(file)] * 2 + [f"image {n}" for n in range(2, 9)]
    assert {row.top for row in rows} == {rows[0].top}
    top = residua.predict(weights, file)[0].top
    for kind in kinds:
        assert [row.top for row in residua.predict(weights, kind)] == [top]
    scaled = residua.predict(weights, array.astype(np.float64), value_range=(0, 255))
    assert scaled[0].top == top
    assert residua.predict(weights, files=file)[0].top == top  # the name in version 0.1.0
    values = residua.features(weights, kinds).values
    np.testing.assert_allclose(values, np.tile(values[0], (9, 1)), atol=1e-6)


@pytest.mark.slow
def test_any_iterable_of_images_is_read_once(weights: Path, shapes: Path) -> None:
    names = sorted(map(str, (shapes / "class0").glob("*.png")))
    for images in (map(str, sorted((shapes / "class0").glob("*.png"))), iter(names), tuple(names)):
        assert [row.file for row in residua.predict(weights, images)] == names
    found = residua.features(weights, sorted((shapes / "class0").glob("*.png")))
    assert list(found.files) == names
    assert repr(found) == "Features(20 images x 64, 0 unreadable)"
    buffer = np.zeros((8, 8, 3), np.uint8)

    def frames() -> Iterator[np.ndarray]:  # as a video decoder, in one buffer
        for value in (0, 255):
            buffer[:] = value
            yield buffer

    alone = [residua.predict(weights, np.full((8, 8, 3), v, np.uint8))[0].top for v in (0, 255)]
    tops = [dict(row.top) for row in residua.predict(weights, frames())]
    assert tops == [pytest.approx(dict(top), abs=1e-6) for top in alone]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((3, 3)) + 7, r"outside 0\.\.1: state their range"),
        (np.full((3, 3), np.nan), "not numbers"),
        (np.zeros((3, 3), np.int64), "array of int64: expected uint8, uint16"),
        (np.zeros((3, 3, 2), np.uint8), r"shape \(3, 3, 2\): expected \(H, W\)"),
        (torch.zeros(5, 5, 3), r"shape \(5, 5, 3\): expected \(C, H, W\)"),
        (b"no image", "is not an image"),
        ("a\0b", "null byte"),
        ("a" * 300, "File name too long"),
        ("~photo.jpg", "No such file"),
        ([1], "of type list: expected a path"),
    ],
)
def test_an_image_that_cannot_be_used_keeps_its_row(
    image: object, reason: str, weights: Path, shapes: Path
) -> None:
    good = str(shapes / "class0" / "000.png")
    rows = residua.predict(weights, [good, image, good])
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert re.search(reason, str(rows[1].error))


def test_a_float_file_of_nan_is_no_black_image(weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "missing.tif"
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(file)
    (row,) = residua.predict(weights, file)
    assert (row.file, row.top) == (str(file), ())
    assert "not numbers (NaN or infinite)" in str(row.error)
    with pytest.raises(ResiduaError, match=r"missing\.tif: has values that are not numbers"):
        residua.features(weights, file)


def test_what_is_no_image_at_all_is_refused(weights: Path, shapes: Path) -> None:
    for images in (None, 5):
        with pytest.raises(ResiduaError, match="expected an image or several"):
            residua.predict(weights, images)
    with pytest.raises(ResiduaError, match=r"is a table: expected its column of images or paths"):
        residua.predict(weights, {"image": shapes})  # type: ignore[arg-type]
    file = shapes / "class0" / "000.png"
    with (
        file.open("rb") as stream,
        pytest.raises(ResiduaError, match=r"is an open file: expected its content, as file\.read"),
    ):
        residua.predict(weights, stream)
    for arguments, reason in (
        ({"top": 2.5}, "top = 2.5: must be a whole number"),
        ({"value_range": 255}, "value_range = 255: expected the values of black and white"),
        ({"value_range": (1, 0)}, r"value_range = \(1, 0\)"),
    ):
        with pytest.raises(ResiduaError, match=reason):
            residua.predict(weights, file, **arguments)


def test_a_tilde_in_a_name_is_a_home_folder_only_at_the_start_of_a_typed_path(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~photo.png", "~root"):  # the second is also the name of a user
        Image.new("RGB", (9, 9)).save(tmp_path / name, "PNG")
    assert residua.predict(weights, ["~photo.png", "~/~photo.png"])[1].error is None
    rows = residua.predict(weights, ".")
    assert [(row.file, row.error) for row in rows] == [("~photo.png", None), ("~root", None)]


def test_the_transform_gives_what_prediction_reads(weights: Path, shapes: Path) -> None:
    file = shapes / "class0" / "000.png"
    transform = pickle.loads(pickle.dumps(residua.transform(weights)))
    network = residua.build(weights=weights).eval()
    with Image.open(file) as image, torch.inference_mode():
        tensor = transform(image)
        probabilities = network(tensor[None]).softmax(1)[0]
    assert (tensor.dtype, tensor.shape) == (torch.float32, (3, 16, 16))
    chances = sorted(probabilities.tolist(), reverse=True)[:3]
    (row,) = residua.predict(weights, file)
    assert [chance for _, chance in row.top] == pytest.approx(chances, abs=1e-5)
    with pytest.raises(ResiduaError, match=r"nowhere\.png: cannot be read"):
        transform("nowhere.png")


def test_outputs_that_are_no_numbers_are_an_error_of_the_row(
    weights: Path, shapes: Path, tmp_path: Path
) -> None:
    tensors, metadata = read_weights(weights)
    tensors["head.weight"].fill_(3e38)
    tensors["head.bias"].fill_(-3e38)
    (tmp_path / "huge.safetensors").write_bytes(to_bytes(tensors, metadata))
    (row,) = residua.predict(tmp_path / "huge.safetensors", shapes / "class0" / "000.png")
    assert row.top == ()
    assert "not finite" in str(row.error)


def test_a_grid_never_replaces_a_photo_but_an_earlier_grid(weights: Path, tmp_path: Path) -> None:
    photos = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.jpg"]
    for photo in photos:
        Image.new("RGB", (9, 9)).save(photo)
    before = [photo.read_bytes() for photo in photos]
    for grid in (photos[0], photos[2], tmp_path / "missing" / "grid.svg"):
        with pytest.raises(ResiduaError, match=f"{grid.name}: e"):
            residua.predict(weights, photos[1], grid=grid)
    for _ in range(2):
        residua.predict(weights, photos, grid=tmp_path / "grid.png")
    assert [photo.read_bytes() for photo in photos] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.png", "b.png", "c.jpg", "grid.png")
    ]


def test_a_grid_without_readable_images_is_a_warning(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.warns(UserWarning, match="no grid"):
        (row,) = residua.predict(weights, tmp_path / "a.png", grid=tmp_path / "grid.png")
    assert row.error
    with pytest.raises(ResiduaError, match="inside the data folder"):
        residua.predict(weights, tmp_path, grid=tmp_path / "other.png")


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: residua.build(5), "5: expected the name of a model"),
        (lambda: residua.load(5), "5: expected a path"),
        (lambda: residua.predict(None, "a.png"), "None: expected a path"),
        (lambda: residua.train("digits", settings=[1]), r"settings = \[1\]: expected values"),
        (lambda: residua.train("digits", settings={5: 1}), "5: expected the name of a setting"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused(call: Callable[[], object], reason: str) -> None:
    with pytest.raises(ResiduaError, match=reason):
        call()


def test_a_device_can_be_chosen(weights: Path, tmp_path: Path) -> None:
    image = np.full((8, 8, 3), 90, np.uint8)
    assert residua.predict(weights, image, device="cpu") == residua.predict(weights, image)
    calls: list[Callable[[str], object]] = [
        lambda device: residua.predict(weights, image, device=device),
        lambda device: residua.features(weights, image, device=device),
        lambda device: residua.explain(weights, image, device=device),
        lambda device: residua.evaluate(weights, tmp_path, device=device),
        lambda device: residua.serve(weights, device=device),
    ]
    for call in calls:
        for name in ("gpu", "cuda:99"):
            with pytest.raises(ResiduaError, match=f"device '{name}' is"):
                call(name)


def test_class_names_are_a_list(weights: Path) -> None:
    for classes in ("abcdefghij", [1] * 10):
        with pytest.raises(ResiduaError, match="expected a list of names"):
            residua.predict(weights, "a.png", classes=classes)
