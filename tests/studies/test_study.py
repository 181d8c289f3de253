"""A study refuses options that do not apply before it claims a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from residua.errors import ResiduaError
from residua.studies.run_study import run_study
from residua.studies.study import StudyOptions
from residua.system.console import Console


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("softmax", StudyOptions("elsewhere"), "--data does not apply: expected --out only"),
        ("softmax", StudyOptions(seeds=5, jobs=2), "--seeds and --jobs do not apply"),
        ("signal", StudyOptions(paper=True), "--paper does not apply: expected --seeds and --out"),
        ("transfer-scenarios", StudyOptions("elsewhere"), "--data does not apply"),
        (
            "transfer-scenarios",
            StudyOptions(settings={"training.epochs": 3}),
            "--epochs or --set does not apply: expected --seeds, --budget and --out only",
        ),
        ("transfer-scenarios", StudyOptions(budget="10x"), "10x"),
        ("orderings", StudyOptions(budget="10x"), "10x"),
    ],
)
def test_options_that_do_not_apply_are_refused(
    name: str, options: StudyOptions, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ResiduaError, match=words):
        run_study(name, options, str(tmp_path / "out"), Console(quiet=True))
    assert not (tmp_path / "out").exists()
