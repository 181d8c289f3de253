"""Batches of the cached output of frozen stages are those of the images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import torch

from residua.data.augmentation import normalise
from residua.data.random import shuffled
from residua.system.budget import Clock
from residua.transfer import cached_batches
from residua.transfer.cached_batches import CachedBatches, FrozenBatches, batches_after
from residua.transfer.context import StrategyContext

UNCHANGED = {
    "augmentation__flip": False,
    "augmentation__rotation": 0,
    "augmentation__crop_padding": 0,
}


class ContextOf(Protocol):
    def __call__(
        self, data: Path, weights: Path, strategy: str, **settings: object
    ) -> StrategyContext: ...


def test_without_augmentation_the_maps_of_all_images_are_cached(
    shapes: Path, weights: Path, context_of: ContextOf
) -> None:
    context = context_of(shapes, weights, "none", network__freeze=2, **UNCHANGED)
    network, prepared = context.network().eval(), context.prepared
    batches, _ = batches_after(network, prepared, context.clock, context.console)
    images = prepared.training_batches()
    assert isinstance(batches, CachedBatches)
    assert batches.stages == 2
    assert (batches.steps, batches.labels is images.labels) == (images.steps, True)
    for epoch, step in ((0, 0), (1, batches.steps - 1)):
        cached, plain = batches.batch(epoch, step), images.batch(epoch, step)
        assert torch.equal(cached.labels, plain.labels)
        with torch.inference_mode():
            expected = network.between(plain.images, 0, 2)
        torch.testing.assert_close(cached.images, expected, rtol=1e-3, atol=1e-3)
    validation = prepared.splits["validation"]
    pixels = torch.from_numpy(np.asarray(prepared.pixels[validation]))
    with torch.inference_mode():
        expected = network.between(normalise(pixels, prepared.config.preprocessing), 0, 2)
    torch.testing.assert_close(batches.plain(validation), expected, rtol=1e-3, atol=1e-3)


def test_views_are_used_in_turn(shapes: Path, weights: Path, context_of: ContextOf) -> None:
    context = context_of(shapes, weights, "none", network__freeze=2, transfer__views=2)
    batches, _ = batches_after(context.network(), context.prepared, context.clock, context.console)
    assert isinstance(batches, CachedBatches)
    members = list(batches.members)
    for epoch, maps in ((0, batches.plain_maps), (4, batches.views[0]), (5, batches.views[1])):
        first = shuffled(0, epoch, batches.members)[0]
        assert torch.equal(batches.batch(epoch, 0).images[0], maps[members.index(first)])


@pytest.mark.parametrize(
    ("settings", "constant", "line"),
    [
        ({}, None, ""),  # random augmentation makes every epoch different
        (UNCHANGED, "MEMORY_SHARE", "do not fit: computed each time"),
        (UNCHANGED, "TIME_SHARE", "would take 0 s: computed each time"),
    ],
)
def test_otherwise_the_maps_are_computed_for_each_batch(
    shapes: Path,
    weights: Path,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    constant: str | None,
    line: str,
) -> None:
    context = context_of(shapes, weights, "none", network__freeze=2, **settings)
    clock = context.clock
    if constant:
        monkeypatch.setattr(cached_batches, constant, 0.0)
        clock = Clock(60.0 if constant == "TIME_SHARE" else math.inf)
    network, prepared = context.network().eval(), context.prepared
    batches, printed = batches_after(network, prepared, clock, context.console)
    assert isinstance(batches, FrozenBatches)
    images = prepared.training_batches().batch(3, 0)
    with torch.inference_mode():
        expected = network.between(images.images, 0, 2)
    batch = batches.batch(3, 0)
    assert torch.equal(batch.labels, images.labels)
    torch.testing.assert_close(batch.images, expected, rtol=1e-3, atol=1e-3)
    assert not batch.images.is_inference()
    assert line in printed
