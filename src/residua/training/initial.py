"""Settings, and weights if there are any -> the network that training starts from, its metadata."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from residua.config.schema import AUTO, Config
from residua.data.prepared import Prepared
from residua.errors import ResiduaError
from residua.networks.analysis.cost import smallest_input
from residua.networks.analysis.shapes import REFUSALS
from residua.networks.own import OwnConfig, is_own, own_network_name
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
    if is_own(prepared.config.network.name):
        _check_outputs(prepared, weights)
        return
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


def _check_outputs(prepared: Prepared, weights: Weights | None) -> None:
    """Raise ResiduaError unless a network of the user's own gives a logit for each class."""
    spec, size = prepared.config.network_spec, prepared.config.preprocessing.size
    network = initial_network(prepared.config, weights, prepared.device).eval()
    image = torch.zeros(1, spec.channels, size, size, device=prepared.device)
    expected = (
        f"expected [1, {spec.classes}] for an image {list(image.shape)}, which "
        "preprocessing.channels and preprocessing.size set"
    )
    try:
        with torch.inference_mode():
            outputs = network.stages[0](image)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ResiduaError(f"model {spec.name}: failed: {reason}; {expected}.") from error
    is_tensor = isinstance(outputs, Tensor) and outputs.is_floating_point()
    if not is_tensor or outputs.shape != (1, spec.classes):
        found = list(outputs.shape) if is_tensor else type(outputs).__name__
        raise ResiduaError(f"model {spec.name}: returned {found}; {expected}.")


def with_own(config: Config, model: str | None) -> Config:
    """The settings of a run, whose own network may be built because the user names it in `model`.

    Raises ResiduaError if it is not named, or is none.
    """
    if model is None and own_network_name(config) is None:
        return config
    if model is None:
        OwnConfig(config.network.name).check()
        return config
    if not (is_own(model) and own_network_name(config)):
        raise ResiduaError(f"model {model}: the run's network is {config.network.name}.")
    network = dataclasses.replace(config.network, name=model)
    return dataclasses.replace(config, network=network)


def check_own(config: Config) -> None:
    """Raise ResiduaError if a network of the user's own is named by a file alone, or if settings
    need its stages."""
    network = config.network
    if own_network_name(config) is None:
        return
    OwnConfig(network.name).check()
    for setting, is_set in (
        (f"--transfer {config.transfer.strategy}", config.transfer.strategy not in (None, "none")),
        (f"--freeze {network.freeze}", network.freeze),
        (f"--head {network.head}", network.head not in (AUTO, "default")),
        ("--new-head", network.new_head),
    ):
        if is_set:
            raise ResiduaError(
                f"{setting}: model {network.name} is a network of your own, whose stages and head "
                "are not known: omit the option. Parameters without requires_grad stay frozen."
            )


def initial_metadata(prepared: Prepared) -> Metadata:
    """The metadata of the weights files of a training."""
    config = prepared.config
    return Metadata(config.network_spec, prepared.dataset.classes, config.preprocessing, {})
