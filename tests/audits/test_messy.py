"""Every trouble that messy.json lists is found; ordinary images are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import residua

EXPECTED = {  # words of messy.json -> finding
    "extension lies": "wrong-suffix",
    "grey-scale JPEG": "colour-modes",
    "alpha": "colour-modes",
    "palette": "colour-modes",
    "1-bit": "colour-modes",
    "CMYK": "colour-modes",
    "16-bit": "colour-modes",
    "animated": "animated",
    "EXIF orientation": "exif-rotated",
    "1x1 pixel": "tiny",
    "extreme aspect ratio": "extreme-shape",
    "under another label": "identical-across-classes",
    "exact duplicate of puffin": "identical-within-class",
    "near duplicate": "near-duplicates-within-class",
}


@pytest.mark.slow
def test_every_listed_trouble_is_found(shared_data: Path) -> None:
    audited = residua.audit(shared_data / "messy", seconds=0)
    found: dict[str, set[str]] = {}
    for finding in audited.findings:
        for example in finding.examples:
            found.setdefault(example.path, set()).add(finding.kind)
    rows = json.loads((shared_data / "messy.json").read_text("utf-8"))
    for row in rows:
        kinds = found.get(row["file"], set())
        if row["expect"] == "reject":
            assert kinds == {"unreadable"}, row
        elif row["expect"] == "ignore":
            assert not kinds, row
        elif row["expect"] == "read":
            for words, kind in EXPECTED.items():
                assert kind in kinds or words not in row["kind"], row
    originals = {"puffin/000.jpg", "owl/001.jpg", "puffin/002.jpg"}
    ordinary = {row["file"] for row in rows if row["kind"] == "ordinary"} - originals
    assert not ordinary & found.keys()
    assert any("empty_class" in f.title for f in audited.findings if f.kind == "structure")


@pytest.mark.slow
def test_a_clean_set_is_silent(shared_data: Path, tmp_path: Path) -> None:
    """Fifteen photos each of three birds, without those that have near-copies."""
    copies = {"owl010", "owl038", "puf028", "puf029", "egr006", "egr032"}
    for name in ("owl", "puffin", "egret"):
        files = sorted((shared_data / "birds6" / name).iterdir())
        for file in [f for f in files if f.stem not in copies][:15]:
            target = tmp_path / name / file.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    audited = residua.audit(tmp_path, seconds=60)
    assert audited.featured == 45
    assert audited.text() == "45 images in 3 classes: nothing found"
