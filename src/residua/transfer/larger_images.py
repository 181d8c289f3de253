"""A linear probe -> one on larger images, if there are more pixels and that is better.

Objects appear larger in random crops, which a network is trained on, than in whole images. So it is
more accurate on images larger than those of its training (Touvron et al. 2019, "Fixing the
train-test resolution discrepancy", arXiv:1906.06423).
"""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time

import numpy as np

from residua.data.prepare import with_size
from residua.errors import ResiduaError
from residua.evaluation.cross_validated import CrossValidated
from residua.inference.features import positions
from residua.runs.folder import RunFolder
from residua.transfer.context import StrategyContext, StrategyOutcome
from residua.transfer.linear_probe import fit_probe

FACTOR = 9 / 7  # of the size in training: 288 px for 224; at 320 px it was not better again
LEAST_ERRORS = 4  # of the probe in cross-validation, below which a gain would not show
SHARE = 0.4  # of the time left, for the features


def probe_on_larger_images(
    context: StrategyContext, probe: StrategyOutcome, folder: RunFolder
) -> tuple[StrategyContext, StrategyOutcome] | None:
    """A probe with a lower cross-validated loss than `probe`, and its inputs; its files are in
    `folder`. None if there is none, or time or memory do not suffice.

    Raises Interrupted after a signal.
    """
    size, clock, console = larger_size(context), context.clock, context.console
    members, crossed = len(context.prepared.training_members), probe.cross_validated
    if size is None or crossed is None or probe.result.images != members:
        return None
    if int((~crossed.correct[crossed.evaluated]).sum()) < LEAST_ERRORS:
        return None
    own_size = context.prepared.config.preprocessing.size
    seconds = members * probe.result.seconds_per_image * (size / own_size) ** 2
    if clock.bounded and seconds > SHARE * clock.left:
        return None
    console.print(
        f"linear probe at {size} px: about {seconds:.0f} s; Ctrl-C ends with the best so far"
    )
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir(parents=True)
    try:
        deadline = time.monotonic() + 2 * SHARE * clock.left if clock.bounded else None
        larger = _with_size(context, size)
        outcome = fit_probe(larger, folder, deadline=deadline, final=False)
    except (ResiduaError, RuntimeError, MemoryError, ValueError) as error:
        console.warn(f"{size} px skipped: {' '.join(str(error).split())}")
        return None
    if outcome.cross_validated is None or outcome.result.images != members:
        return None
    before, after = _losses(crossed, outcome.cross_validated, context)
    console.print(f"cross-validated loss {before:.4f} at {own_size} px, {after:.4f} at {size} px")
    return (larger, outcome) if after < before else None


def larger_size(context: StrategyContext) -> int | None:
    """A larger size worth trying, px; None if the size is explicit or is not that of the weights'
    training, or the images have fewer pixels."""
    prepared, weights = context.prepared, context.weights
    size = prepared.config.preprocessing.size
    if weights is None or prepared.is_explicit("preprocessing.size"):
        return None
    if size != weights.metadata.preprocessing.size:
        return None
    larger = round(FACTOR * size)
    sides = [min(header.width, header.height) for header in prepared.headers if header]
    return larger if statistics.median_low(sides) >= larger else None


def _with_size(context: StrategyContext, size: int) -> StrategyContext:
    own_size = context.prepared.config.preprocessing.size
    reason = f"a lower cross-validated loss than at {own_size} px"
    prepared = with_size(context.prepared, size, reason, context.console)
    larger = dataclasses.replace(context, prepared=prepared, scores={})
    return larger.for_strategy("features").with_extractor()


def _losses(
    first: CrossValidated, second: CrossValidated, context: StrategyContext
) -> tuple[float, float]:
    """The mean cross-validated losses of both on the images that both were evaluated on."""
    common = np.intersect1d(first.samples[first.evaluated], second.samples[second.evaluated])
    labels = context.prepared.labels[common]

    def loss(crossed: CrossValidated) -> float:
        rows = positions(crossed.samples, common)
        return -float(crossed.logits[rows, labels].mean())

    return loss(first), loss(second)
