"""This machine -> device, precision, and the versions and hardware that a run records."""

from __future__ import annotations

import contextlib
import platform
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from residua._version import __version__
from residua.errors import ResiduaError, UsageError


def device_named(name: str) -> torch.device:
    """The device "cpu", "cuda" or "cuda:N". Raises ResiduaError if it is not available."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is unknown: expected cpu, cuda or cuda:N.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            gpus = f"{count} GPUs" if count else "no GPU"
            raise ResiduaError(
                f"device {name!r} is not available: PyTorch detects {gpus}. Use --device cpu."
            )
    return device


def fast_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether bf16 is fast on the device, and the reason."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return major >= 8, f"{torch.cuda.get_device_name(device)} (compute {major}.{minor})"
    for name, probe in (
        ("AMX", "_is_amx_tile_supported"),
        ("AVX512-BF16", "_is_avx512_bf16_supported"),
    ):
        supported = getattr(torch.cpu, probe, None)
        if supported is not None and supported():
            return True, f"the CPU has {name}"
    return False, "the CPU has neither AMX nor AVX512-BF16"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a forward pass: bfloat16 for precision "bf16", else disabled."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for environment.json."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    program = Path(sys.argv[0]).name  # __main__.py of `python -m residua`
    return {
        "residua": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "command": ["residua" if program == "__main__.py" else program, *sys.argv[1:]],
        "date": datetime.now().astimezone().isoformat(" ", "seconds"),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123
        for line in stream:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
