"""A network -> the same network with its first stages frozen: neither weights nor norms change."""

from __future__ import annotations

from residua.errors import ResiduaError
from residua.networks.layers import BatchNorm
from residua.networks.staged import Staged


def freeze(network: Staged, stages: int) -> None:
    """Freeze the stem and the first `stages` stages in place; 0 freezes nothing.

    Freezing all stages freezes the tail too. Frozen parameters need no gradient, so none is
    computed below the first trainable layer; frozen norms stay in evaluation mode, whoever calls
    train(). Raises ResiduaError if the network has fewer stages.
    """
    if stages == 0:
        return
    count = len(network.stages)
    if stages > count:
        raise ResiduaError(f"freeze = {stages}: the network has {count} stages.")
    frozen = [getattr(network, "stem", None), *network.stages[:stages]]
    if stages == count:
        frozen.append(getattr(network, "tail", None))
    for layers in frozen:
        if layers is None:
            continue
        layers.requires_grad_(False)
        for module in layers.modules():
            if isinstance(module, BatchNorm):
                module.frozen = True
                module.eval()
