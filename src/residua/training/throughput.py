"""A network and its batches -> its speed on this machine, and the epochs that fit a budget."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.config.auto import warmup_share
from residua.config.schema import Config
from residua.data.batches import Inputs
from residua.data.prepared import Prepared
from residua.data.random import Integers
from residua.networks.layers import draw_dropout_from
from residua.system.budget import Clock
from residua.system.device import autocast
from residua.system.words import percent
from residua.training.validation import forward
from residua.uncertainty.record import CALIBRATION_IMAGES, REFERENCE_IMAGES

STEPS = 3  # that are timed, after a warm-up step
EVAL_IMAGES = 32  # that are timed
MARGIN = 0.94  # of the time left is planned; speed varies
EPOCH_SECONDS = 0.02  # of an epoch, for what is neither training nor validation
REPORT_SECONDS = 5.0  # to check the data, explain predictions and write the report
VALIDATION_LIMIT = 1_000  # images that are evaluated after an epoch, where time is limited


@dataclass(frozen=True)
class Throughput:
    """Seconds.

    step: for a training step.
    evaluation: to evaluate an image as the batches hold it.
    full_evaluation: to evaluate an image from its pixels on.
    """

    step: float
    evaluation: float
    full_evaluation: float


def measure_throughput(network: nn.Module, batches: Inputs, config: Config) -> Throughput:
    """Time a copy of the network on its first batches; nothing is trained."""
    network = copy.deepcopy(network).train()
    device, precision = batches.device, config.training.precision
    draw_dropout_from(network, torch.Generator(device))
    times = []
    for step in range(min(STEPS + 1, max(2, batches.steps))):
        synchronize(device)
        began = time.perf_counter()
        batch = batches.batch(0, step % batches.steps)
        with autocast(device, precision):
            logits = forward(network, batch.images, batches.stages)
        loss = F.cross_entropy(logits.float(), batch.targets)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        synchronize(device)
        times.append(time.perf_counter() - began)
    network.eval()

    def evaluation_seconds(inputs: Callable[[], Tensor], stages: int) -> float:
        began = time.perf_counter()
        with torch.inference_mode(), autocast(device, precision):
            logits = forward(network, inputs(), stages)
        synchronize(device)
        return (time.perf_counter() - began) / len(logits)

    members = batches.members[:EVAL_IMAGES]
    evaluation = evaluation_seconds(lambda: batches.plain(members), batches.stages)
    full_evaluation = evaluation
    if batches.stages:
        preprocessing = config.preprocessing
        shape = (len(members), preprocessing.channels, preprocessing.size, preprocessing.size)
        images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
        full_evaluation = evaluation_seconds(lambda: images, 0)
    return Throughput(min(times[1:]), evaluation, full_evaluation)


@dataclass(frozen=True)
class Schedule:
    """Seconds: of an epoch with its validation, and of evaluation and report after training."""

    epoch: float
    finish: float


def measure_schedule(
    network: nn.Module, batches: Inputs, prepared: Prepared, eval_splits: Mapping[str, Integers]
) -> Schedule:
    """Measure the throughput; eval_splits: sample indices that are evaluated after each epoch."""
    validated = sum(map(len, eval_splits.values()))
    speed = measure_throughput(network, batches, prepared.config)
    return Schedule(
        epoch_seconds(speed, batches, prepared.config, validated),
        finishing_seconds(prepared, speed.full_evaluation),
    )


def validation_limit(clock: Clock) -> int:
    """Validation images that are evaluated after an epoch; 0: all."""
    return VALIDATION_LIMIT if clock.bounded else 0


def epoch_seconds(throughput: Throughput, batches: Inputs, config: Config, validated: int) -> float:
    """Seconds of an epoch with the validation of `validated` images."""
    evaluated = validated + min(config.training.precise_bn_images, len(batches.members))
    return batches.steps * throughput.step + evaluated * throughput.evaluation + EPOCH_SECONDS


def finishing_seconds(prepared: Prepared, image_seconds: float) -> float:
    """Seconds that evaluation and report take after training. image_seconds: of one image."""
    validation = len(prepared.splits["validation"])
    images = len(prepared.splits["test"]) or validation
    if validation and prepared.config.transfer.strategy != "features":  # for its calibration
        images += min(validation, CALIBRATION_IMAGES)
        images += min(len(prepared.splits["train"]), REFERENCE_IMAGES)
    return images * image_seconds * _FLOAT32 + REPORT_SECONDS


_FLOAT32 = 2.0  # factor of the time of the final evaluation, which is float32


def deadline(prepared: Prepared, clock: Clock, finish: float = 0.0) -> float | None:
    """time.monotonic() after which no epoch begins; None if the epochs are explicit.

    finish: seconds of the budget that evaluation and report need.
    """
    end = clock.at(1.0)
    return None if end is None or prepared.is_explicit("training.epochs") else end - finish


def plan_epochs(
    prepared: Prepared, seconds: float, epoch: float, batches: Inputs, *, whole: bool = False
) -> Prepared:
    """As many epochs of `epoch` seconds as fit into `seconds`, and no more than without a budget.

    Explicit epochs win. Where not even one fits, fewer images are trained on, unless `whole`.
    """
    fitting = seconds * MARGIN / epoch
    epochs = max(1, min(prepared.config.training.epochs, math.floor(fitting)))
    reason = f"{fitting:.1f} epochs fit into {seconds:.0f} s of the budget"
    prepared = with_epochs(prepared, epochs, reason)
    training = prepared.config.training
    if whole or fitting >= 1 or training.epochs != 1:
        return prepared
    count = len(batches.members)
    images = min(count, max(2 * training.batch_size, math.floor(fitting * count)))
    reason = f"{seconds:.0f} s of the budget are less than an epoch of all images"
    return prepared.choose("training.max_images", images, reason)


def with_epochs(prepared: Prepared, epochs: int, reason: str) -> Prepared:
    """Set the epochs, and the warm-up in proportion, where these are automatic."""
    prepared = prepared.choose("training.epochs", epochs, reason)
    config = prepared.config
    share = warmup_share(config.optimization.schedule)
    warmup = round(share * config.training.epochs, 2)
    return prepared.choose("optimization.warmup_epochs", warmup, f"{percent(share)} of the epochs")


def synchronize(device: torch.device) -> None:
    """Wait for a GPU, before the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
