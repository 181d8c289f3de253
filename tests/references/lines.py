"""A console whose lines a test can read."""

from __future__ import annotations

import signal

from residua.system.console import Console


class Lines(Console):
    """A quiet console that remembers its lines; a signal is raised after one that contains
    `stop`."""

    def __init__(self, stop: str = "", number: signal.Signals = signal.SIGINT) -> None:
        super().__init__(quiet=True)
        self.stop, self.number, self.lines = stop, number, list[str]()

    def print(self, line: str) -> None:
        self.lines.append(" ".join(line.split()))
        if self.stop and self.stop in self.lines[-1]:
            signal.raise_signal(self.number)

    def warn(self, line: str) -> None:
        self.print(f"warning: {line}")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
