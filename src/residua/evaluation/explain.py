"""Weights and images -> for each image, where the evidence for a class is."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from residua.data.dataset import Pixels
from residua.errors import ResiduaError
from residua.evaluation.inputs import Inputs, read_batches
from residua.evaluation.metrics import class_name as output_name
from residua.evaluation.predictor import predictor_of
from residua.evaluation.score import NOT_FINITE
from residua.inference.engine import Floats
from residua.inference.grad_cam import grad_cam
from residua.system.notebook import shown
from residua.uncertainty.softmax import softmax
from residua.weights.load import Weights
from residua.weights.network import default_device
from residua.weights.published.classes import class_indices


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the evidence for a class is in one image.

    file: see Prediction. class_name: the predicted class, or the requested one. probability: of
    this class, in [0, 1]. pixels: uint8 [S, S, C], as the network receives the image. heat: float32
    [S, S], from 0 to 1 at the strongest evidence; all 0 if there is no evidence for the class.
    error: why there is no explanation, or None; the other fields are then empty. unknown: see
    Prediction.
    """

    file: str
    class_name: str
    probability: float
    pixels: Pixels = field(repr=False)
    heat: Floats = field(repr=False)
    error: str | None = None
    unknown: str | None = None

    def _repr_html_(self) -> str:
        return str(shown("explanations_html", [self]))


class Explanations(list[Explanation]):
    """A list of explanations; a notebook shows it as images beside their heat maps."""

    def _repr_html_(self) -> str:
        return str(shown("explanations_html", self))


def explain_images(
    weights: Weights,
    inputs: Inputs,
    class_name: str | None = None,
    *,
    device: torch.device | None = None,
) -> Iterator[Explanation]:
    """An explanation for each image, in order, by Grad-CAM.

    class_name: explain this class; None: the predicted one. device: None: see `default_device`. An
    unreadable image yields its reason. Raises ResiduaError if the weights have no spatial map.
    """
    output = None if class_name is None else _output_of(class_name, weights)
    device, uncertainty = device or default_device(), weights.metadata.uncertainty
    explain = grad_cam(weights, device)
    has_detector = uncertainty is not None and uncertainty.unknown is not None
    predict = predictor_of(weights, device, 0) if has_detector else None
    for batch in read_batches(inputs):
        pixels = [image for _, image in batch if not isinstance(image, str)]
        if pixels:
            outputs = None if output is None else np.full(len(pixels), output, np.int64)
            stacked = np.stack(pixels)
            heats, logits = explain(stacked, outputs)
            reasons: list[str | None] = [None] * len(pixels)
            if predict is not None:
                reasons = [prediction.unknown for prediction in predict(stacked)]
            rows = iter(zip(heats, softmax(logits), reasons, strict=True))
        for file, image in batch:
            if isinstance(image, str):
                yield _failed(file, image)
                continue
            heat, chances, unknown = next(rows)
            if not np.isfinite(chances).all():
                yield _failed(file, NOT_FINITE)
                continue
            chosen = int(chances.argmax()) if output is None else output
            name = output_name(weights.metadata.classes, chosen)
            yield Explanation(file, name, float(chances[chosen]), image, heat, unknown=unknown)


def _failed(file: str, reason: str) -> Explanation:
    empty = np.zeros((0, 0, 1), np.uint8)
    return Explanation(file, "", 0.0, empty, np.zeros((0, 0), np.float32), reason)


def _output_of(name: str, weights: Weights) -> int:
    """The output of a class; names are compared in Unicode NFC. Raises ResiduaError."""
    indices = class_indices(weights.metadata.classes)
    key = unicodedata.normalize("NFC", name)
    if key not in indices:
        matches = difflib.get_close_matches(key, indices, n=6, cutoff=0.5)
        near = list({indices[match]: match for match in matches[::-1]}.values())[:-4:-1]
        known = ", ".join(weights.metadata.classes[:20])
        advice = f"Did you mean {', '.join(near)}?" if near else f"Expected one of {known}."
        raise ResiduaError(f"{weights.path}: has no class {name!r}. {advice}")
    return indices[key]
