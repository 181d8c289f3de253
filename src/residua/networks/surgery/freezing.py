"""A network -> the same, its first stages frozen: neither parameters nor statistics change."""

from __future__ import annotations

from residua.errors import ResiduaError
from residua.networks.layers import BatchNorm
from residua.networks.staged import Staged


def freeze(network: Staged, stages: int) -> None:
    """Freeze what comes before the first stage, and the first `stages` stages, in place.

    All stages: what stands between the last of them and the head too. Frozen parameters need no
    gradient, so none is computed below the first trained layer; frozen norms stay in evaluation
    mode, whoever calls train(). 0 freezes nothing. Raises ResiduaError if the network has fewer
    stages.
    """
    if stages == 0:
        return
    found = network.stages
    if stages > len(found):
        raise ResiduaError(f"freeze = {stages}: the network has {len(found)} stages.")
    stem, tail = getattr(network, "stem", None), getattr(network, "tail", None)
    ends = [stem, tail if stages == len(found) else None]
    for part in (*(each for each in ends if each is not None), *found[:stages]):
        part.requires_grad_(False)
        for module in part.modules():
            if isinstance(module, BatchNorm):
                module.frozen = True
                module.eval()
