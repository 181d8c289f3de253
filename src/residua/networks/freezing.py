"""A network -> the same, its first stages frozen: neither parameters nor statistics change."""

from __future__ import annotations

from torch import nn

from residua.errors import ResiduaError
from residua.networks.layers import BatchNorm


def freeze(network: nn.Module, stages: int) -> None:
    """Freeze what comes before the first stage, and the first `stages` stages, in place.

    Frozen parameters need no gradient, so none is computed below the first trained layer; frozen
    norms stay in evaluation mode, whoever calls train(). 0 freezes nothing. Raises ResiduaError if
    the network has fewer stages.
    """
    if stages == 0:
        return
    found: nn.ModuleList = network.stages  # type: ignore[assignment]
    if stages > len(found):
        raise ResiduaError(f"freeze = {stages}: the network has {len(found)} stages.")
    stem = getattr(network, "stem", None)
    for part in (*([stem] if stem is not None else []), *found[:stages]):
        part.requires_grad_(False)
        for module in part.modules():
            if isinstance(module, BatchNorm):
                module.frozen = True
                module.eval()
