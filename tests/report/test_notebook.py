"""Results in a notebook: self-contained, escaped HTML, light and dark; figures beside pyplot."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

import residua
from residua.evaluation.explain import Explanation, Explanations
from residua.evaluation.predictor import Prediction, Predictions
from residua.evaluation.score import Evaluation, EvaluationSet, evaluation_of
from residua.report.notebook import page_html
from residua.report.page import Page, Section, Table
from residua.runs.folder import RunFolder

HOSTILE = '<script>alert("1")</script>'
CLASSES = (HOSTILE, "snowy owl", "雪鸮")
VOID = {"img", "br", "path"}


class Fragment(HTMLParser):
    """The elements and the text of HTML that must be safe inside a notebook."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.styles = "", ""
        self.images: list[str] = []
        self.feed(html)
        assert self.open == [], "elements do not nest"
        assert "url(" not in self.styles
        assert "@import" not in self.styles

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "html", "body"), tag
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("data:", "#")), value
                self.images.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.styles += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Of 60 images in three classes, some of them misclassified."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    logits = generator.normal(size=(60, 3)) + 2 * np.eye(3)[labels]
    pixels = generator.integers(0, 256, (60, 8, 8, 3), np.uint8)
    paths = [f"{HOSTILE}/{row}.png" for row in range(60)]
    images = EvaluationSet("test", pixels, np.arange(60), labels, paths, [None] * 60)
    return evaluation_of(logits.astype(np.float32), images, CLASSES)


def test_an_evaluation_shows_its_accuracy_and_confusions(evaluation: Evaluation) -> None:
    shown = Fragment(evaluation._repr_html_())
    correct = int(np.trace(evaluation.metrics.confusion))
    assert f"{correct} of 60 images" in shown.text
    assert HOSTILE in shown.text
    assert "predicted as" in shown.text


def test_styles_apply_to_the_result_only(evaluation: Evaluation) -> None:
    styles = Fragment(evaluation._repr_html_()).styles.strip()
    depth, tops = 0, []
    for piece in re.split(r"([{}])", styles):
        if piece == "{":
            depth += 1
        elif piece == "}":
            depth -= 1
        elif depth == 0 and piece.strip():
            tops.append(piece.strip())
    assert tops == [".residua"]
    assert depth == 0
    assert not re.search(r"(^|[ ,])(:root|body) *\{", styles, re.M)
    assert "prefers-color-scheme: dark" in styles
    assert '[data-jp-theme-light="false"] &' in styles


def test_predictions_are_a_list_that_shows_images_bars_and_reasons(tmp_path: Path) -> None:
    Image.new("RGB", (500, 300), (200, 10, 10)).save(tmp_path / "red.png")
    rows = [
        Prediction(str(tmp_path / "red.png"), ((HOSTILE, 0.75), ("owl", 0.25)), set=("owl",)),
        Prediction("image 1", (("owl", 0.5),), set=(), unknown="far from all classes"),
        Prediction(f"{HOSTILE}.png", (), "is no image\x00"),
    ]
    predictions = Predictions(rows)
    assert predictions == rows
    assert isinstance(predictions, list)
    assert repr(predictions) == repr(rows)
    assert pickle.loads(pickle.dumps(predictions)) == rows
    assert json.dumps([row.to_json() for row in predictions])
    shown = Fragment(predictions._repr_html_())
    assert len(shown.images) == 1
    assert len(shown.images[0]) < 10_000
    for text in (HOSTILE, "75.0\xa0%", "far from all classes", "is no image", "no class"):
        assert text in shown.text
    assert "image 1" not in Fragment(rows[0]._repr_html_()).text
    many = Fragment(Predictions(rows * 40)._repr_html_())
    assert "96 more" in many.text
    assert "No predictions" in Fragment(Predictions()._repr_html_()).text


