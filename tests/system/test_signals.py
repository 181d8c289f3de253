"""The first signal is remembered, the second ends at once, and handlers are restored."""

from __future__ import annotations

import signal
import threading

import pytest

from residua.system.signals import Interrupted, Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_the_second_ends_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Signals() as signals:
        assert signals.received == 0
        signal.raise_signal(number)
        assert signals.received == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_other_threads_leave_the_handlers_alone() -> None:
    before, during = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with Signals():
            during.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [before]


def test_an_interruption_prints_how_to_continue() -> None:
    text = str(Interrupted(signal.SIGINT, "runs/birds-1"))
    assert text == (
        "interrupted by SIGINT; checkpoint saved, continue with: residua resume runs/birds-1"
    )
    text = str(Interrupted(signal.SIGTERM, "runs", "", "the same command resumes the study"))
    assert text == "interrupted by SIGTERM; the same command resumes the study"
