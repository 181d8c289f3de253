"""A run, its data and its evaluation -> the facts of the report, and what is printed of them."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from residua.config.auto import Choice
from residua.config.schema import Preprocessing
from residua.data.dataset import Pixels, Unreadable
from residua.data.prepare import Prepared
from residua.data.random import shuffled
from residua.errors import ResiduaError
from residua.evaluation.predict import Prediction, read_input
from residua.evaluation.score import Evaluation, softmax
from residua.networks.analysis.cost import measure
from residua.networks.analysis.shapes import on_meta
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo.catalogue import build_from
from residua.report import figures, html
from residua.report.fonts import lettering
from residua.runs.folder import RunFolder
from residua.system.files import write_atomically
from residua.training.progress import Progress

SAMPLES = 24
GRID = 64  # images of `predict --grid`


def write_report(
    folder: RunFolder,
    prepared: Prepared,
    judged: Evaluation | None,
    progress: Progress,
    measured: Mapping[str, Any],
) -> Sequence[str]:
    """Write report.html and figures/*.png of a finished run; sentences for the user.

    measured: what a transfer has measured, as in transfer.json.
    """
    config, data = prepared.config, prepared.config.data
    first = shuffled(config.training.seed, 0, prepared.splits["train"])[:SAMPLES]
    run = shlex.quote(str(folder.path))
    facts = html.ReportFacts(
        title=prepared.dataset.name,
        network=_network(prepared),
        data=_data(prepared),
        history=progress.history,
        judged=_judged(judged, folder),
        choices=[Choice(**each) for each in folder.read_json("choices.json")],
        environment={
            key: " ".join(value) if isinstance(value, list) else value
            for key, value in folder.read_json("environment.json").items()
        }
        | {"precision": config.training.precision, "seed": config.training.seed}
        | ({"started from": config.network.weights} if _has_weights(prepared) else {}),
        seconds=progress.seconds,
        train_command=f"residua train {shlex.quote(data.path)} --recipe {run}/config.yaml",
        predict_command=f"residua predict {run} IMAGE_OR_FOLDER",
        best_epoch=progress.best_epoch or None,
        samples=html.Samples(
            prepared.pixels[first], [int(each) for each in prepared.labels[first]]
        ),
        predictions=_predictions(judged),
        transfer=measured,
    )
    return html.write(facts, folder.path)


def _has_weights(prepared: Prepared) -> bool:
    config = prepared.config
    return bool(config.network.weights) and config.transfer.strategy != "scratch"


def scores_text(found: Evaluation) -> str:
    """The figures of an evaluation and its classes, for a terminal."""
    scores = found.scores
    low, high = scores.interval
    top5 = "" if scores.top5 is None else f", top-5 {scores.top5:.4f}"
    wide = max(len("class"), *(len(each.name) for each in scores.per_class))
    lines = [
        f"{found.split}: accuracy {scores.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"
        f"{top5}, loss {scores.loss:.4f}, {scores.images:,} images",
        f"{'class':<{wide}}  precision  recall      F1  images",
    ]
    for each in scores.per_class:
        cells = (each.precision, each.recall, each.f1)
        said = "".join(f"{'-' if cell is None else format(cell, '.3f'):>8}" for cell in cells)
        lines.append(f"{each.name:<{wide}} {said[0:10]:>10}{said[8:]}{each.support:>10,}")
    lines += [f"left out: {path}: {reason}" for path, reason in found.unreadable]
    return "\n".join(lines)


def write_prediction_grid(
    preprocessing: Preprocessing,
    rows: Sequence[Prediction],
    file: Path,
    max_pixels: int,
    allow_private: bool,
) -> str | None:
    """Draw the first 64 readable images, as the network sees them, under their likeliest classes.

    Returns a warning where no font has a name, or why there is no grid: what was predicted is worth
    more than its image.
    """
    images: list[Pixels] = []
    names: list[str] = []
    for row in rows:
        if row.error or len(names) == GRID:
            continue
        with contextlib.suppress(Unreadable):  # gone or changed since it was predicted
            images.append(read_input(row.file, preprocessing, max_pixels, allow_private))
            names.append(row.top[0][0])
    if not names:
        return f"{file}: no image to draw: none of the files could be read."
    distinct = list(dict.fromkeys(names))
    letters = lettering(distinct)
    labels = [distinct.index(name) for name in names]
    try:
        write_atomically(file, figures.samples(np.stack(images), labels, letters))
    except ResiduaError as error:
        return str(error)
    return letters.warning


def _network(prepared: Prepared) -> html.NetworkFacts:
    network, preprocessing = prepared.config.network, prepared.config.preprocessing
    with on_meta():
        built = build_from(prepared.config.network_spec)
    strategy = prepared.config.transfer.strategy
    if strategy == "features":
        freeze(built, len(built.stages))
    elif strategy != "scratch":
        freeze(built, network.freeze)
    size = (preprocessing.channels, preprocessing.size, preprocessing.size)
    cost = measure(built, size)
    return html.NetworkFacts(
        network.name, cost.total, cost.trainable, cost.non_trainable, size, cost.multiply_adds
    )


def _data(prepared: Prepared) -> html.DataFacts:
    counts = [prepared.counts(part) for part in prepared.splits]
    names = prepared.dataset.classes
    return html.DataFacts(
        path=prepared.config.data.path,
        description=prepared.dataset.description,
        found=len(prepared.members),
        classes=[html.ClassCount(*row) for row in zip(names, *counts, strict=False)],
        unreadable=prepared.unreadable,
        duplicates=prepared.duplicates,
        warnings=prepared.notes,
    )


def _judged(judged: Evaluation | None, folder: RunFolder) -> list[html.Judged]:
    if judged is None:
        return []
    chose = judged.split == "validation" and folder.selected_on_validation
    return [html.Judged(judged.split, judged.scores, chose)]


def _predictions(judged: Evaluation | None) -> html.Predictions | None:
    if judged is None:
        return None
    chances = softmax(judged.logits)
    return html.Predictions(
        judged.pixels,
        judged.labels.tolist(),
        chances.argmax(1).tolist(),
        chances.max(1).tolist(),
        judged.paths,
    )
