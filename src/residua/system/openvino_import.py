"""The package openvino, without its telemetry -> the module.

`import openvino` alone starts a process that reports the import to Google Analytics, waits for it,
without a network up to 3 s, and stores an identifier in the user's home folder.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_TELEMETRY = "openvino_telemetry"


def openvino() -> Any:
    """The package, imported as if openvino_telemetry were not installed. Raises ImportError."""
    absent = object()
    before = sys.modules.get(_TELEMETRY, absent)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # importing it is an ImportError
    try:
        import openvino
    finally:
        if isinstance(before, ModuleType):
            sys.modules[_TELEMETRY] = before
        else:
            del sys.modules[_TELEMETRY]
    return openvino
