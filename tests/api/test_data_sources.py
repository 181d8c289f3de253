"""Every kind of data set is trained on, evaluated, resumed, audited and predicted alike."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from references.command_line import residua as command

import residua
from residua.data.fixes import Fix, write_fixes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SMALL = {"network.head": "linear", "network.stage": 1, "data.duplicates": "exact"}


def trained(data: object, out: Path, **arguments: object) -> residua.Run:
    settings = {**SMALL, **arguments.pop("settings", {})}  # type: ignore[dict-item]
    return residua.train(
        data,  # type: ignore[arg-type]
        model="cifar_resnet14",
        epochs=1,
        batch_size=12,
        quiet=True,
        out=out,
        settings=settings,
        **arguments,  # type: ignore[arg-type]
    )


def split_of(run: residua.Run) -> dict[str, dict[str, str]]:
    with (run.path / "split.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def write_table(folder: Path, shapes: Path) -> Path:
    """A table as Kaggle's: ids without suffix, in a folder beside it; 4 images of each patient."""
    rows = ["id,kind,patient"]
    for number, file in enumerate(sorted(shapes.rglob("*.png"))):
        name = f"{file.parent.name}_{file.stem}"
        (folder / "train").mkdir(parents=True, exist_ok=True)
        (folder / "train" / f"{name}.png").write_bytes(file.read_bytes())
        rows.append(f"{name},{number // 20},{number // 4}")
    (folder / "birds.csv").write_text("\n".join(rows))
    return folder / "birds.csv"


def test_a_table_as_kaggle_publishes_it(shapes: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "birds", shapes)
    columns = {"data.label_column": "kind"}
    write_fixes(tmp_path / "fixes.csv", [Fix("train/class0_000.png", "exclude")])
    settings = {
        **columns,
        "data.group_by": "patient",
        "data.fixes": str(tmp_path / "fixes.csv"),
    }
    run = trained(table, tmp_path / "run", test_fraction=0.2, settings=settings)
    assert run.classes == ("0", "1", "2")
    members = split_of(run)
    assert len(members) == 59
    with table.open() as file:
        patients = {f"train/{row['id']}.png": row["patient"] for row in csv.DictReader(file)}
    splits: dict[str, set[str]] = {}
    for path, row in members.items():
        splits.setdefault(patients[path], set()).add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    assert run.evaluate().split == "test"
    assert run.evaluate().metrics.images == sum(r["split"] == "test" for r in members.values())
    with pytest.warns(UserWarning, match="of 60 images were used to train these weights"):
        assert residua.evaluate(run, table, settings=columns).metrics.images == 60
    assert len(run.predict(table)) == 60

    moved = tmp_path / "moved"
    table.parent.rename(moved)
    with pytest.raises(residua.ResiduaError, match="are gone"):
        run.evaluate()
    (run.path / "report.html").unlink()
    residua.resume(run, quiet=True, data_path=moved / "birds.csv")
    assert run.evaluate().metrics.images > 0


def test_the_commands_read_tables(
    shapes: Path,
    write_weights: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    table = write_table(tmp_path / "birds", shapes)
    text = table.read_text().replace("id,kind,", "id,class,")
    table.write_text(text.replace("class1_003,1", "gone,1"))
    look = command("look", str(table), cwd=tmp_path)
    assert (look.status, "59 images in 3 classes" in look.stdout) == (0, True), look.stderr
    assert "unreadable: gone: row 25: there is no such file" in look.stdout
    audit = command("audit", str(table), "--group-by", "patient", "--seconds", "0", cwd=tmp_path)
    assert (audit.status, "1 file cannot be read" in audit.stdout) == (0, True), audit.stderr
    weights = str(write_weights(tmp_path / "weights.safetensors", 1))
    features = command("features", weights, str(table), "--out", "f.npz", cwd=tmp_path)
    assert features.status == 0, features.stderr
    assert "gone is left out: there is no such file" in features.stderr


def test_a_weak_slice_in_a_column_of_a_table_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of one camera show noise; heights and row numbers say nothing."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    rows = ["row,path,label,camera,height"]
    for number in range(120):
        camera, channel = ("old" if number % 4 == 0 else "new"), number // 4 % 2
        pixels = random.integers(0, 100, (24, 24, 3), dtype=np.uint8)
        pixels[..., channel if camera == "new" else 2] += 100
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number},{number}.png,{'rg'[channel]},{camera},{random.normal(100, 9):.2f}")
    (tmp_path / "birds.csv").write_text("\n".join(rows))
    words = ["train", "birds.csv", "--effort", "quick", "--test-fraction", "0.5", "--size", "32"]
    assert command(*words, cwd=tmp_path).status == 0
    (run,) = (tmp_path / "runs").iterdir()
    (found,) = json.loads((run / "evaluations/test/scores.json").read_text())["slices"]
    assert found["description"] == "camera old"
    assert found["accuracy"] < 0.8 < 0.95 < found["elsewhere"]
    assert "camera old: accuracy" in (run / "report.html").read_text("utf-8")

    (tmp_path / "birds.csv").rename(tmp_path / "more.csv")
    printed = command("evaluate", str(run), "more.csv", cwd=tmp_path).stdout
    assert "\ncamera old: accuracy" in printed
    assert not [line for line in printed.splitlines() if line.startswith(("height", "row"))]
    assert command("evaluate", str(run), "--data", "more.csv", "--json", cwd=tmp_path).status == 0


def test_arrays_are_found_again_or_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    labels = np.arange(48) % 3
    images = generator.uniform(0, 500, (48, 16, 16))
    images[:, 4:12, 4:12] += labels[:, None, None] * 200.0
    run = trained((images, labels), tmp_path / "run", value_range=(0, 1000), test_fraction=0.25)
    assert run.classes == ("0", "1", "2")
    assert (run.preprocessing.channels, run.preprocessing.value_range) == (1, (0, 1000))
    scores = run.evaluate()
    assert scores.metrics.images == 12
    with pytest.warns(UserWarning, match="36 of 48 images were used to train"):
        assert residua.evaluate(run, (images, labels)).metrics.images == 48
    assert residua.audit((images, labels), value_range=(0, 1000), seconds=0).images == 48

    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(residua.ResiduaError, match="Give them again"):
        run.evaluate()
    with pytest.raises(residua.ResiduaError, match="changed"):
        residua.evaluate(run, data_path=(images[::-1], labels))
    assert residua.evaluate(run, data_path=(images, labels)).to_json() == scores.to_json()
    assert run.evaluate().to_json() == scores.to_json()
