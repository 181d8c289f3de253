"""CIFAR in every published version is read; damaged files are refused and no code is executed."""

import io
import os
import pickle
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from references.datasets import pixels_of, refusal

from residua.data.open import open_dataset

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path_factory.mktemp("cache")))


def cifar_files(kind: int, form: str) -> tuple[dict[str, bytes], np.ndarray, list[int]]:
    """Files of a small CIFAR-10 or CIFAR-100, their train pixels [N, 3, 32, 32] and labels."""
    files: dict[str, bytes] = {}
    names = [f"name{i:02}" for i in range(kind)]
    trains = [f"data_batch_{i}" for i in range(1, 6)] if kind == 10 else ["train"]
    test = "test_batch" if kind == 10 else "test"
    all_pixels, all_labels = [], []
    for name in [*trains, test]:
        pixels = RANDOM.integers(0, 256, (4, 3072), np.uint8)
        labels = RANDOM.integers(0, kind, 4).tolist()
        if form == "binary":
            prefix = [[0, label] if kind == 100 else [label] for label in labels]
            rows = [bytes(p) + bytes(row) for p, row in zip(prefix, pixels, strict=True)]
            files[f"{name}.bin"] = b"".join(rows)
        else:
            key = "labels" if kind == 10 else "fine_labels"
            content = {"data": pixels, key: labels, "filenames": ["x.png"] * 4}
            files[name] = pickle.dumps(content, protocol=2)
        if name != test:
            all_pixels.append(pixels)
            all_labels += labels
    if form == "binary":
        meta = "batches.meta.txt" if kind == 10 else "fine_label_names.txt"
        files[meta] = "\n".join([*names, ""]).encode()
    else:
        key = "label_names" if kind == 10 else "fine_label_names"
        files["batches.meta" if kind == 10 else "meta"] = pickle.dumps({key: names}, protocol=2)
    return files, np.concatenate(all_pixels).reshape(-1, 3, 32, 32), all_labels


