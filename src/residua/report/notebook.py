"""A result -> the HTML or the figure that a notebook shows, by the templates of the report.

The HTML is self-contained: no scripts, no requests. Its styles apply to its own elements only.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from residua.audits.audit import Audit
from residua.config.schema import Data
from residua.data.dataset import Unreadable
from residua.data.image import decode
from residua.data.recognition import read_file
from residua.errors import ResiduaError
from residua.evaluation.explain import Explanation
from residua.evaluation.heat import overlay
from residua.evaluation.predictor import Prediction
from residua.evaluation.recorded import recorded_scores
from residua.evaluation.reliability import LEAST
from residua.evaluation.score import CROSS_VALIDATION, Evaluation
from residua.report import charts, figures, reliability_charts, view
from residua.report.audit_page import IN_REPORT, shown_findings
from residua.report.fonts import lettering
from residua.report.html import predictions_grid
from residua.report.page import Page
from residua.report.style import DPI, Drawing
from residua.runs.folder import RunFolder
from residua.system.files import user_path
from residua.training.progress import Progress
from residua.transfer.result import result_of

MOST = 24  # predictions or explanations that are shown
ERRORS = 12  # of a figure
SIDE = 160  # px: of a thumbnail
HEAT_SIDE = 320


class NotebookFigure(Figure):
    """A figure outside pyplot that a notebook shows, also without `%matplotlib inline`."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=DPI / 2)
        return stream.getvalue()


def run_html(run: RunFolder) -> str:
    """The accuracy and the curves of a run; the reason if its files cannot be read."""
    try:
        history = run.read_history()
        split, scores = recorded_scores(run)
        best = _best_epoch(run, history)
        return _html(
            "run",
            run=run,
            classes=run.classes,
            config=run.config,
            split=split,
            scores=scores,
            expected=result_of(run).kept_probe if split == CROSS_VALIDATION else None,
            is_finished=run.is_finished,
            charts=[charts.chart_svg(history, kind, best) for kind in charts.KINDS],
        )
    except ResiduaError as error:
        return _html("error", text=str(error))


def evaluation_html(evaluation: Evaluation) -> str:
    """Accuracy, confusion matrix, and classes."""
    return _html("evaluation", evaluation=evaluation)


def predictions_html(predictions: Sequence[Prediction]) -> str:
    """The images, if they are files, with bars, prediction sets and reasons to distrust."""
    shown = [(row, _thumbnail(row.file)) for row in predictions[:MOST]]
    return _html("predictions", shown=shown, more=len(predictions) - len(shown))


def explanations_html(explanations: Sequence[Explanation]) -> str:
    """Each image beside its heat map."""
    shown = []
    for row in explanations[:MOST]:
        images = () if row.error else (row.pixels, overlay(row.pixels, row.heat))
        shown.append((row, [view.data_uri(pixels, HEAT_SIDE, "jpeg") for pixels in images]))
    return _html("explanations", shown=shown, more=len(explanations) - len(shown))


def audit_html(audit: Audit) -> str:
    """The findings with some of their images."""
    return _html("audit", audit=audit, shown=shown_findings(audit, IN_REPORT))


def page_html(page: Page) -> str:
    """The findings and tables of a comparison."""
    return _html("page", page=page)


def history_figure(run: RunFolder) -> Figure:
    """Both charts of a run. Raises ResiduaError without a history."""
    history = run.read_history()
    if not history:
        raise ResiduaError(
            f"{run.path}: has no history to plot: no epoch is complete, or it is a linear probe."
        )
    best = _best_epoch(run, history)
    return _figure(charts.both_charts(history, run.config.network.name, best))


def confusion_figure(evaluation: Evaluation) -> Figure:
    """The confusion matrix."""
    letters = lettering(evaluation.classes)
    return _figure(figures.confusion(evaluation.metrics.confusion, letters))


def predictions_figure(evaluation: Evaluation) -> Figure:
    """Images with their predictions: errors first, the most confident first."""
    return _figure(predictions_grid(evaluation, ERRORS, lettering(evaluation.classes)))


def reliability_figure(evaluation: Evaluation) -> Figure:
    """The reliability diagram and the selective curve. Raises ResiduaError without either."""
    reliability = evaluation.reliability
    if reliability is None:
        raise ResiduaError(
            f"{evaluation.split}: has no probabilities of its {len(evaluation.classes)} classes to "
            f"plot: fewer than {LEAST} images have finite ones, or the network has more outputs."
        )
    return _figure(reliability_charts.both_charts(reliability))


def _figure(drawing: Drawing) -> Figure:
    canvas = NotebookFigure(figsize=drawing.inches, layout="constrained", facecolor="white")
    drawing.on(canvas)
    return canvas


def _best_epoch(run: RunFolder, history: Sequence[dict[str, float]]) -> int | None:
    """The epoch of the saved weights; None where the initial weights may be better."""
    config, progress = run.config, Progress()
    if config.transfer.strategy not in (None, "none", "scratch"):
        return None
    for row in history:
        progress.improve({"val_loss": math.nan, **row}, config.training.select, int(row["epoch"]))
    return progress.best_epoch or None


def _thumbnail(file: str) -> str:
    """The image of a file as a data URI; "" if there is no such file, or it cannot be read."""
    try:
        path = user_path(file)
        if not path.is_file():
            return ""
        pixels = np.ascontiguousarray(decode(read_file(path), 3, Data.max_pixels))
        return view.data_uri(pixels, SIDE, "jpeg")
    except (OSError, ValueError, ResiduaError, Unreadable):
        return ""


def _html(kind: str, **values: object) -> str:
    return view.html(f"notebook_{kind}", styles=_styles(), **values)


@cache
def _styles() -> Markup:
    """The styles of the report for the elements below .residua, also in the themes of notebooks."""
    environment = view.templates()
    names = ("report.css.j2", "study.css.j2", "notebook.css.j2")
    text = "\n".join(environment.get_template(name).render() for name in names)
    light, dark = re.findall(r":root \{(.*?)\}", text, re.S)[:2]
    text = re.sub(r"(?m)(^|[ ,])(?::root|body)(?= \{)", r"\1&", text)
    light_theme = '[data-jp-theme-light="true"] &, .vscode-light &'
    dark_theme = '[data-jp-theme-light="false"] &, .vscode-dark &'
    themes = f"{light_theme} {{{light}}}\n{dark_theme} {{{dark}}}"
    return Markup(f".residua {{\n{text}\n{themes}\n}}")
