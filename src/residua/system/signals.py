"""SIGINT and SIGTERM -> a flag that the training loop reads between two steps, or an exception."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM, where nothing waits for a signal: like Ctrl-C, it removes unfinished files."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Context in which SIGTERM raises Terminated, unless the process has another handler of it."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def signal_of(error: KeyboardInterrupt) -> int:
    """The number of the signal that raised it."""
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


class Interrupted(Exception):  # noqa: N818 - a request of the user, not an error
    """A signal ended the work on folder `run`, which can be continued.

    number: of the signal. saved: the state of the work. advice: how to continue, if not by
    `residua resume`.
    """

    def __init__(
        self, number: int, run: str, saved: str = "checkpoint saved", advice: str = ""
    ) -> None:
        name, advice = signal.Signals(number).name, advice or f"continue with: residua resume {run}"
        super().__init__(f"interrupted by {name}; {saved}{', ' * bool(saved)}{advice}")
        self.number = number

    def _render_traceback_(self) -> list[str]:
        """The lines that a notebook shows: the user stopped the work, so no traceback is needed."""
        return [str(self)]


class Signals:
    """Context in which `received` is the number of the first SIGINT or SIGTERM, else 0.

    A second signal raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self.received = number


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux, see sigaltstack(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def preserved_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack at the end.

    OpenVINO sets one for each compiled network and, when it frees them, restores the one before:
    after two networks that is one of freed memory, on which the next signal would crash.
    """
    if sys.platform != "linux":
        yield
        return
    set_stack, before = ctypes.CDLL(None).sigaltstack, _SignalStack()
    set_stack(None, ctypes.byref(before))
    try:
        yield
    finally:
        set_stack(ctypes.byref(before), None)
