"""argv -> what `residua` prints and its exit status, in this process: torch is imported once."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from residua.cli import main, root_command


@dataclass(frozen=True)
class Result:
    """Exit status and both streams of one command."""

    status: int
    stdout: str
    stderr: str


def residua(*words: str, cwd: Path | None = None) -> Result:
    """Run `residua WORDS...` in a folder, all of it but the restart with another allocator."""
    stdout, stderr = io.StringIO(), io.StringIO()
    status = 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, "argv", ["residua", *words]),
        mock.patch.dict(os.environ, {"GLIBC_TUNABLES": "set", "COLUMNS": "80"}),
    ):
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Result(status, stdout.getvalue(), stderr.getvalue())


def every_command() -> Iterator[tuple[str, ...]]:
    """("train",), ..., ("weights", "inspect"), ...: the names of every command."""
    for name, command in root_command().commands.items():
        nested = getattr(command, "commands", {})
        yield from ((name, nested_name) for nested_name in nested)
        if not nested:
            yield (name,)


def parse(words: Sequence[str]) -> None:
    """Parse a command without running it; a usage error is raised."""
    command, rest = root_command(), list(words)
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context("residua", rest)
