"""Messages and progress -> stderr: moving bars on a terminal, plain lines elsewhere.

In a notebook they are the output of a cell, on stdout: what is on stderr resembles an error there.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TextIO, TypeVar, cast

from residua.errors import ResiduaError
from residua.system.notebook import NotebookBar, is_notebook, progress_text

_state = random.getstate()  # rich draws from the caller's generator when it is imported
from rich.console import Console as RichConsole  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: E402

random.setstate(_state)

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


class Output:
    """Standard output. Raises ResiduaError where it cannot be written, and drops what follows.

    BrokenPipeError passes: the reader has what it wants.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text; it may be buffered."""
        with self._readable_errors():
            return self.stream.write(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._readable_errors():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            discard(self.stream)
            if isinstance(error, BrokenPipeError):
                raise
            raise ResiduaError(
                f"standard output cannot be written: {error.strerror or error}. Redirect it to a "
                "file on a disk with free space."
            ) from error


def discard(stream: TextIO) -> None:
    """Send what is buffered and what follows to the null device, so that exiting cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _Messages:
    """sys.stderr, in a notebook sys.stdout.

    What cannot be written is dropped: work continues when nobody reads of it.
    """

    encoding = property(lambda self: getattr(self._stream, "encoding", None))

    @property
    def _stream(self) -> Any:
        stream = sys.stdout if is_notebook() else sys.stderr
        return getattr(stream, "rich_proxied_file", stream)  # None if it is closed

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return bool(self._stream.isatty())
        return False


class Console:
    """Prints lines, and one progress bar below them. quiet: prints nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.in_notebook = is_notebook()
        self.rich = RichConsole(
            file=cast(TextIO, _Messages()),
            # Plain lines: a kernel sets FORCE_COLOR, and rich would make each line an output
            force_jupyter=False,
            force_terminal=False if self.in_notebook else None,
            quiet=quiet,
            highlight=False,
            soft_wrap=True,
            emoji=False,
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
        """A progress bar; without a terminal or notebook, a line every `plain_seconds`."""
        if self.in_notebook and not self.rich.quiet:
            with contextlib.closing(NotebookBar(description)) as bar:
                yield bar
            return
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
            text = progress_text(self.first, self.began, done, total, note)
            self.console.print(f"{self.description}: {text}")
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


def short_count(number: int) -> str:
    """ "11.2 M", "269.7 k" or "512"."""
    for limit, unit in ((1_000_000, " M"), (1_000, " k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return str(number)
