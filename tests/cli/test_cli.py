"""The command line as a user types it: its help, its output and its exit status."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from references.command_line import every_command, parse, residua
from references.images import write_colours
from references.weights_files import NETWORK

import residua as package
from residua.config.parse import flags
from residua.networks.zoo import catalogue

FROM_SCRATCH = ("--weights", "none", "--epochs", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two classes of images in data/, and without images in empty/."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "empty").mkdir()
    write_colours(folder / "data", {"red <b>": 0, "猫头鹰": 1}, 12, (20, 24), seed=1)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run on these images."""
    result = residua("train", "data", *FROM_SCRATCH, "--val-fraction", "0.25", cwd=folder)
    assert result.status == 0, result.stderr
    assert result.stdout == "runs/data-1\n"
    assert "24 images in 2 classes: 18 train, 6 validation" in result.stderr
    return folder / "runs" / "data-1"


@pytest.mark.slow
def test_help_imports_neither_torch_nor_many_modules() -> None:
    code = (
        "import sys; sys.argv = ['residua', 'train', '--help']\n"
        "from residua.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'sklearn', 'scipy', 'matplotlib', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)), len(sys.modules), file=sys.stderr)"
    )
    environment = {**os.environ, "GLIBC_TUNABLES": ""}  # else the process is replaced by another
    words = [sys.executable, "-c", code]
    result = subprocess.run(words, capture_output=True, text=True, env=environment)
    heavy, count = result.stderr.rsplit(maxsplit=1)
    assert heavy == "[]"
    assert int(count) < 600  # torch alone: about 1,500


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_help_of_a_command_has_an_example_and_fits_80_columns(words: tuple[str, ...]) -> None:
    result = residua(*words, "--help")
    assert result.status == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "[]" not in result.stdout
    assert not re.search(r"<(str|bool|path|list|int|float)|\[OPTIONS\].*{", result.stdout)
    assert re.search(r"\n Examples: *\n   residua " + " ".join(words), result.stdout)


@pytest.mark.parametrize("words", [("train",), ("export",), ("push",)], ids=" ".join)
def test_a_paragraph_of_help_fills_the_lines(words: tuple[str, ...]) -> None:
    start, _, _ = residua(*words, "--help").stdout.partition("\n Examples:")
    lines = start.splitlines()
    for line, following in itertools.pairwise(lines):
        if line.strip() and following.strip():
            assert len(f"{line.rstrip()} {following.split()[0]}") > 78, line


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_examples_of_help_are_valid_commands(words: tuple[str, ...]) -> None:
    text = residua(*words, "--help").stdout
    examples = re.findall(r"^   residua (.+?) *$", text, re.M)
    assert examples
    for example in examples:
        parse(shlex.split(example))


def test_help_of_train_lists_every_flag_in_a_panel() -> None:
    text = residua("train", "--help").stdout
    assert all(flag in text for flag in flags())
    panels = re.findall(r"╭─ (\w+) ─", text)
    assert panels == [
        "Arguments",
        "Options",
        "Data",
        "Model",
        "Transfer",
        "Optimization",
        "Training",
        "Output",
    ]


def test_version_is_printed() -> None:
    assert residua("--version").stdout == f"residua {package.__version__}\n"


FULL = "standard output cannot be written: No space left on device"
CLOSED = "standard output cannot be written: Bad file descriptor"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "redirection", "status", "message"),
    [
        ("--version", ">/dev/full", 1, FULL),
        ("--version", ">&-", 1, CLOSED),
        ("--version", "2>/dev/full", 0, ""),
        ("--version", "2>&-", 0, ""),
        ("--version", "<&-", 0, ""),
        ("--help", ">/dev/full", 1, FULL),
        ("--help", ">&-", 1, CLOSED),
    ],
)
def test_streams_may_be_full_or_closed(
    flag: str, redirection: str, status: int, message: str
) -> None:
    command = f"{shlex.quote(sys.executable)} -m residua {flag} {redirection}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.returncode == status
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == status
    assert bool(result.stdout) == (status == 0)


@pytest.mark.slow
def test_names_of_classes_cannot_move_the_cursor(
    tmp_path: Path, write_weights: Callable[..., Path]
) -> None:
    names = [f"\x1b[3{number}mname" for number in range(NETWORK.classes)]
    write_colours(tmp_path / "data", dict.fromkeys(names, 0), 2, (16, 16), seed=1)
    weights = write_weights(tmp_path / "weights.safetensors", 1)
    evaluate = ["evaluate", str(weights), "data", "--classes", ",".join(names)]
    for words in (["look", "data"], evaluate):
        result = residua(*words, cwd=tmp_path)
        assert result.status == 0, result.stderr
        assert "\x1b" not in result.stdout + result.stderr
        assert r"\x1b[30mname" in result.stdout


