"""Workers share the threads of a process, and never outlive it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from residua.errors import ResiduaError
from residua.studies.workers import workers

PARENT = """
import multiprocessing, time
from residua.studies.workers import workers
with workers(2, time.sleep, 600):
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(600)
"""


def test_one_job_needs_no_worker() -> None:
    threads = torch.get_num_threads()
    with workers(1, time.sleep, 600):
        assert not multiprocessing.active_children()
        assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_workers_share_the_threads_and_stop_with_the_context_also_by_an_error() -> None:
    def fail() -> None:
        with workers(2, time.sleep, 600):
            assert len(multiprocessing.active_children()) == 1
            assert torch.get_num_threads() == 1
            raise ResiduaError("the disk is full")

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ResiduaError, match="full"):
            fail()
        assert not multiprocessing.active_children()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_workers_stop_when_their_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            os.kill(worker, 0)
            time.sleep(0.1)
    except ProcessLookupError:
        return
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")
