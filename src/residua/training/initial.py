"""Settings, and weights if there are any -> the network that training starts from, its metadata."""

from __future__ import annotations

import torch

from residua.config.schema import Config
from residua.data.prepare import Prepared
from residua.errors import ResiduaError
from residua.networks.analysis.cost import smallest_input
from residua.networks.analysis.shapes import REFUSALS
from residua.networks.staged import Staged
from residua.networks.surgery.freezing import freeze, freeze_statistics
from residua.networks.zoo.catalogue import build_from
from residua.runs.sources import start_from
from residua.weights.load import Weights
from residua.weights.native import Metadata
from residua.weights.network import on_device


def initial_network(config: Config, weights: Weights | None, device: torch.device) -> Staged:
    """The network of the settings, on a device, with the weights, frozen as the settings require.

    Raises ResiduaError if the weights do not fit.
    """
    spec, seed, strategy = config.network_spec, config.training.seed, config.transfer.strategy
    if weights is None or strategy == "scratch":
        network = build_from(spec, seed=seed)
    else:
        network = start_from(weights, spec, new_head=config.network.new_head, seed=seed)
    if strategy == "features":
        freeze(network, len(network.stages))
    elif strategy != "scratch":
        freeze(network, config.network.freeze)
    if config.network.freeze_norms:
        freeze_statistics(network)
    return on_device(network, device)


def check_network(prepared: Prepared, weights: Weights | None) -> None:
    """Raise ResiduaError where the weights or the size of the images do not fit the network."""
    config, device = prepared.config, prepared.device
    network, size = initial_network(config, weights, device).eval(), config.preprocessing.size
    try:
        with torch.inference_mode():
            network(torch.zeros(1, config.preprocessing.channels, size, size, device=device))
    except REFUSALS as error:
        if size >= (smallest := smallest_input(network)):
            raise
        raise ResiduaError(
            f"{config.network.name} needs images of at least {smallest} px, not {size}: use "
            f"--size {smallest} or another --model."
        ) from error


def initial_metadata(prepared: Prepared) -> Metadata:
    """The metadata of the weights files of a training."""
    config = prepared.config
    return Metadata(config.network_spec, prepared.dataset.classes, config.preprocessing, {})
