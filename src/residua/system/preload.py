"""Names of modules -> the modules, imported by a thread while images are decoded."""

from __future__ import annotations

import threading
from contextlib import suppress
from importlib import import_module


def preload(*names: str) -> None:
    """Begin to import modules that are needed later.

    What fails is left to the import where a module is used, which explains it.
    """

    def run() -> None:
        for name in names:
            with suppress(Exception):
                import_module(name)

    threading.Thread(target=run, name="preload", daemon=True).start()
