"""Metrics, images and numbers -> formatted values for templates and terminals."""

from __future__ import annotations

import base64
import io
import math
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup, escape

from residua.config.auto import Choice, is_explicit, value_of
from residua.config.parse import all_settings, field_of
from residua.config.schema import Config
from residua.data.dataset import Pixels
from residua.evaluation.metrics import MAJORITY, ClassMetrics, Metrics
from residua.runs.folder import REPORT, RunFolder
from residua.system.console import short_count
from residua.system.words import agreeing, at_least, counted, decimals, percent

if TYPE_CHECKING:
    from residua.evaluation.score import Evaluation
    from residua.evaluation.slices import Slice
    from residua.uncertainty.calibration import Calibration
    from residua.uncertainty.unknown import UnknownDetector


THUMBNAIL = 128  # largest side of an image inside the HTML, in pixels
MAP = 800  # side of the heat map that replaces a large confusion matrix, in pixels
# Controls, and the halves of undecodable file names: HTML forbids them
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
CONFUSIONS = 8  # pairs of classes that are listed
TABLE = 40  # classes up to which the confusion matrix is a table of counts


@dataclass(frozen=True)
class Confusion:
    """Images of one class predicted as another. support: images of the true class."""

    truth: str
    predicted: str
    count: int
    support: int


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion table: its count, CSS classes, opacity of the background."""

    count: int
    style: str
    opacity: float


@cache
def templates() -> Any:
    """The jinja2 environment of the package's templates; it escapes all text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("residua"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda *args: percent(*args).replace(" ", "\u00a0"),
        "at_least": lambda share: at_least(share, 1).replace(" ", "\u00a0"),
        "duration": duration,
        "image": data_uri,
        "number": number,
        "short": short_count,
        "integer": "{:,}".format,
        "counted": counted,
        "agreeing": agreeing,
        "among": images_text,
        "unmeasured": unmeasured_text,
        "sentence": slice_text,
        "code": code,
    }
    return environment


