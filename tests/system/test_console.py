"""Messages go to stderr as they are, and progress is visible without a terminal too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from residua.errors import ResiduaError
from residua.system.console import Console, Output, counting, printable


@pytest.fixture(params=["full", "without a reader", "closed", "none"])
def broken(request: pytest.FixtureRequest) -> Iterator[TextIO | None]:
    """A stream that cannot be written, as a process may get it."""
    if request.param == "none":
        yield None
        return
    if request.param == "full":
        stream = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115
    else:
        reading, writing = os.pipe()
        os.close(reading)
        stream = os.fdopen(writing, "w", buffering=1)
    if request.param == "closed":
        stream.close()
    yield stream
    if not stream.closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        stream.close()


def test_messages_that_cannot_be_written_are_dropped(
    broken: TextIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", broken)
    console = Console()
    for _ in range(3):
        console.print("owl " * 10_000)
        console.warn("few images")
    with console.bar("training", plain_seconds=-1) as move:
        move(1, 2)


def test_output_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as stream:
        output = Output(stream)
        output.write("a")
        with pytest.raises(ResiduaError, match="standard output cannot be written: No space left"):
            output.flush()
        output.write("what follows is dropped")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        output = Output(stream)
        with pytest.raises(BrokenPipeError):
            output.write("a" * 100_000)


def test_control_characters_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[31mred\r\nb\u202e") == "a\\x1b[31mred\\r\nb\\u202e"


def test_lines_go_to_stderr_without_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.print("[bold]owl[/bold] :owl:")
    console.warn("few images")
    console.error("no images")
    output = capsys.readouterr()
    assert output.out == ""
    expected = ["[bold]owl[/bold] :owl:", "warning: few images", "error: no images"]
    assert output.err.splitlines() == expected


def test_a_quiet_console_prints_nothing_but_cautions(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    console.print("owl")
    console.error("owl")
    with console.bar("training") as move:
        move(1, 2)
    with pytest.warns(UserWarning, match="normalisation assumed"):
        console.caution("normalisation assumed")
    assert capsys.readouterr().err == ""


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Console().bar("training", plain_seconds=10) as move:
        for done in range(0, 101, 5):
            move(done, 100, "loss 1.2")
            now[0] += 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 20 of 100, 0:48 left, loss 1.2"
    assert len(lines) == 4


def test_the_time_left_is_not_stated_before_there_is_a_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Console().bar("features", plain_seconds=10) as move:
        now[0] = 30  # the first batch takes longer than a line
        move(32, 300)
    assert capsys.readouterr().err == "features: 32 of 300\n"


def test_short_work_prints_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().bar("training") as move:
        move(1, 2)
        move(2, 2)
    assert capsys.readouterr().err == ""


def test_items_are_counted_when_they_are_done() -> None:
    steps: list[tuple[int, int]] = []
    for item in counting("abc", lambda *step: steps.append(step), 5, before=2):
        assert len(steps) == "abc".index(item)
    assert steps == [(3, 5), (4, 5), (5, 5)]


@pytest.mark.slow
def test_importing_leaves_the_generator_of_the_caller_alone() -> None:
    code = (
        "import random; before = random.getstate(); import residua.system.console; "
        "assert random.getstate() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
