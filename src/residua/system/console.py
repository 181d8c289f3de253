"""Messages and progress -> stderr: moving bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int], None]  # (items done, items in all)
ANNOUNCED_SECONDS = 2.0  # of work, from which on its time is printed beforehand

_T = TypeVar("_T")


class Bar(Protocol):
    """Moves a progress bar; also a `Report`. note: text beside the bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def counting(
    items: Sequence[_T], report: Report | None, total: int, before: int = 0
) -> Iterator[_T]:
    """The items; one is reported as done when the next is requested. before: done earlier."""
    for number, item in enumerate(items, start=before + 1):
        yield item
        if report:
            report(number, total)


def printable(text: str) -> str:
    """The text with control characters escaped, so that it cannot move a terminal's cursor."""
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )


class Console:
    """Prints lines, and one progress bar below them. quiet: prints nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.rich = RichConsole(
            stderr=True, quiet=quiet, highlight=False, soft_wrap=True, emoji=False
        )
        self.moving = self.rich.is_terminal and not quiet

    def print(self, line: str) -> None:
        """Print a line."""
        self.rich.print(printable(line), markup=False)

    def warn(self, line: str) -> None:
        """Print a warning."""
        self.rich.print(f"warning: {printable(line)}", markup=False, style="yellow")

    def caution(self, line: str) -> None:
        """Print a warning about a result; if quiet, issue a Python warning instead."""
        if self.rich.quiet:
            warnings.warn(line, stacklevel=3)
        else:
            self.warn(line)

    def error(self, line: str) -> None:
        """Print an error."""
        self.rich.print(f"error: {printable(line)}", markup=False, style="red")

    @contextlib.contextmanager
    def bar(self, description: str, plain_seconds: float = 10.0) -> Iterator[Bar]:
        """A progress bar; without a terminal, a line every `plain_seconds`."""
        if not self.moving:
            yield _PlainBar(self, description, plain_seconds)
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
            task = progress.add_task(description, total=1, note="")

            def move(done: int, total: int, note: str = "") -> None:
                progress.update(task, completed=done, total=total, note=note)

            yield move


class _PlainBar:
    """Prints the progress every few seconds; nothing if the work ends earlier."""

    def __init__(self, console: Console, description: str, seconds: float) -> None:
        self.console, self.description, self.seconds = console, description, seconds
        self.began = time.monotonic()
        self.due = self.began + seconds
        self.first: int | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.began = done, now
        if now >= self.due and done < total:
            left = (total - done) * (now - self.began) / max(done - self.first, 1)
            minutes, seconds = divmod(round(left), 60)
            line = f"{self.description}: {done:,} of {total:,}, {minutes}:{seconds:02} left, {note}"
            self.console.print(line.rstrip(", "))
            self.due = now + self.seconds


def announcing(console: Console, report: Report, task: str) -> Report:
    """`report`, which also prints after the first batch how long all images will take."""
    began = time.monotonic()
    is_first = True

    def announce(done: int, total: int) -> None:
        nonlocal is_first
        seconds = (time.monotonic() - began) * (total - done) / max(1, done)
        if is_first and seconds >= ANNOUNCED_SECONDS:
            console.print(f"{task} {total:,} images: about {seconds:.0f} s")
        is_first = False
        report(done, total)

    return announce
