"""A study is found by its name, and writes only to a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from residua.errors import ResiduaError
from residua.studies import definition
from residua.studies.run_study import STUDIES, available, run_study
from residua.studies.study import StudyOptions
from residua.system.console import Console

QUIET = Console(quiet=True)


def test_every_study_is_listed_once() -> None:
    names = [name for name, _ in available()]
    assert sorted(names) == sorted([*definition.shipped(), *STUDIES])
    assert len(names) == len(set(names))
    with pytest.raises(ResiduaError, match=r"expected a \.yaml file or one of .*orderings"):
        run_study("ordering", StudyOptions(seeds=1), None, QUIET)


def test_a_folder_with_other_files_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for study in ("softmax", str(file)):
        with pytest.raises(ResiduaError, match="contains other files"):
            run_study(study, StudyOptions(), str(tmp_path), QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_path_that_cannot_store_a_study_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    for place in ("letter", "letter/below", "a" * 300):
        with pytest.raises(ResiduaError, match=r"cannot|is not empty"):
            run_study(str(file), StudyOptions(seeds=1), str(tmp_path / place), QUIET)
    assert (tmp_path / "letter").read_text() == "dear"


def test_data_that_is_missing_leaves_the_folder_for_another_attempt(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    with pytest.raises(ResiduaError, match="nowhere"):
        run_study(str(file), StudyOptions(str(tmp_path / "nowhere"), 1), str(out), QUIET)
    assert not list(out.glob("runs/*/*/config.yaml"))


@pytest.mark.slow
def test_a_computed_study_has_its_own_folder_and_no_other_study_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        page = run_study("softmax", StudyOptions(), None, QUIET)
    assert page == Path("studies/softmax/index.html")
    assert "residua 0" in page.read_text()
    with pytest.raises(ResiduaError, match="study 'softmax', not 'identity'"):
        run_study("identity", StudyOptions(), str(page.parent), QUIET)
