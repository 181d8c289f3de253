"""Counts and times of a server -> text in Prometheus' exposition format 0.0.4."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Histogram:
    """Counts of values up to each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts = tuple(bounds), [0] * len(bounds)
        self.sum, self.count = 0.0, 0

    def add(self, value: float) -> None:
        """Count a value."""
        self.sum += value
        self.count += 1
        for index, bound in enumerate(self.bounds):
            self.counts[index] += value <= bound

    def lines(self, name: str) -> list[str]:
        """Its samples."""
        buckets = zip((*map(str, self.bounds), "+Inf"), (*self.counts, self.count), strict=True)
        return [f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in buckets] + [
            f"{name}_sum {self.sum}",
            f"{name}_count {self.count}",
        ]


class Metrics:
    """The metrics of one server; its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.active = 0  # requests in progress; changed by the server's thread alone
        self._requests: Counter[tuple[str, int]] = Counter()  # (path, status)
        self._images: Counter[str] = Counter()  # "predicted", "unreadable"
        self._seconds, self._batches = Histogram(SECONDS), Histogram(SIZES)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; path: one of the server's, or "other"."""
        with self._lock:
            self._requests[path, status] += 1
            self._seconds.add(seconds)

    def images(self, outcome: str, count: int) -> None:
        """Count images; outcome: "predicted" or "unreadable"."""
        with self._lock:
            self._images[outcome] += count

    def batch(self, size: int) -> None:
        """Count a forward pass."""
        with self._lock:
            self._batches.add(size)

    def text(self, waiting: int) -> str:
        """All of them as text. waiting: images in the queue."""
        with self._lock:
            requests = [
                f'residua_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self._requests.items())
            ]
            images = [
                f'residua_images_total{{outcome="{outcome}"}} {self._images[outcome]}'
                for outcome in ("predicted", "unreadable")
            ]
            seconds = self._seconds.lines("residua_request_seconds")
            batches = self._batches.lines("residua_batch_images")
        active = [f"residua_requests_in_progress {self.active}"]
        queued = [f"residua_images_waiting {waiting}"]
        lines = []
        for name, kind, text, samples in (
            ("residua_requests_total", "counter", "HTTP requests.", requests),
            ("residua_images_total", "counter", "Images received.", images),
            ("residua_request_seconds", "histogram", "Seconds per request.", seconds),
            ("residua_batch_images", "histogram", "Images per forward pass.", batches),
            ("residua_requests_in_progress", "gauge", "Requests in progress.", active),
            ("residua_images_waiting", "gauge", "Images that wait for the network.", queued),
        ):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples]
        return "\n".join(lines) + "\n"
