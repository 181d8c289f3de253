"""A run or weights, and images -> where the evidence for a class is, as a figure too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from residua.api.prediction import Source, check_grid, reading_of
from residua.data.value_range import ValueRange
from residua.evaluation.explain import Explanations, explain_images
from residua.evaluation.heat import overlay
from residua.evaluation.inputs import Images, inputs_of, several
from residua.evaluation.predictor import Prediction
from residua.networks.own import ModelLike
from residua.report.figures import GRID, write_prediction_grid
from residua.runs.sources import open_source
from residua.system.console import Console
from residua.system.files import user_path
from residua.weights.network import default_device


def explain(
    source: Source,
    images: Images | None = None,
    *,
    class_name: str | None = None,
    out: str | Path | None = None,
    model: ModelLike | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    value_range: ValueRange | None = None,
    device: str | None = None,
    quiet: bool = True,
) -> Explanations:
    """Where the evidence for a class is in each image, by Grad-CAM; one row per image, in order.

    source, model, classes, preprocessing, device, quiet: see `evaluate`. images, value_range: see
    `predict`. class_name: explain this class; None: the predicted one. out: a PNG file of the first
    32 images, each beside its heat map; an earlier one of residua is replaced.

    An unreadable image gets a row with the reason in `error`. Raises ResiduaError, also for weights
    without a map of places: an exported file, a network of your own, or one that reduces the images
    to a single place.
    """
    console, chosen = Console(quiet), default_device(device)
    weights, folder = open_source(source, model, classes, preprocessing, console)
    images = several(images)
    if out is not None:
        check_grid(out, images)
    inputs = inputs_of(images, reading_of(weights, folder, value_range))
    rows = Explanations(explain_images(weights, inputs, class_name, device=chosen))
    if out is not None:
        drawn = []
        for row in [row for row in rows if row.error is None][: GRID // 2]:
            top = ((row.class_name, row.probability),)
            prediction = Prediction(row.file, top, unknown=row.unknown)
            image = np.broadcast_to(row.pixels, (*row.pixels.shape[:2], 3))
            drawn += [(prediction, image), (prediction, overlay(row.pixels, row.heat))]
        if warning := write_prediction_grid(drawn, user_path(out)):
            console.caution(warning)
    return rows
