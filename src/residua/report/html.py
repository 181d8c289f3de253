"""The facts of a run, plain data -> one self-contained HTML file, and its figures as PNG files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.config.auto import Choice
from residua.evaluation.metrics import Scores
from residua.report import figures, view
from residua.report.charts import History, chart, percent
from residua.report.fonts import Lettering, lettering
from residua.system.files import write_atomically

Pixels = npt.NDArray[np.uint8]

GRID = 24  # images in a grid of the HTML
FIGURE = 12  # and of a PNG figure
# Controls, and the halves of undecodable file names: HTML forbids them
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "rate",
    "seconds",
)


@dataclass(frozen=True)
class NetworkFacts:
    """The network: parameter totals in Keras' sense, input [C, H, W], multiply-adds per image."""

    name: str
    total: int
    trainable: int
    non_trainable: int
    input: tuple[int, int, int]
    multiply_adds: int


@dataclass(frozen=True)
class ClassCount:
    """Readable images of one class in each part; the order of classes is that of the labels."""

    name: str
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class DataFacts:
    """The data set: where it is, what it was recognised as, its images, and what is odd in it.

    unreadable: (path, reason). duplicates: exact ones, all beyond the first of a group.
    """

    path: str
    description: str
    found: int
    classes: Sequence[ClassCount]
    unreadable: Sequence[tuple[str, str]] = ()
    duplicates: int = 0
    warnings: Sequence[str] = ()

    def total(self, part: str) -> int:
        """Readable images of "train", "validation" or "test"."""
        return sum(int(getattr(own, part)) for own in self.classes)


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores of a part ("test", "validation", "all"); `chose`: whether it chose what is kept."""

    split: str
    scores: Scores
    chose: bool


@dataclass(frozen=True, eq=False)
class Samples:
    """Images uint8 [N, S, S, C], C 1 or 3, and their labels."""

    pixels: Pixels
    labels: Sequence[int]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Images uint8 [N, S, S, C] of a judged part, their labels, outputs and probabilities.

    A predicted output may lie beyond the classes. `paths` may be empty.
    """

    pixels: Pixels
    truth: Sequence[int]
    predicted: Sequence[int]
    probability: Sequence[float]
    paths: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class ReportFacts:
    """All that a report says; what is None or empty is left out of it.

    judged: the first one makes the headline. best_epoch: whose weights are kept, from 1. history:
    rows as in history.csv. environment: name -> value. seconds: duration of the training. transfer:
    what was measured to choose how to learn, as in transfer.json.
    """

    title: str
    network: NetworkFacts
    data: DataFacts
    history: History
    judged: Sequence[Judged]
    choices: Sequence[Choice]
    environment: Mapping[str, object]
    seconds: float
    train_command: str
    predict_command: str
    best_epoch: int | None = None
    samples: Samples | None = None
    predictions: Predictions | None = None
    transfer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(own.name for own in self.data.classes)


def render(facts: ReportFacts) -> str:
    """The report as one HTML document that asks nothing of the network and runs no script."""
    environment = view.templates()
    environment.filters |= {
        "percent": percent,
        "duration": view.duration,
        "image": view.data_uri,
        "number": view.number,
    }
    scores = facts.judged[0].scores if facts.judged else None
    text = environment.get_template("report.html.j2").render(
        facts=facts,
        head=facts.judged[0] if facts.judged else None,
        charts=[chart(facts.history, kind, facts.best_epoch) for kind in ("accuracy", "loss")],
        columns=[key for key in COLUMNS if any(row.get(key) is not None for row in facts.history)],
        confusions=view.confusions(scores, facts.classes) if scores else [],
        matrix=view.confusion_cells(scores) if scores else None,
        confusion_map=view.confusion_map(scores) if scores else None,
        weakest=view.weakest(scores) if scores else [],
        macro=scores.to_json()["macro"] if scores else None,
        shown=_shown(facts.predictions, GRID),
        most=max((own.train + own.validation + own.test for own in facts.data.classes), default=0),
        name=lambda label: _name(facts.classes, label),
    )
    return _FORBIDDEN.sub("\ufffd", text)


def write(facts: ReportFacts, folder: Path) -> tuple[str, ...]:
    """Write report.html and figures/*.png into `folder`, each file whole or not at all.

    Figures: curves, samples, predictions, confusion; those without data are left out. Returns
    sentences for the user: at most one, about class names that no installed font can write.
    Raises ResiduaError that names the file if it cannot be written.
    """
    letters = lettering(facts.classes)
    for name, content in _figures(facts, letters).items():
        write_atomically(folder / "figures" / f"{name}.png", content)
    write_atomically(folder / "report.html", render(facts))
    return (letters.warning,) if letters.warning else ()


def _figures(facts: ReportFacts, letters: Lettering) -> dict[str, bytes]:
    """File stem -> PNG."""
    made = {}
    if facts.history:
        made["curves"] = figures.curves(facts.history, letters, f"{facts.network.name}")
    if facts.samples is not None and len(facts.samples.pixels):
        own = facts.samples
        made["samples"] = figures.samples(own.pixels[:8], own.labels[:8], letters)
    if facts.judged:
        made["confusion"] = figures.confusion(facts.judged[0].scores.confusion, letters)
    if facts.predictions is not None and len(facts.predictions.pixels):
        shown = _shown(facts.predictions, FIGURE)
        made["predictions"] = figures.predictions(
            facts.predictions.pixels[shown],
            [facts.predictions.truth[index] for index in shown],
            [facts.predictions.predicted[index] for index in shown],
            [facts.predictions.probability[index] for index in shown],
            letters,
        )
    return made


def _shown(given: Predictions | None, most: int) -> list[int]:
    """Which predictions a grid shows, in which order."""
    if given is None:
        return []
    return view.most_instructive(given.truth, given.predicted, given.probability, most)


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else f"output {label}"
