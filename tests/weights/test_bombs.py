"""Files made to exhaust memory or time, or to end the process: refused early, at little cost.

A process with limits reads them, which this file becomes when it runs as a script.
"""

from __future__ import annotations

import _codecs
import json
import os
import pickle
import pickletools
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from references import torch_networks
from references.weights_files import (
    NAME,
    PREPARED,
    Calling,
    checked,
    legacy,
    native,
    put,
    safetensors,
)

from residua.errors import ResiduaError
from residua.weights.load import read_file

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def bombs() -> dict[str, tuple[str, Callable[[Path], object], str]]:
    """By name: the extension, the function that writes the file, and the message."""
    declares = "bytes, which are not in the file"
    exhaust = "its pickle would exhaust memory or time"
    return {
        "a dataset never stored": (".h5", never_stored, declares),
        "a dataset of zeros": (".h5", packed_tightly, declares),
        "ten numbers in a large chunk": (".h5", large_chunk, declares),
        "a zipped .keras": (".keras", zipped("model.weights.h5"), "would grow from 1,1"),
        "a .keras that lies": (".keras", lying, "cannot be read as a .keras archive"),
        "a zipped checkpoint": (
            ".pth",
            zipped("archive/data/0", b"archive/data.pkl"),
            "would grow from 1,1",
        ),
        "one number seen as 10^12": (".pth", seen_as_more, declares),
        "more than the old form holds": (".th", old_form(2**27), "declares more numbers than"),
        "numbers that are never filled in": (".th", never_filled, "not finite"),
        "a stretched storage": (".th", stretched, "larger than their numbers"),
        "bytes by the gigabyte": (".pth", calling(bytearray, 10**10), r"bytearray, and code"),
        "bytes that double": (".pth", doubling, "its pickle encodes texts, which can grow"),
        "copies of copies": (".pth", copies, exhaust),
        "letters counted often": (".pth", letters, exhaust),
        "tuples that are deep": (".pth", deep_tuple, exhaust),
        "tuples that are a maze": (".pth", tuple_maze, exhaust),
        "lists that are a maze": (".pth", list_maze, exhaust),
        "a dictionary in itself": (".pth", in_itself, "contains no state dict"),
        "deep dictionaries": (".pth", deep_dictionaries, exhaust),
        "one long text as all names": (".h5", one_long_text, "names would need too much memory"),
        "a text of four gigabytes": (".h5", text_too_long, "a text in it is longer than all"),
        "texts for ever": (".h5", texts_for_ever, "its texts do not add up"),
        "a preprocessing that doubles": (".safetensors", yaml_maze, "its preprocessing is"),
        "many shapes": (".safetensors", many_layers, "whose names are not those of any network"),
    }


def never_stored(path: Path) -> None:
    with h5py.File(path, "w") as file:
        legacy(file, {"dense_1": {"k": None}})
        file["dense_1"].create_dataset("k", (10**6, 10**6), "f4")


def packed_tightly(path: Path) -> None:
    """A gigabyte of zeros in some kilobytes."""
    chunk = zlib.compress(bytes(2**24), 9)
    with h5py.File(path, "w") as file:
        legacy(file, {"dense_1": {"k": None}})
        side, tile = 2**14, 2**11
        dataset = file["dense_1"].create_dataset(
            "k", (side, side), "f4", chunks=(tile, tile), compression="gzip"
        )
        for row in range(0, side, tile):
            for column in range(0, side, tile):
                dataset.id.write_direct_chunk((row, column), chunk)


def large_chunk(path: Path) -> None:
    packer = zlib.compressobj(1)
    chunk = b"".join(packer.compress(bytes(2**24)) for _ in range(16)) + packer.flush()
    with h5py.File(path, "w") as file:
        legacy(file, {"dense_1": {"k": None}})
        dataset = file["dense_1"].create_dataset(
            "k", (10,), "f4", maxshape=(None,), chunks=(2**26,), compression="gzip"
        )
        dataset.id.write_direct_chunk((0,), chunk)


