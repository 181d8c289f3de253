"""Training steps of networks with depthwise convolutions, by residua's gradients and PyTorch's.

    python benchmarks/depthwise.py     # results/depthwise.txt

Forward and backward pass in bf16 on random images, channels_last, norms in evaluation mode as in
fine-tuning; all layers, and the last three stages alone on the output of the others. Both take
turns in one process. First the gradients are compared with those of float32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from conditions import conditions
from torch import Tensor

from residua.networks import depthwise
from residua.networks.staged import Staged
from residua.networks.zoo.catalogue import build

RESULT = Path(__file__).parent / "results" / "depthwise.txt"
OWN = depthwise.is_slow
BATCH, LAST = 32, 3
NETWORKS = (("efficientnet_lite0", 224), ("efficientnet_lite0", 160), ("mobilenet_v2", 224))


def step(network: Staged, x: Tensor, first: int, precision: torch.dtype) -> None:
    network.zero_grad(set_to_none=True)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        y = network.between(x, first, len(network.stages))
    y.float().square().mean().backward()


def use(is_own: bool) -> None:
    substitute: Any = OWN if is_own else lambda *_: False
    depthwise.is_slow = substitute


def difference(network: Staged, x: Tensor, is_own: bool) -> float:
    """Relative difference of all gradients to those of float32, by their norm."""
    gradients = []
    for precision in (torch.float32, torch.bfloat16):
        use(is_own)
        step(network, x, 0, precision)
        parts = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        gradients.append(torch.cat(parts))
    exact, mixed = gradients
    return float((mixed - exact).norm() / exact.norm())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    lines = [
        f"# images/s of forward and backward pass, bf16, batch {BATCH}; median of {rounds} rounds",
        f"# {conditions()}",
        "network               px  trained             PyTorch  residua  ratio (range)",
    ]
    for name, size in NETWORKS:
        torch.manual_seed(0)
        network = build(name, classes=10).to(memory_format=torch.channels_last).eval()
        images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
        first = len(network.stages) - LAST
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            maps = network.between(images, 0, first).float()
        differences = [difference(network, images, is_own) for is_own in (False, True)]
        for trained, x, start in (("all", images, 0), (f"last {LAST} stages", maps, first)):
            seconds: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(rounds + 1):  # the first warms up
                for is_own, times in seconds.items():
                    use(is_own)
                    began = time.perf_counter()
                    step(network, x, start, torch.bfloat16)
                    times.append(time.perf_counter() - began)
            plain, own = (BATCH / statistics.median(seconds[key][1:]) for key in (False, True))
            ratios = [a / b for a, b in zip(seconds[False][1:], seconds[True][1:], strict=True)]
            lines.append(
                f"{name:20}{size:4}  {trained:18}{plain:9.1f}{own:9.1f}  "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        lines.append(
            f"{name:20}{size:4}  difference of all gradients to float32: PyTorch "
            f"{differences[0]:.4f}, residua {differences[1]:.4f}"
        )
    RESULT.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
