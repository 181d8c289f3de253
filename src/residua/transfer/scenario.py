"""Data and measurements -> which of tutorial 3's four scenarios of transfer learning this is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from residua.data.prepared import Prepared
from residua.transfer.result import DataSummary, LayerResult, Scenario, TrialResult

LARGE = 1_000  # training images, from which on all layers of a network can be trained

NAMES = {  # (is_large, is_similar) -> number and name
    (False, True): (1, "small and similar: freeze the network, train a new head"),
    (False, False): (2, "small and different: freeze the first stages, train the rest"),
    (True, False): (3, "large and different: train from scratch"),
    (True, True): (4, "large and similar: fine-tune all layers"),
}


def data_summary(prepared: Prepared) -> DataSummary:
    """The training set in figures."""
    counts = [count for count in prepared.counts("train") if count]
    headers = [prepared.headers[index] for index in prepared.splits["train"]]
    sizes = [(header.width, header.height) for header in headers if header]
    widths, heights = zip(*sizes, strict=True)
    return DataSummary(
        images=sum(counts),
        classes=len(prepared.dataset.classes),
        imbalance=max(counts) / min(counts),
        width=statistics.median_low(widths),
        height=statistics.median_low(heights),
    )


def scenario_of(
    images: int, layers: Sequence[LayerResult], trials: Sequence[TrialResult]
) -> Scenario:
    """The scenario of `images` training images.

    Similar means that frozen features are at least as accurate as a network trained from scratch.
    Without such a trial it is unknown: the best layer alone does not show it.
    """
    is_large = images >= LARGE
    scratch = [trial for trial in trials if trial.strategy == "scratch"]
    if not scratch:
        best = min(layers, key=lambda layer: layer.loss)
        last = max(layer.stage for layer in layers)
        reason = (
            f"stage {best.stage} of {last} has the best features; no network was trained from "
            "scratch to compare with"
        )
        return Scenario(None, None, is_large, None, f"{images:,} training images; {reason}")
    probes = (trial.accuracy for trial in trials if trial.strategy == "features")
    features = max(probes, default=0.0)
    best_scratch = max(scratch, key=lambda trial: trial.accuracy)
    is_similar = features >= best_scratch.accuracy
    number, name = NAMES[is_large, is_similar]
    reason = (
        f"frozen features {features:.3f}, training from scratch {best_scratch.accuracy:.3f} after "
        f"{best_scratch.seconds:.0f} s: {name}"
    )
    return Scenario(number, name, is_large, is_similar, f"{images:,} training images; {reason}")
