"""Devices are named as in PyTorch; a missing one is refused before any work."""

from __future__ import annotations

import pytest
import torch

from residua.errors import ResiduaError
from residua.system.device import autocast, device_named, environment, fast_bf16

CPU = torch.device("cpu")


def test_the_cpu_is_always_available() -> None:
    assert device_named("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "mps", "", "cuda:x", "meta"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ResiduaError, match="expected cpu, cuda or cuda:N"):
        device_named(name)


@pytest.mark.parametrize(("count", "gpus"), [(0, "no GPU"), (2, "2 GPUs")])
def test_a_missing_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, count: int, gpus: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ResiduaError, match=f"PyTorch detects {gpus}. Use --device cpu"):
        device_named("cuda:2")
    if count:
        assert device_named("cuda:1") == torch.device("cuda", 1)


def test_autocast_follows_the_precision() -> None:
    x = torch.ones(2, 2)
    with autocast(CPU, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert (x @ x).dtype == torch.float32


def test_bf16_is_explained_and_the_environment_recorded() -> None:
    fast, reason = fast_bf16(CPU)
    assert reason.startswith("the CPU has neither") != fast
    recorded = environment(CPU)
    assert {"residua", "python", "torch", "device_name", "threads"} <= set(recorded)
    assert recorded["device"] == "cpu"
