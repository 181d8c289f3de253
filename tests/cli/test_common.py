"""Arguments that several commands share, exit statuses, and predictions as text."""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image

from residua.cli.common import (
    CHUNK,
    check_order,
    class_names,
    preprocessing_fields,
    print_predictions,
    terminal,
)
from residua.errors import ResiduaError
from residua.evaluation.predict import Prediction
from residua.system.signals import Interrupted

PREDICTIONS = [
    Prediction("a.png", [("owl", 0.75), ("egret", 0.25)], None),
    Prediction("longer.png", [], "not an image"),
]


def test_class_names_come_from_a_list_or_from_the_lines_of_a_file(tmp_path: Path) -> None:
    assert class_names(None) is None
    assert class_names("owl, egret") == ["owl", "egret"]
    assert class_names("owl") == ["owl"]
    (tmp_path / "classes.txt").write_text("owl\n\n snowy egret \n")
    assert class_names(str(tmp_path / "classes.txt")) == ["owl", "snowy egret"]
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ResiduaError, match=r"classes\.txt: cannot be read"):
        class_names(str(tmp_path / "classes.txt"))


def test_only_preprocessing_can_be_set_for_a_weights_file() -> None:
    assert preprocessing_fields(None) == {}
    assert preprocessing_fields(["preprocessing.size=64"]) == {"size": "64"}
    for assignment in ("training.epochs=3", "size=64", "preprocessing.size"):
        with pytest.raises(ResiduaError, match="expected"):
            preprocessing_fields([assignment])


def test_a_run_after_its_images_is_named_with_the_right_order(tmp_path: Path) -> None:
    run, photo = tmp_path / "run", tmp_path / "new.jpg"
    run.mkdir()
    for name in ("config.yaml", "split.csv"):
        (run / name).write_text("")
    Image.new("L", (2, 2)).save(photo)
    for source in (photo, tmp_path):
        with pytest.raises(ResiduaError) as raised:
            check_order("predict", str(source), ["other.jpg", str(run)])
        assert str(raised.value).endswith(f"comes first: residua predict {run} {source}")
    for source in (str(run), "imagenet", "hub:me/net", "missing.jpg", "\0"):
        check_order("predict", source, [str(photo), str(run)])


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(signal.SIGTERM, "resume with residua resume runs/1"), 143, "residua resume"),
    ],
)
def test_an_interrupted_command_reports_it_and_exits_with_the_status_of_its_signal(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as exit_, terminal():
        raise error
    assert exit_.value.exit_code == status
    assert message in capsys.readouterr().err


def test_a_terminated_command_removes_its_temporary_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(typer.Exit) as exit_,
        terminal(),
        tempfile.TemporaryDirectory(dir=tmp_path),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert exit_.value.exit_code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_errors_pass_through_the_terminal() -> None:
    with pytest.raises(ResiduaError), terminal():
        raise ResiduaError("photos: no such folder.")


def test_predictions_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_predictions(PREDICTIONS, "table", 2, sys.stdout)
    assert capsys.readouterr().out.splitlines() == [
        "a.png       owl 75.0 %, egret 25.0 %",
        "longer.png  error: not an image",
    ]
    print_predictions([], "table", 2, sys.stdout)
    assert capsys.readouterr().out == ""


def test_all_rows_of_a_table_have_the_same_width(capsys: pytest.CaptureFixture[str]) -> None:
    names = [*(f"{number}.png" for number in range(CHUNK)), "the-longest-name.png"]
    rows = [Prediction(name, (("owl", 1.0),), None) for name in names]
    print_predictions(iter(rows), "table", 1, sys.stdout, names=names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names)
    assert {line.index("owl") for line in lines} == {len(names[-1]) + 2}


def test_predictions_as_csv_have_a_column_per_rank(capsys: pytest.CaptureFixture[str]) -> None:
    for rows in (PREDICTIONS, PREDICTIONS[::-1]):
        print_predictions(rows, "csv", 2, sys.stdout)
        table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["file"] for row in table] == [prediction.file for prediction in rows]
        found = {row["file"]: row for row in table}
        assert found["a.png"]["class2"] == "egret"
        assert found["a.png"]["probability1"] == "0.750000"
        assert "class3" not in found["a.png"]
        assert found["longer.png"]["class1"] == ""
        assert found["longer.png"]["error"] == "not an image"


def test_failed_rows_are_written_before_an_interruption() -> None:
    def interrupted() -> Iterator[Prediction]:
        yield from [Prediction(f"{n}.png", (), "not an image") for n in range(CHUNK)]
        raise KeyboardInterrupt

    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        print_predictions(interrupted(), "csv", 1, out)
    assert len(list(csv.DictReader(io.StringIO(out.getvalue())))) == CHUNK


def test_predictions_as_json_have_a_row_for_each_image(capsys: pytest.CaptureFixture[str]) -> None:
    print_predictions(PREDICTIONS, "json", 2, sys.stdout)
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["top"][0]["class"] == "owl"
    assert rows[1]["error"] == "not an image"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_for_programs_is_valid_in_every_encoding(encoding: str) -> None:
    rows = [Prediction("café \U0001f600.png", (("été", 1.0),))]
    for form in ("json", "csv"):
        stream = io.BytesIO()
        out = io.TextIOWrapper(stream, encoding=encoding, errors="backslashreplace")
        print_predictions(rows, form, 1, out)
        out.flush()
        text = stream.getvalue().decode("utf-8")
        if form == "json":
            ((row,),) = [json.loads(text)]
            assert (row["file"], row["top"][0]["class"]) == ("café \U0001f600.png", "été")
        else:
            assert text.splitlines()[1] == "café \U0001f600.png,été,1.000000,,"


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_rows_are_printed_before_an_interruption(form: str) -> None:
    def interrupted() -> Iterator[Prediction]:
        yield from [Prediction(f"{n}.png", (("owl", 1.0),)) for n in range(CHUNK)]
        raise KeyboardInterrupt

    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        print_predictions(interrupted(), form, 1, out)
    if form == "json":
        assert len(json.loads(out.getvalue())) == CHUNK
    assert out.getvalue().count(".png") == CHUNK


def test_no_predictions_are_an_empty_list() -> None:
    out = io.StringIO()
    assert print_predictions([], "json", 1, out) == (0, [])
    assert json.loads(out.getvalue()) == []
