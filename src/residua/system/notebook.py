"""A Jupyter kernel -> whether there is one, its progress bars, and how it shows a result."""

from __future__ import annotations

import html
import sys
import time
from importlib import import_module
from typing import Any

BAR_SECONDS = 0.2  # between two updates of a bar, and before it appears


def is_notebook() -> bool:
    """Whether this is the kernel of a notebook: Jupyter, VS Code, Colab."""
    interactive = sys.modules.get("IPython")
    return getattr(interactive and interactive.get_ipython(), "kernel", None) is not None


def shown(kind: str, result: object) -> Any:
    """The HTML or figure `kind` of a result, by a function of `report.notebook`.

    That module is above the classes of the results: it is imported when one of them is shown.
    """
    return getattr(import_module("residua.report.notebook"), kind)(result)


class NotebookBar:
    """A progress bar in the output of a cell, which disappears when the work ends."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.moved = time.monotonic()
        self.first: tuple[int, float] | None = None
        self.handle: Any = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        self.first = self.first or (done, now)
        if now - self.moved < BAR_SECONDS:
            return
        self.moved = now
        text = progress_text(*self.first, done, total, note)
        self._show(
            f"<div>{html.escape(self.description)} "
            f'<progress value="{min(done, total)}" max="{max(total, 1)}"></progress> '
            f"{html.escape(text)}</div>"
        )

    def close(self) -> None:
        """Remove the bar."""
        if self.handle is not None:
            self._show("")

    def _show(self, markup: str) -> None:
        content = {"text/html": markup, "text/plain": ""}
        if self.handle is None:
            display = import_module("IPython.display").display
            self.handle = display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)


def progress_text(first: int, began: float, done: int, total: int, note: str) -> str:
    """Counts, time left and note, as "64 of 480, 1:05 left, loss 0.3".

    first: what was done at time.monotonic() `began`; the time left is unknown until more is done.
    """
    parts = [f"{done:,} of {total:,}"]
    if done > first:
        seconds = (total - done) * (time.monotonic() - began) / (done - first)
        parts.append("{}:{:02} left".format(*divmod(round(seconds), 60)))
    return ", ".join([*parts, note] if note else parts)
