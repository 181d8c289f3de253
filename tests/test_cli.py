"""The command line as a user types it: real processes, their output, their status."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from residua.config.parse import flags


def residua(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "residua", *words], capture_output=True, text=True, cwd=cwd
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder and a run on it, made by the command line."""
    place = tmp_path_factory.mktemp("cli")
    generator = np.random.default_rng(1)
    for name, colour in (("red <b>", 0), ("猫头鹰", 1)):
        for number in range(12):
            pixels = generator.integers(0, 60, (20, 24, 3), dtype=np.uint8)
            pixels[..., colour] += 150
            file = place / "data" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    done = residua("train", "data", "--epochs", "3", "--val-fraction", "0.25", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "runs/data-1\n"
    assert "Found 24 images in 2 classes; 18 for training, 6 for validation" in done.stderr
    return place, place / "runs" / "data-1"


def test_help_is_fast_and_knows_every_flag() -> None:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = residua("--help")
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0
    assert min(seconds) < 0.3
    said = residua("train", "--help").stdout
    assert all(flag in said for flag in flags())


def test_next_run_gets_the_next_number(trained: tuple[Path, Path]) -> None:
    place, _ = trained
    done = residua("train", "data/", "--epochs", "1", cwd=place)
    assert done.stdout == "runs/data-2\n"


def test_evaluate_json_is_all_of_stdout(trained: tuple[Path, Path]) -> None:
    done = residua("evaluate", str(trained[1]), "--json")
    found = json.loads(done.stdout)
    assert set(found) >= {
        "accuracy",
        "interval",
        "top5",
        "loss",
        "images",
        "part",
        "per_class",
    }
    assert found["part"] == "validation"
    assert found["images"] == 6
    assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]
    assert {each["class"] for each in found["per_class"]} == {"red <b>", "猫头鹰"}
    with (trained[1] / "evaluations/validation/predictions.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 6


def test_predict_keeps_a_row_for_every_named_file(trained: tuple[Path, Path]) -> None:
    place, run = trained
    (place / "broken.jpg").write_bytes(b"<html>")
    files = ["broken.jpg", "data/猫头鹰/3.png", "missing.png", "data/red <b>/1.png"]
    done = residua("predict", str(run), *files, "--format", "json", "--top", "2", cwd=place)
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    assert [row["file"] for row in rows] == files
    assert [bool(row["error"]) for row in rows] == [True, False, True, False]
    assert rows[1]["top"][0]["class"] == "猫头鹰"
    assert rows[3]["top"][0]["class"] == "red <b>"
    done = residua("predict", str(run), *files, "--format", "csv", cwd=place)
    table = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["file"] for row in table] == files
    assert table[1]["class1"] == "猫头鹰"
    done = residua("predict", str(run), "data/猫头鹰", "--grid", "grid.png", cwd=place)
    assert len(done.stdout.splitlines()) == 12
    assert Image.open(place / "grid.png").width > 300


def test_a_run_can_move_and_predict_without_its_data(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    place, run = trained
    shutil.copytree(run, tmp_path / "moved")
    image = place / "data" / "red <b>" / "0.png"
    here = residua("predict", str(run), str(image)).stdout
    there = residua("predict", str(tmp_path / "moved"), str(image), cwd=tmp_path).stdout
    assert here == there


def test_models_lists_and_describes(tmp_path: Path) -> None:
    rows = json.loads(residua("models", "--json").stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["resnet50"]["multiply_adds"] == 4_089_184_256
    one = json.loads(residua("models", "resnet50", "--classes", "10", "--json").stdout)
    assert set(one) == {
        "name",
        "total",
        "trainable",
        "non_trainable",
        "multiply_adds",
        "input",
    }
    assert one["trainable"] == 25_557_032 - 990 * 2049
    done = residua("models", "cifar_resnet20", "--ordering", "e", "--draw", str(tmp_path / "n.svg"))
    assert "Trainable" in done.stdout
    assert (tmp_path / "n.svg").read_text().startswith("<")


def test_look_writes_images_and_leaves_the_data_alone(trained: tuple[Path, Path]) -> None:
    place, _ = trained
    before = sorted((each, each.stat().st_mtime_ns) for each in (place / "data").rglob("*"))
    done = residua("look", "data", cwd=place)
    assert "formats: PNG 24" in done.stdout
    assert "24 to 24 px" in done.stdout
    grids = list((place / "looks" / "data").glob("*.png"))
    assert len(grids) == 3
    assert sorted((each, each.stat().st_mtime_ns) for each in (place / "data").rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "nowhere"], "nowhere"),
        (["train", "data", "--epochs", "many"], "training.epochs = 'many'"),
        (["train", "data", "--model", "resnet5"], "resnet50"),
        (["train", "data", "--model", "vgg11", "--size", "16"], "at least 32 px"),
        (["train", "data", "--set", "epochs"], "expected SECTION.FIELD=VALUE"),
        (["train", "data", "--set", "training.epoch=1"], "training has epochs"),
        (["train", "data", "--device", "cuda:7"], "cuda:7"),
        (["train", "data", "--device", "warp"], "warp"),
        (["train", "data", "--recipe", "birds"], "tutorial_birds"),
        (["train", "data", "--out", "data"], "is not empty"),
        (["train", "digits", "--split", "keras"], "--split keras"),
        (["train", "data", "--val-fraction", "0.9", "--test-fraction", "0.5"], "training"),
        (["resume", "data"], "config.yaml"),
        (["evaluate", "nowhere"], "no such file or folder"),
        (["evaluate", "runs/data-1", "digits"], "class '0' is unknown"),
        (["predict", "runs/data-1", "missing.png"], "no image could be read"),
        (["predict", "runs/data-1", "data", "--top", "0"], "at least 1"),
        (["models", "resnet5"], "resnet50"),
        (["models", "vgg16", "--ordering", "e"], "no residual units"),
        (["models", "resnet18", "--ordering", "f"], "one of a, b, c, d, e"),
        (["look", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    trained: tuple[Path, Path], words: list[str], said: str
) -> None:
    done = residua(*words, cwd=trained[0])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert said in " ".join(done.stderr.split())


def test_damaged_runs_are_named(trained: tuple[Path, Path], tmp_path: Path) -> None:
    place, run = trained
    image = str(place / "data" / "red <b>" / "0.png")
    damages = {
        "best.safetensors": b"\x00" * 100,
        "config.yaml": b"training: [",
    }
    for name, content in damages.items():
        broken = tmp_path / name
        shutil.copytree(run, broken)
        (broken / name).write_bytes(content)
        command = "evaluate" if name == "config.yaml" else "predict"
        done = residua(command, str(broken), *([image] if command == "predict" else []))
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert name in done.stderr
