"""Signals of the user or the system -> a question that the loop asks between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The user or the system asked to stop by signal `number`; the state is in folder `run`.

    further: how to go on, if not by `residua resume`.
    """

    def __init__(self, number: int, run: str, further: str = "") -> None:
        name = signal.Signals(number).name
        further = further or f"residua resume {run}"
        super().__init__(f"stopped by {name}; everything is saved: {further}")
        self.number = number


class Signals:
    """Remembers Ctrl-C and SIGTERM until the loop asks; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.received = 0
        self.earlier: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.earlier[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.earlier.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
