"""`residua audit` prints findings, as JSON too, and writes the page and the fix list."""

from __future__ import annotations

import json
from pathlib import Path

from references.command_line import residua
from references.scenes import COPIES, scene, write_scenes


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    write_scenes(tmp_path / "photos", count=6)
    COPIES["mirrored"](scene(1000)).save(tmp_path / "photos" / "class0" / "copy.png")
    words = ["--html", "audit.html", "--fix-list", "fixes.csv", "--seconds", "0"]
    result = residua("audit", "photos", *words, cwd=tmp_path)
    assert result.stdout.startswith("13 images in 2 classes: 1 warning\n"), result.stderr
    assert "class0/copy.png" in result.stdout
    assert (tmp_path / "audit.html").is_file()
    assert (tmp_path / "fixes.csv").read_text() == "path,action,label,reason\n"


def test_json_goes_to_stdout_alone(tmp_path: Path) -> None:
    write_scenes(tmp_path / "photos", count=6)
    result = residua("audit", "photos", "--seconds", "0", "--json", cwd=tmp_path)
    assert json.loads(result.stdout)["findings"] == []


def test_outputs_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_scenes(tmp_path / "photos", count=5)
    result = residua("audit", "photos", "--html", "photos/a.html", cwd=tmp_path)
    assert result.status == 1
    assert "inside the data folder" in result.stderr
    assert "reading" not in result.stderr