def zipped(name: str, *others: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for other in others:
                archive.writestr(other.decode(), b"\x80\x02}.")
            with archive.open(name, "w") as stream:
                for _ in range(16):
                    stream.write(bytes(2**24))

    return write


def lying(path: Path) -> None:
    """Its directory says a kilobyte."""
    zipped("model.weights.h5")(path)
    content = path.read_bytes()
    true, message = struct.pack("<I", 2**28), struct.pack("<I", 1000)
    assert content.count(true) >= 1
    path.write_bytes(content.replace(true, message))


def seen_as_more(path: Path) -> None:
    torch.save({"linear.weight": torch.zeros(1).expand(10**6, 10**6)}, path)


def old_form(count: int) -> Callable[[Path], None]:
    """An old checkpoint of four numbers that says to have `count`."""

    def write(path: Path) -> None:
        torch.save({"a": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        assert content.count(b"K\x04Nt") == 1
        long = b"\x8a\x08" + struct.pack("<q", count)
        path.write_bytes(content.replace(b"K\x04Nt", long + b"Nt"))

    return write


def never_filled(path: Path) -> None:
    """The list of what follows is empty, so memory would stay as somebody left it."""

    torch.save(torch_networks.state_dict(NAME), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    with path.open("rb") as stream:
        for _ in range(4):
            for _ in pickletools.genops(stream):
                pass
        path.write_bytes(content[: stream.tell()] + pickle.dumps([], 2) + bytes(10**6))


def stretched(path: Path) -> None:
    """A tensor of four numbers in a storage of none, which is then not read either."""
    old_form(0)(path)
    content = path.read_bytes()
    with path.open("rb") as stream:
        for _ in range(4):
            for _ in pickletools.genops(stream):
                pass
        path.write_bytes(content[: stream.tell()] + pickle.dumps([], 2))


def calling(function: Callable[..., Any], *arguments: Any) -> Callable[[Path], None]:
    return lambda path: torch.save({"a": Calling(function, *arguments)}, path)


def doubling(path: Path) -> None:
    found: Any = b"0" * 1000
    for _ in range(40):
        found = Calling(_codecs.encode, found, "hex")
    torch.save(found, path)


def copies(path: Path) -> None:
    items = [[number, None] for number in range(20_000)]
    torch.save([Calling(OrderedDict, items) for _ in range(20_000)], path)


def letters(path: Path) -> None:
    text = "a" * 100_000
    torch.save([Calling(Counter, text) for _ in range(50_000)], path)


def with_pickle(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3\n")


def deep_tuple(path: Path) -> None:
    """As a key of a dictionary: hashing it would overflow the stack of the process."""
    with_pickle(path, b"\x80\x02}(" + b")" + b"\x85" * 10**6 + b"K\x01u.")


def tuple_maze(path: Path) -> None:
    steps = b"".join(b"q%ch%c\x86" % (n, n) for n in range(60))
    with_pickle(path, b"\x80\x02}()" + steps + b"K\x01u.")


def list_maze(path: Path) -> None:
    found: list[Any] = []
    for _ in range(60):
        found = [found, found]
    torch.save(found, path)


def in_itself(path: Path) -> None:
    found: dict[str, Any] = {}
    found["state_dict"] = found
    torch.save(found, path)


def deep_dictionaries(path: Path) -> None:
    with_pickle(path, b"\x80\x02" + b"}X\3\0\0\0net" * 10**5 + b"}" + b"s" * 10**5 + b".")


def texts(path: Path) -> tuple[bytearray, int, list[int]]:
    """A file with 2,000 names and a long text in a heap; where that is, and where the names are."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3" * 2**22
        legacy(file, {"dense_1": {"k": np.ones(2)}})
        file.attrs["layer_names"] = [b"dense_1"] + [b"%07d" % n for n in range(2000)]
    content = bytearray(path.read_bytes())
    long = content.index(struct.pack("<IQ", 2**22, content.index(b"GCOL")))
    found = [hit.start() for hit in re.finditer(rb"\x07\0\0\0.{6}\0\0.{4}", content, re.DOTALL)]
    return content, long, [at for at in found if found.count(at + 16) or found.count(at - 16)]


def one_long_text(path: Path) -> None:
    content, long, names = texts(path)
    assert len(names) >= 2000
    for at in names:
        content[at : at + 16] = content[long : long + 16]
    path.write_bytes(content)


def text_too_long(path: Path) -> None:
    content, _, names = texts(path)
    content[names[0] : names[0] + 4] = b"\xff" * 4
    path.write_bytes(content)


def texts_for_ever(path: Path) -> None:
    """The last text of a heap reaches into the unused rest, where all sizes are 0."""
    with h5py.File(path, "w") as file:
        legacy(file, {"dense_1": {"k": np.ones(2)}})
        file.attrs["keras_version"] = "2.2.4"
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16 + 8
    assert content[at] == 5
    content[at] = 5 + 32
    path.write_bytes(content)


def yaml_maze(path: Path) -> None:
    inner = "&a [1]"
    for letter, last in zip("bcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxy", strict=True):
        inner = f"&{letter} [{inner}, {', '.join([f'*{last}'] * 9)}]"
    plain = {**json.loads(json.dumps(PREPARED.__dict__)), "mean": inner}
    path.write_bytes(native({"a": torch.ones(1)}, preprocessing=plain))


def many_layers(path: Path) -> None:
    """Looking for each name among all of them would take hours."""
    header = {
        f"layer{n}.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        for n in range(30_000)
    }
    path.write_bytes(safetensors(header))


@pytest.fixture(scope="module")
def results(
    keras3_weights: bytes, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """The message for each file, and what it cost, from a process with little memory."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = {}
    for number, (name, (suffix, write, _)) in enumerate(bombs().items()):
        paths[name] = str(folder / f"{number}{suffix}")
        write(Path(paths[name]))
    paths["nothing odd"] = str(put(folder, "Keras 3 weights", keras3_weights))
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return {name: {**json.loads(line), "path": paths[name]} for name, line in read_lines(done)}


def read_lines(done: subprocess.CompletedProcess[str]) -> Iterator[tuple[str, str]]:
    for line in done.stdout.splitlines():
        name, _, rest = line.partition("\t")
        yield name, rest


def read_all(paths: Mapping[str, str]) -> None:
    """Read each file in a child with a gigabyte of memory and half a minute."""
    torch.set_num_threads(1)
    for name, path in paths.items():
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + 2**30
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
            try:
                read_file(Path(path))
                message = "read"
            except ResiduaError as error:
                message = str(error)
            except BaseException as error:
                message = f"{type(error).__name__}: {error}"
            took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            found = {"message": message, "kilobytes": took, "seconds": time.monotonic() - began}
            os.write(writer, json.dumps(found).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            found = stream.read()
        _, status = os.waitpid(child, 0)
        print(name, found.decode() or json.dumps({"message": f"status {status}"}), sep="\t")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("name", bombs())
def test_small_files_that_unpack_to_much_are_refused_within_little_memory_and_time(
    name: str, results: Mapping[str, Mapping[str, Any]]
) -> None:
    found = results[name]
    message = checked(Path(found["path"]), found["message"])
    assert bombs()[name][2] in message
    assert "needs more memory" not in message
    assert found["kilobytes"] < 300_000
    assert found["seconds"] < 15


if __name__ == "__main__":
    read_all(json.load(sys.stdin))
