"""Images given in Python become stored data sets, the same for the same images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from residua.config.schema import Data
from residua.data.dataset import Dataset
from residua.data.given import path_of
from residua.data.open import open_dataset, open_recorded
from residua.errors import ResiduaError

pytestmark = pytest.mark.usefixtures("own_cache")
GENERATOR = np.random.default_rng(0)
COLOUR = GENERATOR.integers(0, 256, (4, 5, 6, 3), np.uint8)
GREY = GENERATOR.integers(0, 256, (4, 5, 6), np.uint8)
LABELS = [10, 9, 10, 9]


def opened(data: object, **arguments: Any) -> Dataset:
    return open_dataset(path_of(data, Data(**arguments)))


def pixels(dataset: Dataset, channels: int = 3) -> list[list[Any]]:
    return [
        dataset.pixels(index, dataset.content(index), channels, 100).tolist()
        for index in range(len(dataset.entries))
    ]


def names(dataset: Dataset) -> list[str]:
    return [dataset.classes[entry.label] for entry in dataset.entries]


class Pairs:
    """A map-style data set that is no sequence, with names of classes, as those of torchvision."""

    classes = ("owl", "cat", "unused")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(COLOUR[index]), index % 2


def encoded(array: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        (COLOUR, LABELS),
        (COLOUR, np.array(LABELS, np.float32)),
        (torch.from_numpy(COLOUR).permute(0, 3, 1, 2), torch.tensor(LABELS)),
        (COLOUR / 255, np.array(LABELS)),
        ([Image.fromarray(array) for array in COLOUR], LABELS),
        [(encoded(array), str(label)) for array, label in zip(COLOUR, LABELS, strict=True)],
        list(zip(COLOUR, LABELS, strict=True)),
        TensorDataset(torch.from_numpy(COLOUR).permute(0, 3, 1, 2), torch.tensor(LABELS)),
    ],
    ids=["arrays", "floats", "tensors", "0..1", "Pillow", "bytes", "pairs", "TensorDataset"],
)
def test_images_of_any_form(data: object) -> None:
    dataset = opened(data)
    assert pixels(dataset) == COLOUR.tolist()
    assert names(dataset) == ["10", "9", "10", "9"]
    assert dataset.classes == ("9", "10")
    assert [entry.path for entry in dataset.entries] == [f"images/{n}" for n in range(4)]
    assert path_of(data, Data()) == path_of((COLOUR, LABELS), Data())


def test_grey_images_of_different_sizes() -> None:
    data = [(GREY[0], "a"), (GREY[1, :3, :4, None], "b"), (torch.from_numpy(GREY[2, 1:]), "a")]
    dataset = opened(data)
    assert pixels(dataset, 1) == [
        GREY[0][..., None].tolist(),
        *([GREY[1, :3, :4, None].tolist(), GREY[2, 1:, :, None].tolist()]),
    ]
    headers = [dataset.header(n, dataset.content(n), 100) for n in range(3)]
    assert [(h.width, h.height, h.mode) for h in headers] == [
        (6, 5, "L"),
        (4, 3, "L"),
        (6, 4, "L"),
    ]


def test_a_range_is_stated_or_that_of_the_training() -> None:
    data = (GREY * 16.0, LABELS)
    with pytest.raises(ResiduaError, match=r"image 0 of the data given: .*state their range"):
        path_of(data, Data())
    stated = path_of(data, Data(), (0, 4080))
    trained = path_of(data, Data(), trained_range=(0, 4080))
    for dataset in map(open_dataset, (stated, trained)):
        assert pixels(dataset, 1) == GREY[..., None].tolist()


def test_names_of_classes_in_their_order() -> None:
    assert opened(Pairs()).classes == ("owl", "cat")
    assert names(opened(Subset(Pairs(), [3, 0, 1]))) == ["cat", "owl", "cat"]  # type: ignore[arg-type]


def test_a_mapping_gives_the_splits_by_name() -> None:
    dataset = opened({"train": (COLOUR, LABELS), "val": Pairs2(), "test": (COLOUR, LABELS)})
    splits = [entry.split for entry in dataset.entries]
    assert splits == ["train"] * 4 + ["validation"] * 2 + ["test"] * 4


class Pairs2(Pairs):
    classes = ("9", "10")  # type: ignore[assignment]

    def __len__(self) -> int:
        return 2


def test_a_list_of_paths_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.fromarray(COLOUR[0]).save(name)
    rows = [("a.png", "cat"), (tmp_path / "b.png", "dog"), ("gone.png", "dog")]
    dataset = opened(rows)
    assert [entry.path for entry in dataset.entries] == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    assert dataset.rejected == [(f"{tmp_path}/gone.png", "row 3: there is no such file")]
    assert names(opened((["a.png", "b.png"], ["cat", "dog"]))) == ["cat", "dog"]
    assert names(opened((("a.png", "x"), ("b.png", "y")))) == ["x", "y"]
    with pytest.raises(ResiduaError, match=r"the list given as data, row 2: .* the label 'dog'"):
        opened([("a.png", "cat"), ("a.png", "dog")])


def test_a_dataset_of_hugging_face() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["owl", "cat"])}
    )
    images = [Image.fromarray(array) for array in COLOUR]
    train = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 1, 0]}, features=features)
    dataset = opened(train)
    assert (dataset.classes, names(dataset)) == (("owl", "cat"), ["owl", "cat", "cat", "owl"])
    assert pixels(dataset) == COLOUR.tolist()
    assert len(opened(datasets.DatasetDict(train=train, test=train)).entries) == 8


@pytest.mark.parametrize("form", [COLOUR, [encoded(array) for array in COLOUR]])
def test_images_of_a_generator_have_the_labels_beside_it(form: Sequence[Any]) -> None:
    dataset = opened(((image for image in form), LABELS))
    assert names(dataset) == ["10", "9", "10", "9"]
    assert pixels(dataset) == COLOUR.tolist()
    for labels in (LABELS[:3], [*LABELS, 9]):
        with pytest.raises(ResiduaError, match=rf"{len(labels)} labels but another number"):
            opened(((image for image in form), labels))


def test_an_error_of_a_generator_of_images_is_passed_on() -> None:
    def images() -> Iterator[Any]:
        yield COLOUR[0]
        raise ValueError("cannot decode")

    with pytest.raises(ValueError, match="cannot decode"):
        opened((images(), LABELS))


@pytest.mark.parametrize("image", [COLOUR[1], encoded(COLOUR[1]), Image.fromarray(COLOUR[1])])
@pytest.mark.parametrize("label", ["owl", 3])
def test_one_image_with_its_label(image: Any, label: str | int) -> None:
    dataset = opened((image, label))
    assert (names(dataset), pixels(dataset)) == ([str(label)], [COLOUR[1].tolist()])


def test_images_are_downloaded_from_addresses(tmp_path: Path) -> None:
    Image.fromarray(COLOUR[0]).save(tmp_path / "a.png")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        data = [(f"{address}/a.png", "cat")]
        dataset = open_dataset(path_of(data, Data(), allow_private=True))
        assert (names(dataset), pixels(dataset)) == (["cat"], [COLOUR[0].tolist()])
        with pytest.raises(ResiduaError, match=r"image 0 .*/b\.png: .*404"):
            path_of([(f"{address}/b.png", "cat")], Data(), allow_private=True)
        for allow_private, advice in ((None, "download the image yourself"), (False, "allow it")):
            with pytest.raises(ResiduaError, match=f"is not a public IP address: {advice}"):
                path_of(data, Data(), allow_private=allow_private)
        server.shutdown()


class Value:
    """The feature of text and numbers in `datasets`, which is known by the name of its class."""


class ClassLabel:
    def __init__(self, *names: str) -> None:
        self.names = names


class HuggingFace:
    """A `datasets.Dataset`, as far as residua uses it."""

    def __init__(self, images: Sequence[object], **columns: Sequence[object]) -> None:
        plain = {name: Value() for name in columns}
        classes = {"label": ClassLabel("owl", "cat"), "light": ClassLabel("day", "night")}
        image = type("Image", (), {})()
        self.features = {"image": image, **plain, **{n: classes[n] for n in classes if n in plain}}
        self.rows = {"image": images, **columns}
        self.column_names = list(self.rows)

    def __len__(self) -> int:
        return len(self.rows["image"])

    def __getitem__(self, index: int) -> dict[str, object]:
        return {name: cells[index] for name, cells in self.rows.items()}


@pytest.mark.parametrize("form", ["pixels", "paths"])
def test_further_columns_of_a_hugging_face_dataset_are_those_of_a_table(
    form: str, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, array in zip(files, COLOUR, strict=True):
        Image.fromarray(array).save(file)
    images = [Image.fromarray(array) for array in COLOUR] if form == "pixels" else files
    data = HuggingFace(
        [str(image) if form == "paths" else image for image in images],
        label=[0, 1, 1, 0],
        split=["train", "train", "val", "test"],
        group=["p1", "p1", "p2", "p3"],
        weight=[1, 0.5, 2, 1],
        camera=["a", "b", None, "b"],
        light=[1, 0, 1, 0],
        site=["s", "s", "t", "t"],
    )
    dataset = opened(data)
    assert names(dataset) == ["owl", "cat", "cat", "owl"]
    assert [entry.split for entry in dataset.entries] == ["train", "train", "validation", "test"]
    assert [entry.group for entry in dataset.entries] == ["p1", "p1", "p2", "p3"]
    assert [entry.weight for entry in dataset.entries] == [1, 0.5, 2, 1]
    assert dataset.columns == {
        "camera": ["a", "b", "", "b"],
        "light": ["night", "day", "night", "day"],
        "site": ["s", "s", "t", "t"],
    }
    by_site = open_dataset(path_of(data, Data()), settings=Data(group_by="site"))
    assert [entry.group for entry in by_site.entries] == ["s", "s", "t", "t"]
    assert "site" not in by_site.columns
    table = [
        f"{file},{name},{split},{group},{camera},{light},{site}"
        for file, name, split, group, camera, light, site in zip(
            files,
            names(dataset),
            data.rows["split"],
            data.rows["group"],
            ["a", "b", "", "b"],
            ["night", "day", "night", "day"],
            data.rows["site"],
            strict=True,
        )
    ]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split,group,camera,light,site", *table]))
    assert open_dataset(str(tmp_path / "t.csv")).columns == dataset.columns


@pytest.mark.parametrize("form", ["pixels", "paths"])
def test_the_column_of_weights_of_a_hugging_face_dataset_can_be_chosen(
    form: str, tmp_path: Path
) -> None:
    images: list[object] = []
    for number, array in enumerate(COLOUR[:2]):
        image, file = Image.fromarray(array), tmp_path / f"{number}.png"
        image.save(file)
        images.append(str(file) if form == "paths" else image)
    data = HuggingFace(images, label=[0, 1], trust=[1, 3])
    chosen = Data(weight_column="trust")
    dataset = open_dataset(path_of(data, chosen), settings=chosen)
    assert [entry.weight for entry in dataset.entries] == [1, 3]


def test_an_unknown_split_of_a_hugging_face_dataset_is_named() -> None:
    images = [Image.fromarray(array) for array in COLOUR[:2]]
    data = HuggingFace(images, label=[0, 1], split=["train", "dev2"])
    with pytest.raises(ResiduaError, match="image 1 of the data given: the split 'dev2' is"):
        opened(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data of type NoneType: expected a path, a list of"),
        (7, "data of type int"),
        ([], "the data given has no images"),
        ([COLOUR[0]], r"image 0 of the data given: expected \(image, label\), found ndarray"),
        (COLOUR, r"image 0 of the data given: expected \(image, label\)"),
        ((COLOUR, [1, 2]), "has 4 images but 2 labels"),
        ([("owl", Image.new("RGB", (8, 8)))], "image 0 of the data given: label .* one class"),
        (
            (COLOUR, np.eye(4)),
            r"image 0 of the data given: label .* one-hot labels as labels.argmax",
        ),
        ((COLOUR, [0.5] * 4), r"expected one class, as text or a whole number\.$"),
        ((COLOUR, [None] * 4), "expected one class"),
        ((COLOUR.transpose(0, 3, 1, 2), LABELS), r"is an array of shape \(3, 5, 6\)"),
        ((COLOUR.reshape(4, -1), LABELS), r"is an array of shape \(90,\)"),
        ([(COLOUR[0], 1), ("a.png", 2)], "image 1 of the data given: is a path"),
        ([("a.png", 1), (COLOUR[0], 2)], "image 1 .*: is an image in memory, but the first"),
        ([("a.png", 1), ("http://a.b/c.png", 2)], "image 1 .*: is a URL, but .* is a path"),
        ([(COLOUR[0], 1), ("http://127.0.0.1/c.png", 2)], "image 1 .*: resolves to 127.0.0.1"),
        ({"dev": (COLOUR, LABELS)}, "the data given: the split 'dev' is unknown"),
        ({"train": "photos"}, "the train data given is of type str"),
        ([(b"no image", 1)], "image 0 of the data given: is not an image"),
        ([("a.png", "x" * 300)], "the label has 300 characters"),
    ],
)
def test_what_is_no_data_is_explained(data: object, message: str) -> None:
    with pytest.raises(ResiduaError, match=message):
        opened(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "pixels").write_bytes(b"x" * 360),
        lambda root: (root / "pixels").write_bytes(b""),
        lambda root: (root / "index.json").write_text("{}"),
        lambda root: os.truncate(root / "pixels", 10),
    ],
)
def test_damaged_or_deleted_storage_is_found(damage: Callable[[Path], None]) -> None:
    root = Path(path_of((COLOUR, LABELS), Data()))
    damage(root)
    with pytest.raises(ResiduaError, match="stored images are damaged"):
        open_recorded(str(root))
    for file in root.iterdir():
        file.unlink()
    root.rmdir()
    with pytest.raises(ResiduaError, match="given in Python were stored here, and are gone"):
        open_recorded(str(root))
    assert path_of((COLOUR, LABELS), Data()) == str(root)
    assert len(open_recorded(str(root)).entries) == 4


def test_storage_without_space_or_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResiduaError, match=r"cannot be stored in .* Set RESIDUA_CACHE"):
        path_of((COLOUR, LABELS), Data())
