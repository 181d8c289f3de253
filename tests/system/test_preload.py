"""Modules are imported while other work goes on."""

from __future__ import annotations

import sys
import threading

from residua.system.preload import preload


def test_modules_are_imported_and_those_that_are_missing_ignored() -> None:
    sys.modules.pop("colorsys", None)
    preload("no_such_module", "colorsys")
    for thread in threading.enumerate():
        if thread.name == "preload":
            thread.join()
    assert "colorsys" in sys.modules
