"""What the command line prints of a weights file: one line of printable text for each problem."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from references.weights_files import KERAS_NAME, NAME, Files, State, native, opened, put, saved
from safetensors.torch import save

from residua.cli import main
from residua.networks.zoo.catalogue import build
from residua.weights.inspect import inspect
from residua.weights.load import read_file

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("command", ["inspect", "predict"])
def test_the_command_line_prints_one_line(
    command: str,
    whole: Files,
    keras3_weights: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.mkfifo(tmp_path / "pipe")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stored:
        stored.writestr("model.weights.h5", keras3_weights)
    files = {
        "empty.pth": b"",
        "page.h5": b"<html>",
        "cut.pth": whole["pickle"][:-9],
        "cut.th": whole["old pickle"][:-9],
        "cut.safetensors": whole["ours"][:-9],
        "cut.h5": keras3_weights[:-9],
        "cut.keras": archive.getvalue()[:-9],
        "code.pth": pickle.dumps(opened(tmp_path), 2),
        "names.safetensors": save({"a\x1b[2Jb": torch.ones(2)}),
        "card.safetensors": native({"a": torch.ones(2)}, network="\x1b[2J"),
        "misfit.safetensors": native({"a": torch.ones(2)}),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in [*files, "pipe"]:
        words = {
            "inspect": ["weights", "inspect", str(tmp_path / name)],
            "predict": ["predict", str(tmp_path / name), "image.png"],
        }[command]
        monkeypatch.setattr(sys, "argv", ["residua", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        message = capsys.readouterr()
        assert stopped.value.code == 1, name
        assert message.out == "", name
        assert message.err.startswith(f"error: {tmp_path / name}: "), name
        assert message.err.count("\n") == 1, message.err
        assert message.err.strip().isprintable(), message.err
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.slow
def test_a_file_is_described_in_text_and_json(keras_file: Path, state: State) -> None:
    inspection = inspect(keras_file, KERAS_NAME)
    lines = [" ".join(line.split()) for line in inspection.text(with_tensors=True).splitlines()]
    assert "framework keras" in lines
    assert f"network {KERAS_NAME}" in lines
    assert "layer names of automatic names" in lines
    assert "classes airplane, automobile, bird, cat, deer, ... (10 in all)" in lines
    assert "batch_normalization/0 16 float32" in lines
    facts = json.loads(inspection.to_json())
    assert facts["numbers"] == sum(
        tensor.numel() for tensor in read_file(keras_file, KERAS_NAME).tensors.values()
    )
    kernel = {"name": "conv2d/0", "shape": [3, 3, 3, 16], "dtype": "float32"}
    assert kernel in facts["tensors"]
    file = put(keras_file.parent, "pickle", saved(state | {"extra.weight": torch.ones(2)}))
    assert (
        inspect(file, None).facts["network"].startswith("unknown: is no network of the catalogue")
    )


def test_nothing_that_moves_the_cursor_reaches_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the name of a file, or from the names of classes in it."""
    path = tmp_path / "a\x1b[2Jb.safetensors"
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    state = build(NAME, seed=0).state_dict()
    for content, words in (
        (b"", ["weights", "inspect", str(path)]),
        (b"", ["predict", str(path), "image.png"]),
        (native(state, classes=["\x1b[31mred"] * 10), ["weights", "inspect", str(path)]),
        (
            native(state, classes=["\x1b[31mred"] * 10),
            ["predict", str(path), str(tmp_path / "image.png")],
        ),
    ):
        path.write_bytes(content)
        monkeypatch.setattr(sys, "argv", ["residua", *words])
        with contextlib.suppress(SystemExit):
            main()
        message = capsys.readouterr()
        assert (message.out + message.err).replace("\n", "").isprintable(), words
        assert "\\x1b[" in message.out + message.err
