"""What a user sees while something runs: bars on a terminal, lines elsewhere; on stderr."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int], None]  # (done, of)


_T = TypeVar("_T")


def counting(items: Sequence[_T], report: Report | None, of: int, before: int = 0) -> Iterator[_T]:
    """The items; when the next one is asked for, that one more is done. before: what was done."""
    for number, item in enumerate(items, start=before + 1):
        yield item
        if report:
            report(number, of)


def printable(text: str) -> str:
    """A text without the characters that would move a terminal's cursor; lines stay lines."""
    return "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text
    )


class Console:
    """Lines that stay, and one bar that moves below them. quiet: nothing at all."""

    def __init__(self, quiet: bool = False) -> None:
        self.rich = RichConsole(
            stderr=True, quiet=quiet, highlight=False, soft_wrap=True, emoji=False
        )
        self.moving = self.rich.is_terminal and not quiet

    def print(self, line: str) -> None:
        """A line that stays."""
        self.rich.print(printable(line), markup=False)

    def warn(self, line: str) -> None:
        """A line that stays and stands out."""
        self.rich.print(f"warning: {printable(line)}", markup=False, style="yellow")

    def caution(self, line: str) -> None:
        """What a figure depends on: a warning here, or one of Python's where this is quiet."""
        if self.rich.quiet:
            warnings.warn(line, stacklevel=3)
        else:
            self.warn(line)

    def error(self, line: str) -> None:
        """Why it ends here."""
        self.rich.print(f"error: {printable(line)}", markup=False, style="red")

    @contextlib.contextmanager
    def bar(
        self, what: str, plain_seconds: float = 10.0
    ) -> Iterator[Callable[[int, int, str], None]]:
        """A function (done, of, note) that moves a bar; without a terminal, a line now and then."""
        if not self.moving:
            yield _PlainBar(self, what, plain_seconds)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:>6,.0f}/{task.total:,.0f}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(
            *columns, console=self.rich, transient=True, refresh_per_second=5
        ) as progress:
            task = progress.add_task(what, total=1, note="")

            def move(done: int, of: int, note: str = "") -> None:
                progress.update(task, completed=done, total=of, note=note)

            yield move

    def reporter(self, move: Callable[[int, int, str], None]) -> Report:
        """A bar's function without the note, for work that has nothing else to say."""
        return lambda done, of: move(done, of, "")


class _PlainBar:
    """Says where the work stands every few seconds, and nothing if it ends before."""

    def __init__(self, console: Console, what: str, seconds: float) -> None:
        self.console, self.what, self.seconds = console, what, seconds
        self.began = time.monotonic()
        self.due = self.began + seconds
        self.first: int | None = None

    def __call__(self, done: int, of: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.began = done, now
        if now >= self.due and done < of:
            left = (of - done) * (now - self.began) / max(done - self.first, 1)
            minutes, seconds = divmod(round(left), 60)
            said = f"{self.what}: {done:,} of {of:,}, {minutes}:{seconds:02} left, {note}"
            self.console.print(said.rstrip(", "))
            self.due = now + self.seconds