def put_files(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def put_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", [10, 100])
@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar_gives_its_images_labels_and_splits(
    tmp_path: Path, kind: int, form: str, packed: bool
) -> None:
    files, pixels, labels = cifar_files(kind, form)
    files["readme.html"] = b"<html>"
    if packed:
        source = open_dataset(str(put_archive(tmp_path / "cifar-x.tar.gz", files)))
    else:
        source = open_dataset(str(put_files(tmp_path / "cifar-x", files)))
    assert source.name == "cifar-x"
    assert source.description == f"CIFAR-{kind}, {form}"
    assert (len(source.classes), source.classes[3]) == (kind, "name03")
    assert [e.label for e in source.entries if e.split == "train"] == labels
    assert sum(e.split == "test" for e in source.entries) == 4
    for index in range(len(pixels)):
        np.testing.assert_array_equal(pixels_of(source, index), pixels[index].transpose(1, 2, 0))
    grey = pixels[0].transpose(1, 2, 0) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(pixels_of(source, 0, 1)[..., 0], grey, atol=0.51)


def python_2_pickle(pixels: bytes, count: int) -> bytes:
    """A batch as Python 2 wrote the published files: byte strings, and numpy's old path."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0t" + text(b"b") + b"tR"
        b"(K\x01(M" + struct.pack("<H", count) + b"M\0\x0ct"
        b"cnumpy\ndtype\n(" + text(b"u1") + b"K\0K\x01tR(K\x03" + text(b"|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89" + text(pixels) + b"tb"
    )  # fmt: skip
    labels = b"(" + b"K\x03" * count + b"l"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


def test_cifar_as_python_2_wrote_it(tmp_path: Path) -> None:
    files, _, _ = cifar_files(10, "python")
    pixels = RANDOM.integers(0, 256, (4, 3072), np.uint8)
    files["data_batch_1"] = python_2_pickle(pixels.tobytes(), 4)
    by_numpy = pickle.loads(files["data_batch_1"], encoding="bytes")[b"data"]
    np.testing.assert_array_equal(by_numpy, pixels)
    source = open_dataset(str(put_files(tmp_path, files)))
    assert [e.label for e in source.entries][:4] == [3] * 4
    expected = pixels[0].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(pixels_of(source, 0), expected)


class Malice:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
@pytest.mark.parametrize("protocol", range(6))
def test_no_code_is_executed(tmp_path: Path, name: str, protocol: int) -> None:
    files, _, _ = cifar_files(10, "python")
    for malice in (
        Malice(os.mkdir, str(tmp_path / "executed")),
        Malice(eval, f"__import__('os').mkdir({str(tmp_path / 'executed')!r})"),
        Malice(getattr, np.ndarray, "fromfile"),
        Malice(np.load, "x", None, True),
    ):
        files[name] = pickle.dumps({"data": malice, "labels": []}, protocol=protocol)
        # An archive for half of the protocols: both ways end in the same function.
        is_archive = protocol % 2 == 1
        path = put_archive(tmp_path / "c.tar.gz", files) if is_archive else tmp_path / "c"
        said = refusal(path if is_archive else put_files(path, files))
        assert name in said
        assert "nothing was executed" in said
        assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        b"no pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": 3, "labels": [1]}),
        pickle.dumps({"data": np.zeros((1, 3072), np.float32), "labels": [1]}, protocol=2),
        pickle.dumps({"data": np.zeros((1, 10), np.uint8), "labels": [1]}, protocol=2),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": "a"}, protocol=2),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, protocol=2),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10**30]}, protocol=2),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, protocol=2),
        b"\x80\x05\x96" + struct.pack("<Q", 2**28) + b".",  # a bytearray of 256 MB
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of 16 GB in the C implementation
        b"\x80\x02Np2147483647\n.",  # the same as text
        b"\x80\x05\x8e" + struct.pack("<Q", 2**28) + b".",  # bytes of 256 MB
        b"\x80\x05\x8d" + struct.pack("<Q", 2**28) + b".",  # text of 256 MB
        b"\x80\x05\x95" + struct.pack("<Q", 2**28) + b"N.",  # a frame of 256 MB
        b"\x80\x02cnumpy\nndarray\n}b.",  # state for a class
        b"(" * 20_000 + b"t" * 20_000 + b".",
    ],
)
def test_damaged_pickles_are_refused_within_little_memory(tmp_path: Path, content: bytes) -> None:
    files, _, _ = cifar_files(10, "python")
    tracemalloc.start()
    said = refusal(put_files(tmp_path, files | {"data_batch_3": content}))
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()
    assert "data_batch_3" in said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data_batch_2.bin": b"x" * 3072}, "data_batch_2.bin: expected rows of 3,073 bytes"),
        ({"data_batch_2.bin": b"\x0a" * 3073}, "labels from 0 to 9, found 10 to 10"),
        ({"batches.meta.txt": b"a\nb\n"}, "expected 10 class names, found 2"),
        ({"batches.meta.txt": None}, "batches.meta.txt is missing"),
    ],
)
def test_damaged_binaries_are_refused(
    tmp_path: Path, change: dict[str, bytes | None], reason: str
) -> None:
    files, _, _ = cifar_files(10, "binary")
    kept = {name: content for name, content in (files | change).items() if content is not None}
    assert reason in refusal(put_files(tmp_path / "folder", kept))
    assert reason in refusal(put_archive(tmp_path / "archive.tar.gz", kept))


def test_other_files_and_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"text")
    assert "is neither a table nor an archive" in refusal(tmp_path / "notes.txt")
    put_archive(tmp_path / "other.tar.gz", {"readme": b"hello"})
    assert "contains no class folder with images" in refusal(tmp_path / "other.tar.gz")
    whole = put_archive(tmp_path / "c.tar.gz", cifar_files(10, "binary")[0]).read_bytes()
    (tmp_path / "c.tar.gz").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as an archive" in refusal(tmp_path / "c.tar.gz")


def test_an_archive_with_a_huge_member(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cifar/data_batch_1.bin")
    member.size = 2**40
    (tmp_path / "huge.tar").write_bytes(member.tobuf())
    assert "exceeds what is unpacked" in refusal(tmp_path / "huge.tar")


def test_class_folders_called_train_and_meta_are_not_cifar(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "meta").mkdir()
    assert "contains no class folder" in refusal(tmp_path)
