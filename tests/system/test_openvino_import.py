"""OpenVINO is used without its telemetry."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import residua

SOURCES = Path(residua.__file__).parent


@pytest.mark.slow
def test_openvino_is_imported_without_telemetry(tmp_path: Path) -> None:
    """Its telemetry reports to Google Analytics, and stores an identifier below the home folder."""
    pytest.importorskip("openvino_telemetry")
    code = (
        "import sys; from residua.system.openvino_import import openvino; openvino();"
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__);"
        "import openvino_telemetry"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("CI", None)
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub"]
    assert list(tmp_path.iterdir()) == []


def test_no_module_imports_openvino_before_its_telemetry_is_off() -> None:
    """`from openvino` comes after a call of the helper in the same function."""
    direct = re.compile(r"^ +(import openvino\b|from openvino\b)")
    for file in SOURCES.rglob("*.py"):
        if file.name == "openvino_import.py":
            continue
        lines = file.read_text("utf-8").splitlines()
        for before, line in itertools.pairwise(lines):
            if direct.match(line):
                assert before.endswith("openvino()"), f"{file}: {line}"
