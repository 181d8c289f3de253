"""The embedded digits and IDX files are read, damaged ones refused; paths as people write them."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from references.datasets import pixels_of, refusal

from residua.data.open import open_dataset, open_recorded, resolved
from residua.errors import ResiduaError

RANDOM = np.random.default_rng(0)


def test_digits_are_those_of_scikit_learn() -> None:
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


def test_a_folder_named_digits_comes_first_but_not_for_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the embedded digits is resumed and evaluated on them in any folder."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    assert resolved("digits") == "digits"
    for name in ("a", "b"):
        (tmp_path / "digits" / name).mkdir(parents=True)
        Image.new("L", (2, 2)).save(tmp_path / "digits" / name / "1.png")
    assert open_dataset("digits").classes == ("a", "b")
    assert resolved("digits") == str(tmp_path / "digits")
    assert len(open_recorded("digits").entries) == 1797


def test_an_image_is_no_data_set(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (2, 2)).save(tmp_path / "1.png")
    assert "is an image, not a data set." in refusal(tmp_path / "1.png")


def test_no_data_is_explained() -> None:
    with pytest.raises(ResiduaError, match="No data given"):
        open_dataset("")


def test_a_folder_is_found_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    with pytest.raises(ResiduaError, match="does not exist"):
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
def test_idx_files_give_their_images_labels_and_splits(
    tmp_path: Path, dot: str, packed: bool, folder: str
) -> None:
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


def test_idx_without_a_test_set(tmp_path: Path) -> None:
    source = open_dataset(str(put_idx(tmp_path, test=None)))
    assert {e.split for e in source.entries} == {"train"}


def damage_idx(change: Callable[[bytes], bytes], name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / f"{name}-ubyte"
        path.write_bytes(change(path.read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
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
            "images of different sizes",
        ),
    ],
)
def test_damaged_idx_files_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(put_idx(tmp_path, packed=False))
    assert reason in refusal(tmp_path)


def test_damaged_gzip_files_are_refused(tmp_path: Path) -> None:
    path = put_idx(tmp_path) / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-9], whole[:60], b"no gzip at all", whole[:40] + b"xxxx" + whole[44:]):
        path.write_bytes(content)
        assert "train-images-idx3-ubyte.gz" in refusal(tmp_path)


def test_gzip_bombs_take_no_memory(tmp_path: Path) -> None:
    """More content than declared is not unpacked; more declared than possible is not tried."""
    path = put_idx(tmp_path) / "train-images-idx3-ubyte.gz"
    for declared, body in ((12 * 6 * 4, 60_000_000), (2**40, 100)):
        start = bytes((0, 0, 8, 3)) + struct.pack(">3I", declared // 4096 or 1, 64, 64)
        path.write_bytes(gzip.compress(start + bytes(body), 1))
        tracemalloc.start()
        assert "the header declares" in refusal(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()


# Real data


@pytest.mark.slow
def test_the_whole_of_mnist(shared_data: Path) -> None:
    source = open_dataset(str(shared_data / "mnist"))
    counts = [sum(e.split == part for e in source.entries) for part in ("train", "test")]
    assert counts == [60_000, 10_000]
    known = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount([e.label for e in source.entries[:60_000]]).tolist() == known
    assert (source.entries[0].path, source.entries[-1].path) == ("train/00000", "test/09999")