def code(text: str) -> Markup:
    """A text, escaped, with what is in backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def allowed(html: str) -> str:
    """HTML with replacement characters for those that it may not contain."""
    return _FORBIDDEN.sub("\ufffd", html)


def confusions(metrics: Metrics, classes: Sequence[str]) -> list[Confusion]:
    """The most frequent confusions, largest count first, then largest share of the class."""
    matrix = metrics.confusion
    confusions = [
        Confusion(
            classes[row],
            classes[column],
            int(matrix[row, column]),
            metrics.per_class[row].support,
        )
        for row, column in zip(*np.nonzero(matrix), strict=True)
        if row != column
    ]
    confusions.sort(key=lambda pair: (-pair.count, pair.support, pair.truth, pair.predicted))
    return confusions[:CONFUSIONS]


def confusion_cells(metrics: Metrics) -> list[list[Cell]] | None:
    """The cells of the confusion matrix; None beyond TABLE classes.

    No opacity is between 0.66 and 0.88, where neither dark nor white numbers would reach a contrast
    of 4.5 (WCAG 2.1, 1.4.3).
    """
    if len(metrics.confusion) > TABLE:
        return None
    return [
        [_cell(int(count), score.support, row == column) for column, count in enumerate(counts)]
        for row, (score, counts) in enumerate(
            zip(metrics.per_class, metrics.confusion, strict=True)
        )
    ]


def confusion_map(metrics: Metrics) -> str | None:
    """The confusion matrix as a heat map on a transparent background; None up to TABLE classes."""
    classes = len(metrics.confusion)
    if classes <= TABLE:
        return None
    shares = metrics.confusion / np.maximum(metrics.confusion.sum(axis=1, keepdims=True), 1)
    cells = np.zeros((classes, classes, 4), np.uint8)
    cells[..., :3] = (201, 76, 6)
    cells[np.arange(classes), np.arange(classes), :3] = (47, 111, 222)
    cells[..., 3] = np.round(255 * np.sqrt(shares))  # makes one error in fifty visible
    side = max(1, MAP // classes)
    return data_uri(
        cells.repeat(side, axis=0).repeat(side, axis=1), side=max(MAP, classes), kind="png"
    )


def majority_accuracy(evaluation: Evaluation) -> float:
    """The accuracy of predicting one class for all images: the largest class of the training set;
    where that is not known, of the evaluated images."""
    largest = max(score.support for score in evaluation.metrics.per_class)
    return evaluation.baselines.get(MAJORITY, largest / evaluation.metrics.images)


def weakest(metrics: Metrics) -> list[ClassMetrics]:
    """Classes by ascending F1; those without images come last."""
    return sorted(
        metrics.per_class,
        key=lambda score: (score.f1 is None, score.f1 or 0.0, -score.support, score.name),
    )


def most_instructive(
    truth: Iterable[int], predicted: Iterable[int], probability: Iterable[float], most: int
) -> list[int]:
    """Indices for a grid: wrong predictions, the surest first, then a quarter of correct ones, of
    each class in turn."""
    pairs = list(zip(truth, predicted, strict=True))
    wrong = [index for index, (label, guess) in enumerate(pairs) if label != guess]
    turns: Counter[int] = Counter()
    right: list[tuple[int, int]] = []
    for index, (label, guess) in enumerate(pairs):
        if label == guess:
            right.append((turns[label], index))
            turns[label] += 1
    right.sort()
    known = [value if math.isfinite(value) else -1.0 for value in probability]
    wrong.sort(key=lambda index: (-known[index], index))
    reserved = min(len(right), max(most // 4, most - len(wrong)))
    return wrong[: most - reserved] + [index for _, index in right[:reserved]]


def data_uri(
    pixels: Pixels, side: int = THUMBNAIL, kind: Literal["png", "jpeg"] | None = None
) -> str:
    """An image uint8 [H, W, C], C 1, 3 or 4 (PNG), as a data URI, shrunk to `side` pixels.

    kind: None: JPEG for what has more than 64 pixels a side, PNG for the exact pixels of the rest.
    """
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    kind = kind or ("jpeg" if min(pixels.shape[:2]) > 64 else "png")
    image.save(stream, kind, optimize=kind == "png", quality=80)
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def duration(seconds: float) -> str:
    """Seconds as "48.3 s", "3 min 12 s" or "2 h 05 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def number(value: float | None) -> str:
    """A figure with three digits, more where less than 1 would be shown as 1; nothing where there
    is none, "n/a" where it is not finite."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "n/a"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if value >= 1 or float(text) < 1)


def accuracy_text(metrics: Metrics) -> str:
    """Accuracy, interval and images: "0.9500 (95 % CI 0.9010 to 0.9760, 120 images)"."""
    low, high = metrics.interval
    images = images_text(metrics.images, metrics.groups)
    value, low_text, high_text = (decimals(share, 4) for share in (metrics.accuracy, low, high))
    return f"{value} (95 % CI {low_text} to {high_text}, {images})"


def images_text(images: int, groups: int) -> str:
    """Evaluated images, and their groups if some belong together: "120 images in 96 groups"."""
    return counted(images, "image") + (f" in {counted(groups, 'group')}" if groups < images else "")


def evaluation_text(evaluation: Evaluation, unreadable: bool = True) -> str:
    """Metrics, also of each class, as lines for a terminal. unreadable: list these files too."""
    metrics = evaluation.metrics
    best = metrics.informative_top5
    top5 = "" if best is None else f", top-5 {decimals(best, 4)}"
    split = "" if evaluation.split == "all" else f"{evaluation.split} "
    width = max(len("class"), *(len(score.name) for score in metrics.per_class))
    lines = [
        f"{split}accuracy {accuracy_text(metrics)}{top5}, loss {metrics.loss:.4f}",
        *([evaluation.caveat] if evaluation.caveat else []),
        *(
            f"{name} {decimals(value, 4)} (95 % CI {decimals(low, 4)} to {decimals(high, 4)})"
            for name, value, (low, high) in (
                ("balanced accuracy", metrics.balanced_accuracy, metrics.balanced_interval),
                ("macro F1", metrics.macro_f1, metrics.macro_f1_interval),
            )
        ),
        f"{'class':<{width}}  precision  recall  {'(95 % CI)':<14}{'F1':>8}  images",
    ]
    for score in metrics.per_class:
        precision, recall, f1 = (
            "-" if value is None else decimals(value, 3)
            for value in (score.precision, score.recall, score.f1)
        )
        bounds = score.recall_interval
        interval = "-" if bounds is None else " to ".join(decimals(bound, 3) for bound in bounds)
        lines.append(
            f"{score.name:<{width}} {precision:>10}{recall:>8}  {interval:<14}{f1:>8}"
            f"{score.support:>8,}"
        )
    lines += [slice_text(entry) for entry in evaluation.slices]
    if unreadable:
        lines += [f"not readable: {path}: {reason}" for path, reason in evaluation.unreadable]
    return "\n".join(lines)


def finished_text(run: RunFolder, split: str, scores: Mapping[str, Any]) -> str:
    """The line that `resume` prints for a finished run. scores: of scores.json, if it exists."""
    accuracy = f"{split} accuracy {decimals(scores['accuracy'], 4)}, " if scores else ""
    return (
        f"{run.path} is finished and was not changed: {accuracy}report {run.path / REPORT}. "
        f"To train further: {shlex.join(_further_training(run))}"
    )


def _further_training(run: RunFolder) -> list[str]:
    """The words of a command that trains further on the same splits of the same data."""
    from residua.transfer.result import TOO_FEW_ERRORS

    config, choices = run.config, run.choices
    words = ["residua", "train", config.data.path]
    for name in all_settings():
        concerns_data = name.startswith("data.") and name not in ("data.path", "data.cache")
        if concerns_data or name == "training.seed":
            words += _option(config, choices, name)
    chosen = [choice.reason for choice in choices if choice.setting == "transfer.strategy"]
    more_time_helps = chosen and not chosen[0].endswith(TOO_FEW_ERRORS)
    is_probe = config.transfer.strategy == "features"
    if is_probe and more_time_helps and config.transfer.effort != "best":
        return [*words, *_option(config, choices, "network.weights"), "--effort", "best"]
    return [*words, "--weights", str(run.path), "--transfer", "full", "--epochs", "10"]


def _option(config: Config, choices: Collection[Choice], name: str) -> list[str]:
    """A setting as words of a command; none if it is automatic or the default."""
    value, field = value_of(config, name), field_of(name)
    if not is_explicit(config, choices, name) or value == field.default:
        return []
    flag = field.metadata["flag"]
    return [flag, str(value)] if flag else ["--set", f"{name}={value}"]


def slice_text(entry: Slice) -> str:
    """One sentence about images in which the accuracy is significantly lower."""
    low, high = entry.interval
    p_text = "< 0.001" if entry.p_value < 0.001 else f"= {entry.p_value:.2g}"
    return (
        f"{entry.description}: accuracy {percent(entry.accuracy, 1)} on "
        f"{counted(entry.images, 'image')} ({percent(low, 1)} to {percent(high, 1)}), "
        f"{percent(entry.elsewhere, 1)} on the others (p {p_text}; interval and p allow for the "
        f"{counted(entry.examined, 'slice')} examined)"
    )


def _cell(count: int, support: int, hit: bool) -> Cell:
    share = count / max(support, 1)
    style = "hit" if hit else "miss"
    if share >= 0.6:
        return Cell(count, f"{style} deep", 0.88 + 0.3 * (share - 0.6))
    return Cell(count, style, 0.08 + 0.58 * math.sqrt(share / 0.6))


def unmeasured_text(calibration: Calibration) -> str:
    """A statement about probabilities whose calibration error means too little."""
    wrong = agreeing(calibration.errors, "is", "are")
    return (
        f"not measured, {calibration.reason}: {calibration.errors:,} of "
        f"{counted(calibration.images, 'prediction')} {wrong} wrong, mean probability of the "
        f"predicted class {percent(calibration.confidence, 1)}"
    )


def unknown_text(detector: UnknownDetector | None, classes: int) -> str:
    """A statement about images of none of the classes, as far as it was measured."""
    if detector is None:
        return "An image of none of the classes is still assigned to one of them."
    rate = percent(detector.false_alarm_rate)
    alarms = f"On average, at most {rate} of images of the known classes are reported as unknown."
    if detector.auroc is None:
        reason = (
            "with two classes, none can be left out"
            if classes <= 2
            else "the network was trained on all classes, so none can be left out"
        )
        return (
            "The share of images of none of the classes that is reported as unknown was not "
            f"measured: {reason}. {alarms}"
        )
    number = counted(detector.left_out, "class", "classes")
    left_out = f"{number} that {agreeing(detector.left_out, 'was', 'were')} left out in turn"
    if not detector.tested:  # of few images, or of a run of 0.1.0
        return (
            f"The share of images of {left_out} that is reported as unknown was not measured "
            f"(AUROC {detector.auroc:.3f}). {alarms}"
        )
    return (
        f"Of the images of {left_out}, {percent(detector.reported / detector.tested)} "
        f"({detector.reported:,} of {detector.tested:,}) are reported as unknown (AUROC "
        f"{detector.auroc:.3f}). {alarms} Images of other kinds of classes were not tested."
    )
