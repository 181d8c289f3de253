"""The machine, versions and date -> the first line of a file of results."""

from __future__ import annotations

import datetime
from importlib.metadata import version

import torch

from residua.system.device import environment


def conditions(*packages: str) -> str:
    """Date, machine, threads and versions, of `packages` too."""
    facts = environment(torch.device("cpu"))
    versions = [f"{name} {version(name)}" for name in packages]
    return "; ".join(
        [
            str(datetime.date.today()),
            f"{facts['device_name']}, {torch.get_num_threads()} thread(s)",
            f"residua {facts['residua']}, torch {torch.__version__}, Python {facts['python']}",
            *versions,
        ]
    )