def test_a_run_shows_its_accuracy_and_curves_and_never_raises(run: RunFolder) -> None:
    result = residua.load(run.path)
    assert "residua.resume(" in Fragment(result._repr_html_()).text
    history = [
        {"epoch": e, "loss": 1 / e, "accuracy": 0.5, "val_loss": 1 / e, "val_accuracy": 0.25 * e}
        for e in (1, 2, 3)
    ]
    run.write_history(history)
    scores = {"accuracy": 0.75, "interval": [0.5, 0.9], "images": 12}
    run.write_json("evaluations/test/scores.json", scores)
    html = result._repr_html_()
    shown = Fragment(html)
    assert "Test accuracy 75.0\xa0% (95\xa0% CI 50.0\xa0% to 90.0\xa0%) on 12 images" in shown.text
    assert html.count("<svg") == 2
    assert "best epoch 3" in html
    run.write_text("config.yaml", "nonsense: [")
    assert "config.yaml" in Fragment(result._repr_html_()).text


def test_a_linear_probe_without_held_out_images_shows_the_accuracy_that_training_printed(
    run: RunFolder,
) -> None:
    run.write_split([replace(member, split="train") for member in run.read_split()])
    scores = {"accuracy": 1.0, "interval": [0.94, 1.0], "images": 60}
    run.write_json("evaluations/cross-validation/scores.json", scores)
    expected = {"accuracy": 0.99, "interval": [0.918, 1.0], "images": 60, "training_images": 60}
    run.write_json("transfer.json", {"cross_validation": expected})
    shown = Fragment(residua.load(run.path)._repr_html_())
    assert "99.0\xa0% (95\xa0% CI 91.8\xa0% to 100.0\xa0%) on 60 images" in shown.text
    assert "94.0" not in shown.text


def test_a_comparison_shows_findings_and_tables() -> None:
    table = Table("runs", "Runs", ("run", "accuracy %"), ((HOSTILE, 93.125),), 2)
    page = Page("a against b", "", "", [HOSTILE], [Section("Results", (), [table])])
    shown = Fragment(page_html(page))
    assert shown.text.count(HOSTILE) == 2
    assert "93.12" in shown.text


def test_an_audit_shows_its_findings(shapes: Path) -> None:
    audit = residua.audit(shapes, seconds=0)
    shown = Fragment(audit._repr_html_())
    assert audit.summary in shown.text
    for finding in audit.findings:
        assert finding.title in shown.text


def test_an_explanation_shows_the_image_and_its_heat_map() -> None:
    pixels = np.full((16, 16, 3), 90, np.uint8)
    heat = np.eye(16, dtype=np.float32)
    shown = Fragment(Explanation("a.png", HOSTILE, 0.5, pixels, heat)._repr_html_())
    first, second = shown.images
    assert first != second
    rows = Explanations([Explanation("a.png", HOSTILE, 0.5, pixels, heat)] * 2)
    assert Fragment(rows._repr_html_()).text.count(HOSTILE) == 2
    assert "array" not in repr(rows)
    failed = Explanation("a.png", "", 0.0, pixels[:0], heat[:0], "is damaged")
    assert "a.png: is damaged" in Fragment(failed._repr_html_()).text


@pytest.mark.slow
def test_figures_are_drawn_beside_pyplot(evaluation: Evaluation, run: RunFolder) -> None:
    run.write_history([{"epoch": 1, "loss": 1.0, "accuracy": 0.5}])
    own = pyplot.figure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that no installed font has
        settings = dict(matplotlib.rcParams)
        plots = (
            evaluation.plot_confusion,
            evaluation.plot_errors,
            evaluation.plot_reliability,
            residua.load(run.path).plot_history,
        )
        for plot in plots:
            figure = plot()
            assert isinstance(figure, Figure)
            assert figure.axes or figure.subfigs
            assert figure._repr_png_()[1:4] == b"PNG"  # type: ignore[attr-defined]
        assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == [own.number]
    assert pyplot.gcf() is own
    pyplot.close(own)


def test_a_run_without_epochs_has_no_history_to_plot(run: RunFolder) -> None:
    with pytest.raises(residua.ResiduaError, match="no history to plot"):
        residua.load(run.path).plot_history()
