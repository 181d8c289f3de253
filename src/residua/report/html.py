"""The facts of a run -> one self-contained HTML file, and its figures as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from residua.evaluation.metrics import class_name
from residua.report import charts, figures, reliability_charts, view
from residua.report.fonts import Lettering, lettering
from residua.report.style import Drawing
from residua.runs.folder import HISTORY
from residua.system.files import write_atomically

if TYPE_CHECKING:
    from residua.evaluation.score import Evaluation
    from residua.report.facts import ReportFacts

SAMPLES = 8  # images of samples.png
GRID = 24  # predictions in the HTML
FIGURE = 12  # and in predictions.png
COLUMNS = tuple(name for name in HISTORY if name != "images_per_second")  # of the epochs' table


def write(facts: ReportFacts, folder: Path) -> tuple[str, ...]:
    """Write report.html and figures/*.png into `folder`, each file whole or not at all.

    Figures: curves, samples, predictions, confusion; those without data are left out. Returns
    warnings: at most one, about class names that no installed font can draw. Raises ResiduaError
    that names a file that cannot be written.
    """
    letters = lettering(facts.classes)
    for name, drawing in _figures(facts, letters).items():
        write_atomically(folder / "figures" / f"{name}.png", drawing.png())
    write_atomically(folder / "report.html", render(facts))
    return (letters.warning,) if letters.warning else ()


def render(facts: ReportFacts) -> str:
    """The report as one HTML document without scripts or requests to the network."""
    counts = [count.train + count.validation + count.test for count in facts.data.classes]
    svgs = [charts.chart_svg(facts.history, kind, facts.best_epoch) for kind in charts.KINDS]
    return view.html(
        "report",
        facts=facts,
        classes=facts.classes,
        charts=[svg for svg in svgs if svg],
        columns=[key for key in COLUMNS if any(row.get(key) is not None for row in facts.history)],
        shown=view.most_instructive(facts.evaluation, GRID) if facts.evaluation else [],
        reliability=facts.evaluation.reliability if facts.evaluation else None,
        diagram=reliability_charts.reliability_diagram,
        selective=reliability_charts.selective_curve,
        largest=max(counts, default=0),
        name=lambda label: class_name(facts.classes, label),
    )


def _figures(facts: ReportFacts, letters: Lettering) -> dict[str, Drawing]:
    """File stem -> figure."""
    drawings = {}
    if facts.history:
        drawings["curves"] = charts.both_charts(facts.history, facts.network, facts.best_epoch)
    if facts.samples and facts.samples[1]:
        pixels, labels = facts.samples
        drawings["samples"] = figures.samples(pixels[:SAMPLES], labels[:SAMPLES], letters)
    if facts.evaluation:
        drawings["confusion"] = figures.confusion(facts.evaluation.metrics.confusion, letters)
        drawings["predictions"] = predictions_grid(facts.evaluation, FIGURE, letters)
    return drawings


def predictions_grid(evaluation: Evaluation, most: int, letters: Lettering) -> Drawing:
    """At most `most` images with their predictions: errors first, the most confident first."""
    shown = view.most_instructive(evaluation, most)
    predicted, confidence = evaluation.predicted[shown], evaluation.confidence[shown]
    pixels, truth = evaluation.pixels[shown], evaluation.labels[shown]
    return figures.predictions(pixels, truth, predicted, confidence, letters)
