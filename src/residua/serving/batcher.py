"""Single images from many threads -> batches for the network -> an output for each."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from residua.data.dataset import Pixels
from residua.evaluation.predictor import Output, Predictor
from residua.serving.limits import Limits, Refused
from residua.system.words import agreeing, counted

_Item = tuple[Pixels, "Future[Output]"]


class Batcher:
    """One thread that runs the network on whatever has arrived, up to a batch.

    While others are expected, the first image of a batch waits for them at most `limits.delay`
    seconds. expects_more: whether images are on their way. observe: called with the size of every
    batch.
    """

    def __init__(
        self,
        run: Predictor,
        limits: Limits,
        expects_more: Callable[[], bool],
        observe: Callable[[int], None],
    ) -> None:
        self._run, self._limits = run, limits
        self._expects_more, self._observe = expects_more, observe
        self._queue: queue.Queue[_Item | None] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.qsize()

    def submit(self, images: Sequence[Pixels]) -> list[Future[Output]]:
        """Queue all images, uint8 [S, S, C], or none. Raises Refused if the queue is full."""
        with self._lock:
            if self._closed:
                raise Refused(503, "the server is shutting down: try again in 5 s", retry_after=5)
            waiting, more = self.waiting, len(images)
            if waiting + more > self._limits.waiting:
                raise Refused(
                    429,
                    f"{counted(waiting, 'image')} {agreeing(waiting, 'is', 'are')} waiting and the "
                    f"limit is {self._limits.waiting:,}, so {more:,} more "
                    f"{agreeing(more, 'does', 'do')} not fit; try again in 1 s",
                    retry_after=1,
                )
            futures: list[Future[Output]] = [Future() for _ in images]
            for item in zip(images, futures, strict=True):
                self._queue.put(item)
        return futures

    def close(self) -> None:
        """Finish everything that is queued, then stop the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            batch, last = [item], False
            deadline = time.monotonic() + self._limits.delay
            while len(batch) < self._limits.batch and not last:
                seconds = deadline - time.monotonic() if self._expects_more() else 0.0
                try:
                    following = self._queue.get(timeout=max(0.0, seconds))
                except queue.Empty:
                    break
                if following is None:
                    last = True
                else:
                    batch.append(following)
            self._run_batch(batch)
            if last:
                return

    def _run_batch(self, batch: list[_Item]) -> None:
        wanted = [item for item in batch if item[1].set_running_or_notify_cancel()]
        if not wanted:  # every client has given up
            return
        self._observe(len(wanted))
        try:
            rows = self._run(np.stack([pixels for pixels, _ in wanted]))
        except Exception as error:
            for _, future in wanted:
                future.set_exception(error)
        else:
            for (_, future), row in zip(wanted, rows, strict=True):
                future.set_result(row)
