"""Independent jobs -> worker processes that run them beside this one.

A small network leaves most of a second core idle; two networks at a time use both cores.
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

POLL = 1.0  # seconds between checks that the parent process is alive


@contextlib.contextmanager
def workers(jobs: int, work: Callable[[Any], None], argument: Any) -> Iterator[None]:
    """In this context `jobs` - 1 other processes call work(argument) too, without output.

    All of them share the threads of this process. The workers are terminated, as if by a user, when
    the context is left, also by an error, and stop by themselves if this process is killed. Raises
    ResiduaError for more than one job where folders cannot be locked.
    """
    if jobs > 1 and find_spec("fcntl") is None:
        raise ResiduaError("--jobs: folders cannot be locked on this system: leave it out.")
    threads = torch.get_num_threads()
    share = max(1, threads // jobs)
    context = multiprocessing.get_context("spawn")
    arguments = (os.getpid(), share, work, argument)
    processes = [context.Process(target=_worker, args=arguments) for _ in range(jobs - 1)]
    try:
        if processes:
            torch.set_num_threads(share)
        with _sigint_blocked():  # workers inherit the mask
            for process in processes:
                process.start()
        yield
    finally:
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join()
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Delay Ctrl-C until the context is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _worker(parent: int, threads: int, work: Callable[[Any], None], argument: Any) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(Interrupted, ResiduaError):  # the parent process reports them
        work(argument)


def _stop_with(parent: int) -> None:
    """Stop this process, as a user would, once its parent is gone."""
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(POLL)
    signal.raise_signal(signal.SIGTERM)
