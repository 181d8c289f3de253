"""A network and its settings -> the memory that a training step takes, and a batch size that fits.

Most of that memory holds the tensors that the backward pass needs, in proportion to the batch. An
operating system that runs out of it may end the process without a message.
"""

from __future__ import annotations

import copy
import dataclasses
import sys

import torch
from torch import Tensor, nn

from residua.config import auto, parse
from residua.config.auto import Chooser
from residua.config.schema import AUTO
from residua.data.cache import free_memory
from residua.data.prepared import Prepared
from residua.networks.layers import draw_dropout_from
from residua.system.console import Console
from residua.system.device import autocast

SAMPLE = 2  # images that are measured
SHARE = 0.7  # of the free memory, for a training step
OVERHEAD = 1.5  # memory at its peak over what is saved; 0.8 to 1.7 in six networks
COPIES = 5  # of the parameters: gradients, two moments, average, the network that is validated
SMALLEST_BATCH = 4  # that is chosen


def free_bytes(device: torch.device, unknown: int = 2**32) -> int:
    """Bytes of free memory on a device; `unknown` if the system does not report any."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory(unknown)


def saved_bytes(network: nn.Module, images: Tensor, precision: str) -> int:
    """Bytes that a forward pass of a copy of the network saves for the backward pass, without
    parameters. images: [B, C, S, S] on its device."""
    network = copy.deepcopy(network).train()
    draw_dropout_from(network, torch.Generator(images.device))
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(images.device, precision),
    ):
        outputs = network(images)  # whose graph holds what was saved, so that no address is reused
    del outputs
    return sum(saved.values())


def with_fitting_batch(
    network: nn.Module, prepared: Prepared, console: Console, free: int | None = None
) -> Prepared:
    """The same with a smaller batch where a step would not fit into memory; an explicit batch size
    stays, with a warning. network: on the device. free: bytes; None: those of the device."""
    training, device = prepared.config.training, prepared.device
    members = prepared.training_members[:SAMPLE]
    images = prepared.training_batches().plain(members)
    image = saved_bytes(network, images, training.precision) / len(members)
    fixed = COPIES * sum(parameter.nbytes for parameter in network.parameters())
    free = free_bytes(device, unknown=sys.maxsize) if free is None else free
    batch = auto.images_per_step(prepared.config, len(prepared.splits["train"]))
    needed = OVERHEAD * image * batch + fixed
    if needed <= SHARE * free:
        return prepared
    fitting = batch
    while fitting > SMALLEST_BATCH and OVERHEAD * image * fitting + fixed > SHARE * free:
        fitting = max(SMALLEST_BATCH, -(-fitting // 2))
    amount = f"{needed / 1e9:.1f} GB for {batch} images in a step, {free / 1e9:.1f} GB are free"
    if prepared.is_explicit("training.batch_size"):
        console.warn(f"training may run out of memory: {amount}; --batch-size {fitting} takes less")
        return prepared
    console.print(f"batch size {fitting}: {amount}")
    return _with_batch_size(prepared, fitting, amount)


def _with_batch_size(prepared: Prepared, batch: int, reason: str) -> Prepared:
    """Set the batch size, and the learning rate that follows from it where that is automatic."""
    prepared = prepared.choose("training.batch_size", batch, reason)
    if prepared.is_explicit("optimization.learning_rate"):
        return prepared
    config = parse.with_settings(prepared.config, {"optimization.learning_rate": AUTO})
    others = (c for c in prepared.choices if c.setting != "optimization.learning_rate")
    chooser = Chooser(config, others)
    auto.choose_training(chooser, prepared.counts("train"))
    return dataclasses.replace(prepared, config=chooser.config, choices=tuple(chooser.choices))
