"""Data sets that are no folders of images: what is read, refused, and never executed."""

import gzip
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

from residua.data.dataset import Dataset
from residua.data.open import open_dataset
from residua.errors import ResiduaError

RANDOM = np.random.default_rng(0)


def refusal(data: Path) -> str:
    with pytest.raises(ResiduaError) as caught:
        open_dataset(str(data))
    return str(caught.value)


def pixels_of(source: Dataset, index: int, channels: int = 3) -> np.ndarray:
    return source.pixels(index, source.content(index), channels, 10**8)


def test_digits() -> None:
    from sklearn.datasets import load_digits

    source, raw = open_dataset("digits"), load_digits()
    assert (source.name, len(source.entries), source.classes[7]) == ("digits", 1797, "7")
    assert source.entries[7].path == "digits/0007"
    assert [e.label for e in source.entries] == raw.target.tolist()
    assert {e.split for e in source.entries} == {None}
    for index in (0, 1000, 1796):
        expected = [[round(v * 255 / 16) for v in row] for row in raw.images[index].tolist()]
        assert pixels_of(source, index, 1)[..., 0].tolist() == expected
    assert pixels_of(source, 0, 3).shape == (8, 8, 3)
    assert source.header(0, source.content(0), 100).mode == "L"


def test_nothing_given() -> None:
    with pytest.raises(ResiduaError, match="No data given"):
        open_dataset("")


def test_folders_however_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    for name in "ab":
        (tmp_path / "home/zoo" / name).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "home/zoo" / name / "1.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home/zoo")
    for written in (".", "./", "../zoo", "~/zoo", "~/zoo/", f"{tmp_path}/home/zoo/", "a/.."):
        assert open_dataset(written).name == "zoo"
    with pytest.raises(ResiduaError, match="does not exist"):
        open_dataset("~/nowhere")
    with pytest.raises(ResiduaError, match="cannot be reached"):
        open_dataset("~nobody_of_this_name/zoo")


# IDX


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def put_idx(root: Path, dot: str = "-", packed: bool = True, test: str | None = "t10k") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 12), (test, 5)):
        if part:
            images = RANDOM.integers(0, 256, (count, 6, 4), np.uint8)
            labels = (np.arange(count) % 10).astype(np.uint8)
            for what, array in ((f"images{dot}idx3", images), (f"labels{dot}idx1", labels)):
                name = f"{part}-{what}-ubyte"
                if packed:
                    (root / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
                else:
                    (root / name).write_bytes(idx(array))
    return root


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("folder", ["mnist", "mnist/raw"])
def test_idx(tmp_path: Path, dot: str, packed: bool, folder: str) -> None:
    put_idx(tmp_path / folder, dot, packed)
    source = open_dataset(str(tmp_path / "mnist"))
    assert source.name == "mnist"
    assert source.classes == tuple("0123456789")
    assert [e.split for e in source.entries] == ["train"] * 12 + ["test"] * 5
    assert (source.entries[11].path, source.entries[12].path) == ("train/11", "test/00")
    assert source.entries[11].label == 1
    name = f"train-images{dot}idx3-ubyte{'.gz' if packed else ''}"
    written = (tmp_path / folder / name).read_bytes()
    raw = gzip.decompress(written) if packed else written
    assert b"".join(source.content(i) for i in range(12)) == raw[16:]
    assert pixels_of(source, 3, 1).shape == (6, 4, 1)


def test_idx_without_test_part(tmp_path: Path) -> None:
    source = open_dataset(str(put_idx(tmp_path, test=None)))
    assert {e.split for e in source.entries} == {"train"}


def damage_idx(change: Callable[[bytes], bytes], name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / f"{name}-ubyte"
        path.write_bytes(change(path.read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_idx(lambda b: b[:-1], "train-images-idx3"), "288 bytes of images, found 287"),
        (damage_idx(lambda b: b + b"x", "t10k-images-idx3"), "120 bytes of images, found more"),
        (damage_idx(lambda b: b"\0\0\x0d" + b[3:], "train-images-idx3"), "found 00000d03"),
        (damage_idx(lambda b: b[:7], "train-labels-idx1"), "expected an IDX file of labels"),
        (damage_idx(lambda b: b"", "train-labels-idx1"), "found nothing"),
        (damage_idx(lambda b: b[:-1] + b"\x0a", "train-labels-idx1"), "labels from 0 to 9, found"),
        (
            damage_idx(lambda b: b[:4] + struct.pack(">I", 11) + b[8:-1], "train-labels-idx1"),
            "12 images but 11 labels",
        ),
        (lambda root: (root / "t10k-labels-idx1-ubyte").unlink(), "test labels are missing"),
        (lambda root: (root / "train-images-idx3-ubyte").unlink(), "train images are missing"),
        (
            damage_idx(lambda b: b[:4] + struct.pack(">3I", 5, 4, 6) + b[16:], "t10k-images-idx3"),
            "parts of different size",
        ),
    ],
)
def test_damaged_idx(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(put_idx(tmp_path, packed=False))
    assert said in refusal(tmp_path)


def test_damaged_gzip(tmp_path: Path) -> None:
    path = put_idx(tmp_path) / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-9], whole[:60], b"no gzip at all", whole[:40] + b"xxxx" + whole[44:]):
        path.write_bytes(content)
        assert "train-images-idx3-ubyte.gz" in refusal(tmp_path)