@pytest.mark.slow
def test_an_interruption_while_modules_are_imported_is_no_traceback() -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Interrupt(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from residua.__main__ import main\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.slow
def test_a_process_reports_an_error_without_traceback_and_with_status_1(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "residua", "look", "nowhere"]
    result = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
def test_next_run_gets_the_next_number(folder: Path, run: Path) -> None:
    assert residua("train", "data/", *FROM_SCRATCH, cwd=folder).stdout == "runs/data-2\n"


@pytest.mark.slow
def test_evaluate_prints_one_json_object_on_stdout(run: Path) -> None:
    scores = json.loads(residua("evaluate", str(run), "--json").stdout)
    assert set(scores) >= {"accuracy", "interval", "top5", "loss", "images", "per_class"}
    assert scores["images"] == 6
    assert scores["interval"][0] <= scores["accuracy"] <= scores["interval"][1]
    assert {row["class"] for row in scores["per_class"]} == {"red <b>", "猫头鹰"}
    with (run / "evaluations/validation/predictions.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 6


@pytest.mark.slow
def test_predict_prints_a_row_for_every_file(folder: Path, run: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"<html>")
    files = ["broken.jpg", "data/猫头鹰/3.png", "missing.png", "data/red <b>/1.png"]
    result = residua("predict", str(run), *files, "--format", "json", "--top", "2", cwd=folder)
    rows = json.loads(result.stdout)
    assert result.status == 0
    assert [row["file"] for row in rows] == files
    assert [bool(row["error"]) for row in rows] == [True, False, True, False]
    assert rows[1]["top"][0]["class"] == "猫头鹰"
    assert rows[3]["top"][0]["class"] == "red <b>"
    result = residua("predict", str(run), *files, "--format", "csv", cwd=folder)
    table = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["file"] for row in table] == files
    assert table[1]["class1"] == "猫头鹰"
    assert "class2" in table[0]
    assert "class3" not in table[0]  # there are two classes
    for form in ("csv", "json"):
        printed = residua("predict", str(run), *files, "--format", form, cwd=folder).stdout
        arguments = ("predict", str(run), *files, "--out", f"rows.{form}")
        result = residua(*arguments, cwd=folder)
        assert (result.status, result.stdout) == (0, f"rows.{form}\n")
        assert "2 of 4 images could not be read: see the" in " ".join(result.stderr.split())
        written = (folder / f"rows.{form}").read_text("utf-8")
        assert "猫头鹰" in written
        assert written == printed if form == "csv" else json.loads(written) == json.loads(printed)
        assert "exists already" in residua(*arguments, cwd=folder).stderr
    result = residua("predict", str(run), *files, "--out", "a.csv", "--format", "json", cwd=folder)
    assert "--out a.csv: is a csv file, so omit --format json" in result.stderr
    result = residua("predict", str(run), "data/猫头鹰", "--grid", "grid.png", cwd=folder)
    assert len(result.stdout.splitlines()) == 12
    assert Image.open(folder / "grid.png").width > 300
    assert "grid: grid.png" in result.stderr


@pytest.mark.slow
def test_a_run_can_be_moved_and_predicts_without_its_data(
    folder: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "moved")
    image = folder / "data" / "red <b>" / "0.png"
    before = residua("predict", str(run), str(image)).stdout
    assert residua("predict", str(tmp_path / "moved"), str(image), cwd=tmp_path).stdout == before


def test_models_are_listed_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: catalogue.ROWS[name] for name in ("alexnet", "resnet50")}
    monkeypatch.setattr(catalogue, "ROWS", few)  # all of them: tests/networks/test_catalogue.py
    rows = json.loads(residua("models", "--json").stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name.keys() == few.keys()
    assert by_name["resnet50"]["multiply_adds"] == 4_089_184_256


def test_a_model_is_described_and_drawn(tmp_path: Path) -> None:
    model = json.loads(residua("models", "resnet50", "--classes", "10", "--json").stdout)
    sums = {"parameters", "buffers", "total", "trainable", "non_trainable", "multiply_adds"}
    assert set(model) == {"name", "input"} | sums
    assert model["trainable"] == 25_557_032 - 990 * 2049
    drawing = tmp_path / "n.svg"
    result = residua("models", "cifar_resnet20", "--ordering", "e", "--draw", str(drawing))
    assert "trainable" in result.stdout
    assert drawing.read_text().startswith("<")
    grouped = residua("models", "resnet50", "--cardinality", "32x4d", "--json")
    assert json.loads(grouped.stdout)["parameters"] == 25_028_904  # ResNeXt-50, as in torchvision


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "words", "message"),
    [
        (1, ["train", "nowhere"], "nowhere"),
        (1, ["train", "data", "--model", "vgg11", "--size", "16"], "at least 32 px"),
        (1, ["train", "data", "--device", "cuda:7"], "cuda:7"),
        (1, ["evaluate", "RUN", "--device", "cuda:77"], "cuda:77"),
        (1, ["predict", "RUN", "1.png", "--device", "cuda:77"], "cuda:77"),
        (1, ["explain", "RUN", "1.png", "--device", "cuda:77"], "cuda:77"),
        (1, ["features", "RUN", "1.png", "--out", "f.npz", "--device", "cuda:77"], "cuda:77"),
        (1, ["serve", "RUN", "--device", "cuda:77"], "cuda:77"),
        (1, ["train", "data", "--out", "data"], "is not empty"),
        (1, ["train", "digits", "--split", "keras"], "--split keras"),
        (1, ["train", "data", "--val-fraction", "0.9", "--test-fraction", "0.5"], "training"),
        (1, ["resume", "data"], "config.yaml"),
        (1, ["evaluate", "nowhere"], "no such file or folder"),
        (1, ["look", "nowhere"], "nowhere"),
        (1, ["evaluate", "runs/data-1", "digits"], "class '0'"),
        (1, ["predict", "runs/data-1", "missing.png"], "missing.png: cannot be read: No such file"),
        (1, ["predict", "runs/data-1", "empty"], "contains no images"),
        (1, ["explain", "runs/data-1", "data", "--class", "owl"], "has no class 'owl'"),
        (1, ["features", "runs/data-1", "data", "--stage", "9", "--out", "f.npz"], "stages 1 to"),
        (2, ["train", "data", "--epochs", "many"], "training.epochs = 'many'"),
        (2, ["train", "data", "--model", "resnet5"], "resnet50"),
        (2, ["train", "data", "--set", "epochs"], "expected SECTION.FIELD=VALUE"),
        (2, ["train", "data", "--set", "training.epoch=1"], "training has epochs"),
        (2, ["train", "data", "--device", "warp"], "warp"),
        (2, ["train", "data", "--recipe", "birds"], "tutorial_birds"),
        (2, ["train", "data", "--budget", "soon"], "90s"),
        (2, ["train", "data", "--head", "tall"], "mlp:256"),
        (2, ["train", "data", "--views", "3", "--weights", "none"], "--views needs"),
        (2, ["models", "resnet5"], "resnet50"),
        (2, ["models", "vgg16", "--ordering", "e"], "no residual units"),
        (2, ["models", "resnet18", "--ordering", "f"], "ordering 'f' is unknown"),
        (2, ["models", "--classes", "3"], "NAME"),
        (2, ["study"], "residua study --list"),
        (2, ["predict", "RUN", "1.png", "--top", "0"], "equal to 1"),
        (2, ["predict", "RUN", "1.png", "--set", "size=64"], "preprocessing.FIELD=VALUE"),
        (2, ["features", "RUN", "1.png", "--out", "table.txt"], ".npz or .parquet"),
        (2, ["export", "imagenet", "--out", "a.h5"], ".onnx"),
        (2, ["train", "data", "--ordering", "e"], "--set network.ordering=VALUE"),
        (2, ["train", "data", "--new-head", "--model", "cifar_resnet20"], "--new-head needs"),
        (2, ["predict", "imagenet", "data", "--sets"], "have no prediction sets"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_message_and_wrong_options_have_status_2(
    folder: Path, run: Path, status: int, words: list[str], message: str
) -> None:
    result = residua(*words, cwd=folder)
    assert result.status == status
    assert message in " ".join(result.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "file", "content"),
    [
        ("predict", "best.safetensors", b"\x00" * 100),
        ("evaluate", "config.yaml", b"training: ["),
    ],
)
def test_an_error_names_the_damaged_file_of_a_run(
    folder: Path, run: Path, tmp_path: Path, command: str, file: str, content: bytes
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / file).write_bytes(content)
    images = [str(folder / "data" / "red <b>" / "0.png")] if command == "predict" else []
    result = residua(command, str(tmp_path / "run"), *images)
    assert result.status == 1
    assert file in result.stderr
