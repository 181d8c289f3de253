"""The facts of a run as plain data -> one self-contained HTML file, and its figures as PNG files."""

from __future__ import annotations

import base64
import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residua import figures
from residua.charts import History, chart, percent
from residua.files import write_atomically
from residua.fonts import Lettering, lettering
from residua.scores import Scores

Pixels = npt.NDArray[np.uint8]

GRID = 24  # pictures in a grid of the HTML
FIGURE = 12  # and of a PNG figure
THUMBNAIL = 128  # largest side of a picture inside the HTML, in pixels
MAP = 800  # side of the heat map of more classes, in pixels
TABLE = 40  # classes up to which the confusion matrix is a table of numbers


@dataclass(frozen=True)
class NetworkFacts:
    """The network: parameter totals in Keras' sense, input [C, H, W], multiply-adds per picture."""

    name: str
    total: int
    trainable: int
    non_trainable: int
    input: tuple[int, int, int]
    multiply_adds: int


@dataclass(frozen=True)
class Choice:
    """A setting that was "auto": what it became and why."""

    setting: str
    value: str
    reason: str


@dataclass(frozen=True)
class ClassCount:
    """Readable pictures of one class in each part; the order of classes is that of the labels."""

    name: str
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class DataFacts:
    """The data set: where it is, what it was recognised as, its pictures, and what is odd in it.

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
        """Readable pictures of "train", "validation" or "test"."""
        return sum(int(getattr(own, part)) for own in self.classes)


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores of a part ("test", "validation", "all"); `chose`: whether it chose the epoch."""

    part: str
    scores: Scores
    chose: bool


@dataclass(frozen=True, eq=False)
class Samples:
    """Pictures uint8 [N, S, S, C], C 1 or 3, and their labels."""

    pixels: Pixels
    labels: Sequence[int]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Pictures uint8 [N, S, S, C] of a judged part, their labels, outputs and probabilities.

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
    rows as in history.csv. environment: name -> value. seconds: duration of the training.
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

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(own.name for own in self.data.classes)


@dataclass(frozen=True)
class Confusion:
    """Pictures of one class taken for another; `of` is how many pictures the class has."""

    truth: str
    predicted: str
    number: int
    of: int


def render(facts: ReportFacts) -> str:
    """The report as one HTML document that asks nothing of the network and runs no script."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("residua"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "duration": duration, "picture": data_uri, "number": _number
    }
    head = facts.judged[0] if facts.judged else None
    text = environment.get_template("report.html.j2").render(
        facts=facts,
        head=head,
        charts=[chart(facts.history, kind, facts.best_epoch) for kind in ("accuracy", "loss")],
        confusions=confusions(head.scores, facts.classes) if head else [],
        matrix=_matrix(head.scores) if head else None,
        confusion_map=_confusion_map(head.scores) if head else None,
        weakest=_weakest(head.scores) if head else [],
        macro_f1=_macro_f1(head.scores) if head else None,
        columns=[key for key in COLUMNS if any(row.get(key) is not None for row in facts.history)],
        shown=_selection(facts.predictions, GRID) if facts.predictions else [],
        most=max((own.train + own.validation + own.test for own in facts.data.classes), default=0),
        table=TABLE,
        name=lambda label: _name(facts.classes, label),
    )
    return "".join(map(_printable, text))


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


def confusions(scores: Scores, classes: Sequence[str], most: int = 8) -> list[Confusion]:
    """The most frequent mistakes, largest number first, then largest share of the class."""
    matrix = scores.confusion
    found = [
        Confusion(classes[row], classes[column], int(matrix[row, column]), _support(scores, row))
        for row, column in zip(*np.nonzero(matrix), strict=True)
        if row != column
    ]
    return sorted(found, key=lambda one: (-one.number, one.of, one.truth, one.predicted))[:most]


def duration(seconds: float) -> str:
    """Seconds as "48.3 s", "3 min 12 s" or "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def data_uri(pixels: Pixels, side: int = THUMBNAIL) -> str:
    """A picture uint8 [H, W, C], C 1, 3 or 4, as a PNG data URI, shrunk to `side` pixels."""
    from PIL import Image

    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _figures(facts: ReportFacts, letters: Lettering) -> dict[str, bytes]:
    """File stem -> PNG."""
    made = {"curves": figures.curves(facts.history, letters, f"{facts.network.name}")}
    if facts.samples is not None and len(facts.samples.pixels):
        own = facts.samples
        made["samples"] = figures.samples(own.pixels[:8], own.labels[:8], letters)
    if facts.judged:
        made["confusion"] = figures.confusion(facts.judged[0].scores.confusion, letters)
    if facts.predictions is not None and len(facts.predictions.pixels):
        shown = _selection(facts.predictions, FIGURE)
        made["predictions"] = figures.predictions(
            facts.predictions.pixels[shown],
            [facts.predictions.truth[index] for index in shown],
            [facts.predictions.predicted[index] for index in shown],
            [facts.predictions.probability[index] for index in shown],
            letters,
        )
    return made


def _selection(given: Predictions, most: int) -> list[int]:
    """Indices for a grid: wrong ones first, the surest first, but a quarter kept for right ones."""
    guesses = list(zip(given.truth, given.predicted, strict=True))
    wrong = [index for index, (truth, guess) in enumerate(guesses) if truth != guess]
    right = [index for index, (truth, guess) in enumerate(guesses) if truth == guess]
    wrong.sort(key=lambda index: (-_sure(given.probability[index]), index))
    kept = min(len(right), max(most // 4, most - len(wrong)))
    return wrong[: most - kept] + right[:kept]


def _sure(probability: float) -> float:
    return probability if math.isfinite(probability) else -1.0


def _confusion_map(scores: Scores) -> str | None:
    """The heat map of many classes: a picture with a transparent ground for both themes."""
    count = len(scores.confusion)
    if count <= TABLE:
        return None
    shares = scores.confusion / np.maximum(scores.confusion.sum(axis=1, keepdims=True), 1)
    cells = np.zeros((count, count, 4), np.uint8)
    cells[..., :3] = (178, 58, 6)
    cells[np.arange(count), np.arange(count), :3] = (47, 111, 222)
    cells[..., 3] = np.round(255 * np.sqrt(shares))
    cell = max(1, MAP // count)
    return data_uri(cells.repeat(cell, axis=0).repeat(cell, axis=1), side=max(MAP, count))


def _support(scores: Scores, label: int) -> int:
    return scores.per_class[label].support


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else f"output {label}"


def _printable(character: str) -> str:
    """U+FFFD for what HTML forbids: controls, and the halves of undecodable file names."""
    forbidden = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return "\ufffd" if forbidden else character