def test_gzip_bombs_are_bounded(tmp_path: Path) -> None:
    """More content than declared is not unpacked; more declared than possible is not tried."""
    path = put_idx(tmp_path) / "train-images-idx3-ubyte.gz"
    for declared, body in ((12 * 6 * 4, 300_000_000), (2**40, 100)):
        start = bytes((0, 0, 8, 3)) + struct.pack(">3I", declared // 4096 or 1, 64, 64)
        path.write_bytes(gzip.compress(start + bytes(body), 1))
        tracemalloc.start()
        assert "the header declares" in refusal(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()


# CIFAR


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
def test_cifar(tmp_path: Path, kind: int, form: str, packed: bool) -> None:
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
@pytest.mark.parametrize("packed", [True, False])
def test_no_code_is_executed(tmp_path: Path, name: str, protocol: int, packed: bool) -> None:
    files, _, _ = cifar_files(10, "python")
    for malice in (
        Malice(os.mkdir, str(tmp_path / "executed")),
        Malice(eval, f"__import__('os').mkdir({str(tmp_path / 'executed')!r})"),
        Malice(getattr, np.ndarray, "fromfile"),
        Malice(np.load, "x", None, True),
    ):
        files[name] = pickle.dumps({"data": malice, "labels": []}, protocol=protocol)
        if packed:
            said = refusal(put_archive(tmp_path / "c.tar.gz", files))
        else:
            said = refusal(put_files(tmp_path / "c", files))
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
        b"\x80\x02cnumpy\nndarray\n}b.",  # state for a class
        b"(" * 100_000 + b"t" * 100_000 + b".",
    ],
)
def test_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    files, _, _ = cifar_files(10, "python")
    tracemalloc.start()
    said = refusal(put_files(tmp_path, files | {"data_batch_3": content}))
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()
    assert "data_batch_3" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_batch_2.bin": b"x" * 3072}, "data_batch_2.bin: expected rows of 3,073 bytes"),
        ({"data_batch_2.bin": b"\x0a" * 3073}, "labels from 0 to 9, found some from 10 to 10"),
        ({"batches.meta.txt": b"a\nb\n"}, "expected 10 class names, found 2"),
        ({"batches.meta.txt": None}, "batches.meta.txt is missing"),
    ],
)
def test_damaged_binaries(tmp_path: Path, change: dict[str, bytes | None], said: str) -> None:
    files, _, _ = cifar_files(10, "binary")
    kept = {name: content for name, content in (files | change).items() if content is not None}
    assert said in refusal(put_files(tmp_path / "folder", kept))
    assert said in refusal(put_archive(tmp_path / "archive.tar.gz", kept))


def test_archives_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert "is a file, and cannot be read as a CIFAR archive" in refusal(tmp_path / "photo.jpg")
    put_archive(tmp_path / "other.tar.gz", {"readme": b"hello"})
    assert "holds neither CIFAR-10 nor CIFAR-100" in refusal(tmp_path / "other.tar.gz")
    whole = put_archive(tmp_path / "c.tar.gz", cifar_files(10, "binary")[0]).read_bytes()
    (tmp_path / "c.tar.gz").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as a CIFAR archive" in refusal(tmp_path / "c.tar.gz")


def test_an_archive_with_a_huge_member(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cifar/data_batch_1.bin")
    member.size = 2**40
    (tmp_path / "huge.tar").write_bytes(member.tobuf())
    assert "is larger than any file of CIFAR" in refusal(tmp_path / "huge.tar")


def test_class_folders_called_train_and_meta_are_no_cifar(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "meta").mkdir()
    assert "holds no class folder" in refusal(tmp_path)


# Real data


def test_the_whole_of_mnist(shared_data: Path) -> None:
    source = open_dataset(str(shared_data / "mnist"))
    counts = [sum(e.split == part for e in source.entries) for part in ("train", "test")]
    assert counts == [60_000, 10_000]
    known = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount([e.label for e in source.entries[:60_000]]).tolist() == known
    assert (source.entries[0].path, source.entries[-1].path) == ("train/00000", "test/09999")
