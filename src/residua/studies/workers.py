"""Work that several processes may take from one another -> it is done by some of them at once.

A small network leaves most of a second core idle; two of them, each on its own core, do not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch

from residua.errors import ResiduaError
from residua.system.signals import Interrupted

LOOK = 1.0  # seconds between looks at whether the first process still lives


@contextlib.contextmanager
def helped(jobs: int, work: Callable[[Any], None], given: Any) -> Iterator[None]:
    """In this context `jobs` - 1 other processes do work(given) too, with no words.

    The threads of this one are shared among all. At its end, also by an error, the others are
    asked to stop, which they do as if a user had; if this process is killed they stop too. Raises
    ResiduaError for more than one job where folders cannot be locked.
    """
    if jobs > 1 and find_spec("fcntl") is None:
        raise ResiduaError("--jobs: this system cannot tell processes apart: leave it out.")
    threads = torch.get_num_threads()
    share = max(1, threads // jobs)
    start = multiprocessing.get_context("spawn")
    arguments = (os.getpid(), share, work, given)
    others = [start.Process(target=_helper, args=arguments) for _ in range(jobs - 1)]
    try:
        if others:
            torch.set_num_threads(share)
        with _without_interrupts():  # which a helper inherits
            for each in others:
                each.start()
        yield
    finally:
        begun = [each for each in others if each.pid is not None]
        for each in begun:
            each.terminate()
        for each in begun:
            each.join()
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the context is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _helper(parent: int, threads: int, work: Callable[[Any], None], given: Any) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_stop_without, args=(parent,), daemon=True).start()
    with contextlib.suppress(Interrupted, ResiduaError):  # the first process says it
        work(given)


def _stop_without(parent: int) -> None:
    """Stop this process as a user would, once it has another parent."""
    nap = threading.Event()
    while os.getppid() == parent:
        nap.wait(LOOK)
    signal.raise_signal(signal.SIGTERM)
