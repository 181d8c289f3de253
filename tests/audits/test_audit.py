"""The audit of a folder: its findings as text, JSON, a page and a fix list that training obeys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from references.scenes import COPIES, scene, write_scenes

import residua
from residua.audits.audit import Audit
from residua.audits.finding import Example
from residua.data.fixes import read_fixes, with_fixes
from residua.data.open import open_dataset
from residua.errors import ResiduaError
from residua.report import audit_page as page
from residua.system.words import percent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 scenes, a crop, <b>.png: class0/00.png under the other label, and a damaged file."""
    folder = write_scenes(tmp_path_factory.mktemp("data"))
    scene(0).save(folder / "class1" / "<b>.png")
    COPIES["cropped"](scene(3)).save(folder / "class0" / "crop.png")
    (folder / "class0" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Audit:
    return residua.audit(folder, seconds=0)


def test_findings_are_sorted_by_severity(found: Audit) -> None:
    kinds = [finding.kind for finding in found.findings]
    assert kinds == ["unreadable", "identical-across-classes", "near-duplicates-within-class"]
    assert found.summary == "26 images in 2 classes: 2 errors, 1 note"
    assert "Labels were not checked" in found.text()
    lines = found.text().splitlines()
    assert "  class0/00.png  = class1/<b>.png" in lines
    assert "  class1/<b>.png" not in lines  # named with its copy already


def test_json_has_every_image(found: Audit) -> None:
    content = json.loads(json.dumps(found.to_json()))
    by_kind = {finding["kind"]: finding for finding in content["findings"]}
    paths = {e["path"] for e in by_kind["identical-across-classes"]["examples"]}
    assert paths == {"class0/00.png", "class1/<b>.png"}
    assert content["images"] == 26


def test_the_page_is_one_file_with_images_and_escaped_names(found: Audit, tmp_path: Path) -> None:
    file = page.write(found, tmp_path / "audit.html")
    text = file.read_text("utf-8")
    assert text.count("data:image/png;base64,") + text.count("data:image/jpeg;base64,") == 4
    assert "class1/&lt;b&gt;.png" in text
    assert "A split that <code>train</code> draws" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


def test_outputs_never_go_into_the_data_folder(found: Audit, folder: Path) -> None:
    with pytest.raises(ResiduaError, match="inside the data folder"):
        page.write(found, folder / "audit.html")
    with pytest.raises(ResiduaError, match="inside the data folder"):
        found.write_fixes(folder / "fixes.csv")


def test_fixed_data_has_no_contradictions(found: Audit, folder: Path, tmp_path: Path) -> None:
    assert found.write_fixes(tmp_path / "fixes.csv") == 2
    file = tmp_path / "fixes.csv"
    fixed = with_fixes(open_dataset(str(folder)), read_fixes(file), file)
    paths = {entry.path for entry in fixed.entries}
    assert not paths & {"class0/00.png", "class1/<b>.png"}
    assert len(paths) == 24 + 3 - 2


def test_a_folder_without_readable_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    with pytest.raises(ResiduaError, match="none of its 1 images can be read"):
        residua.audit(tmp_path, seconds=0)


def test_a_single_class_is_audited_without_labels(tmp_path: Path) -> None:
    write_scenes(tmp_path, classes=1, count=8)
    audited = residua.audit(tmp_path)
    assert audited.featured == 0
    assert audited.accuracy is None


@pytest.mark.slow
def test_labels_of_a_class_in_a_single_group_are_not_checked(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Without its group nothing of the class is left, so it would seem to overlap with others."""
    write_scenes(tmp_path, classes=3, count=12)
    for group_by, is_checked in (("folder", False), (r"(class0)", True)):
        audited = residua.audit(tmp_path, group_by=group_by)
        assert audited.featured == 36
        assert (audited.accuracy is not None) == is_checked
        assert audited.curve is None
        overlaps = [f.title for f in audited.findings if f.kind == "overlapping-classes"]
        assert not [title for title in overlaps if "class0" in title or not is_checked]
    assert not [warning for warning in recwarn.list if warning.category is RuntimeWarning]


@pytest.mark.slow
def test_real_photos_with_planted_errors(shared_data: Path, tmp_path: Path) -> None:
    """Ten photos each of two birds, one under the wrong label and one copied."""
    for name, other in (("owl", "puffin"), ("puffin", "owl")):
        files = sorted((shared_data / "birds6" / name).iterdir())
        for number, file in enumerate(files[:11]):
            target = tmp_path / (other if number == 10 and name == "owl" else name) / file.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    audited = residua.audit(tmp_path, seconds=60)
    accuracy = f"their cross-validated accuracy is {percent(audited.accuracy or 0, 1)}."
    assert accuracy in audited.text()
    assert accuracy in page.render(audited)
    kinds = {finding.kind: finding for finding in audited.findings}
    example = Example("puffin/owl011.jpg", "puffin -> owl")
    assert kinds["label-errors"].examples == (example,)
