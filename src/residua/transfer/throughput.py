"""A network and its inputs -> how fast it learns here, and so how many epochs a budget holds."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from residua.config.auto import warmup_share
from residua.data.batches import Inputs
from residua.networks.staged import Staged
from residua.system.device import autocast
from residua.training.validation import logits_from
from residua.transfer.context import Job, synchronise

STEPS = 3  # that are timed, after one that warms up
MARGIN = 0.94  # of the time left is planned; a machine is not always equally fast
CLOSE = 2.0  # of the time of judging: close decisions are taken anew in float32
REPORT_SECONDS = 2.5  # to write the report and its figures
JUDGED = 1_000  # validation images that judge an epoch, where time is limited


@dataclass(frozen=True)
class Pace:
    """Seconds: of a training step, of judging an image, and of judging it from its pixels on."""

    step: float
    judged: float
    whole: float


def pace_of(job: Job, network: Staged, inputs: Inputs, cut: int) -> Pace:
    """Measure a copy of the network on its first batches; nothing is learnt."""
    own = copy.deepcopy(network).train()
    device, precision = inputs.device, job.prepared.config.training.precision
    times = []
    for step in range(min(STEPS + 1, max(2, inputs.steps))):
        synchronise(device)
        began = time.perf_counter()
        batch = inputs.batch(0, step % inputs.steps)
        with torch.random.fork_rng(), autocast(device, precision):
            logits = logits_from(own, batch.images, cut)
        loss = F.cross_entropy(logits.float(), batch.targets)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        synchronise(device)
        times.append(time.perf_counter() - began)
    some = inputs.members[:32]
    own.eval()

    def judging(x: Tensor, cut: int) -> float:
        began = time.perf_counter()
        with torch.inference_mode(), autocast(device, precision):
            logits_from(own, x, cut)
        synchronise(device)
        return (time.perf_counter() - began) / len(some)

    judged = whole = judging(inputs.plain(some), cut)
    if cut:
        seen = job.prepared.config.preprocessing
        shape = (len(some), seen.channels, seen.size, seen.size)
        images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
        whole = judging(images, 0)
    return Pace(min(times[1:]), judged, whole)


def epochs_within(job: Job, pace: Pace, inputs: Inputs, judged: int, seconds: float) -> float:
    """How many epochs, each with its validation of `judged` images, fit into so many seconds."""
    statistics = min(job.prepared.config.training.precise_bn_images, len(inputs.members))
    epoch = inputs.steps * pace.step + (judged + statistics) * pace.judged + 0.02
    return seconds / epoch


def finishing(job: Job, whole: float) -> float:
    """Seconds that judging and reporting take after the training. whole: see Pace."""
    parts = job.prepared.splits
    images = len(parts["test"]) or len(parts["validation"])
    return images * whole * CLOSE + REPORT_SECONDS


def predicted_seconds(job: Job, pace: Pace, inputs: Inputs, judged: int) -> float:
    """What a training of as many epochs as the settings say would take."""
    epochs = job.prepared.config.training.epochs
    return epochs / epochs_within(job, pace, inputs, judged, 1.0)


def deadline(job: Job) -> float | None:
    """After which no epoch begins, of time.monotonic(); an explicit number of epochs wins."""
    return None if job.is_given("training.epochs") else job.clock.at(1.0)


def in_time(
    job: Job, pace: Pace, inputs: Inputs, judged: int, share: float, *, whole: bool = False
) -> Job:
    """As many epochs as a share of what is left of the budget holds, and not more than usual.

    share: below 0, all that judging and reporting leave. judged: images that judge each epoch. An
    explicit number of epochs wins. Where not even one epoch fits, fewer images take part, unless
    they are to remain whole.
    """
    left = job.clock.left
    seconds = max(0.0, left * share if share >= 0 else left - finishing(job, pace.whole))
    fitting = epochs_within(job, pace, inputs, judged, seconds * MARGIN)
    epochs = max(1, min(job.prepared.config.training.epochs, math.floor(fitting)))
    job = with_epochs(job, epochs, f"{seconds:.0f} s of the budget hold {fitting:.1f} epochs")
    config = job.prepared.config
    if whole or fitting >= 1 or config.training.epochs != 1:
        return job
    count = len(inputs.members)
    some = min(count, max(2 * config.training.batch_size, math.floor(fitting * count)))
    return job.decided("training.max_images", some, f"{seconds:.0f} s do not hold one epoch of all")


def with_epochs(job: Job, epochs: int, reason: str) -> Job:
    """So many epochs, and the warm-up that belongs to them, where these are automatic."""
    job = job.decided("training.epochs", epochs, reason)
    config = job.prepared.config
    share = warmup_share(config.optimization.schedule)
    warmup = round(share * config.training.epochs, 2)
    return job.decided("optimization.warmup_epochs", warmup, f"{share:.0%} of the epochs")
