"""The report and its figures: self-contained, escaped, honest, whole in odd cases."""

from __future__ import annotations

import base64
import io
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from residua.config.auto import Choice
from residua.errors import ResiduaError
from residua.evaluation.metrics import compute_metrics
from residua.evaluation.score import Evaluation
from residua.networks.analysis.cost import Counts
from residua.report import fonts
from residua.report.facts import ClassCount, DataFacts, ReportFacts
from residua.report.html import render, write
from residua.system.words import percent
from residua.transfer.result import (
    CrossValidation,
    DataSummary,
    LayerResult,
    Scenario,
    TransferResult,
    TrialResult,
)

VOID = {"meta", "img", "br"}
FOREIGN = ["雪鸮", "بومة الثلج", "นกเค้าแมว", "שלג", "снежная", "ψαρόνι"]


class Page(HTMLParser):
    """Elements, texts and styles of a document; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.styles = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag in {"td", "th"}:
            self.text += " "

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


CAVEAT = "optimistic, because the validation set was also used for model selection"


def row(epoch: int, **more: float | None) -> dict[str, float | None]:
    plain = {"epoch": epoch, "loss": 2 / epoch, "accuracy": 1 - 0.8 / epoch, "learning_rate": 0.1}
    return {**plain, "val_loss": 2.2 / epoch, "val_accuracy": 0.9 - 0.7 / epoch, **more}


def make(
    classes: list[str] | None = None,
    images: int = 30,
    size: int = 16,
    split: Literal["test", "validation"] = "test",
) -> ReportFacts:
    """Facts without curves, which take time to draw."""
    names = classes or ["egret", "owl", "puffin"]
    random = np.random.default_rng(0)
    labels = random.integers(0, len(names), images)
    logits = random.normal(size=(images, len(names))).astype(np.float32)
    logits[np.arange(images), labels] += 1.5
    pixels = random.integers(0, 256, (images, size, size, 3), np.uint8)
    counts = [ClassCount(name, 40, 10, 10) for name in names]
    metrics = compute_metrics(logits, labels, names)
    return ReportFacts(
        title="birds",
        network="cifar_resnet20",
        cost=Counts(272_474, 270_906, 1_568, 41_000_000, 0),
        input=(3, 16, 16),
        data=DataFacts("data/birds", "a folder of class folders", 180, counts, [("a.jpg", "cut")]),
        history=[],
        evaluation=Evaluation(
            split,
            metrics,
            tuple(names),
            ("a.png",) * images,
            labels,
            logits,
            pixels,
            (),
            CAVEAT * (split == "validation"),
        ),
        choices=[Choice("training.epochs", "12", "few images")],
        environment={"device": "cpu", "threads": 2, "precision": "fp32"},
        seconds=75.4,
        train_command="residua train data/birds",
        predict_command="residua predict runs/birds-1 IMAGE",
        best_epoch=2,
        samples=(pixels[:8], labels[:8].tolist()),
    )


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(replace(make(), history=[row(epoch) for epoch in (1, 2, 3)])))


def test_it_runs_no_script_and_makes_no_request(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "action", "data", "xlink:href"}:
                assert value is not None
                within = tag in {"a", "use"}
                assert value.startswith("#" if within else "data:image/png;base64,")
            elif value and "url(" in value:
                assert value.startswith("url(#")
    assert not re.search(r"url\(|@import|https?:|//", page.styles)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_links_within_the_page_have_targets(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.elements}
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links
    assert {link[1:] for link in links if link} <= ids


def test_the_navigation_names_every_section_in_its_order(page: Page) -> None:
    evaluation = make().evaluation
    assert evaluation is not None
    compared = replace(evaluation, baselines={"majority class": 0.8})
    for shown in (page, Page(render(replace(make(), evaluation=compared)))):
        sections = [a["id"] for tag, a in shown.elements if tag == "section" and a.get("id")]
        links = [a["href"] for tag, a in shown.elements if tag == "a"]
        assert links == [f"#{name}" for name in sections]


def test_the_headline_has_an_interval_and_warns_of_model_selection(page: Page) -> None:
    evaluation = make().evaluation
    assert evaluation is not None
    metrics = evaluation.metrics
    low, high = (percent(bound, 1) for bound in metrics.interval)
    assert (
        f"{metrics.correct} of 30 held-out test images are classified correctly: 95 % CI {low} to "
        f"{high}. They were never used for model selection."
    ) in page.words
    facts = replace(make(split="validation"), history=[row(1), row(2)])
    optimistic = Page(render(facts)).words
    assert "never used for model selection" not in optimistic
    assert f"This accuracy is {CAVEAT}." in optimistic
    below = replace(make(), evaluation=replace(evaluation, baselines={"majority class": 0.99}))
    assert (
        "Always predicting the largest class has a higher accuracy, 99.0 %."
        in Page(render(below)).words
    )


def test_a_probe_fitted_on_some_of_the_training_images_states_how_many(page: Page) -> None:
    assert "120 training images" in page.words
    probe = TransferResult(images=100, cross_validation=CrossValidation(0.9, (0.8, 0.95), 90, 100))
    assert "100 of 120 training images" in Page(render(replace(make(), transfer=probe))).words


def test_limits_name_what_the_accuracy_holds_for_and_its_interval(page: Page) -> None:
    facts = make()
    assert facts.evaluation is not None
    evaluation = facts.evaluation
    assert "The accuracy holds for images drawn like the 30 images of the test set." in page.words
    assert "Its 95 % confidence interval is Wilson's score interval. It covers" in page.words
    assert "3 of 3 classes have fewer than 20 evaluated images: egret, owl, puffin." in page.words
    groups = [str(number // 2) for number in range(30)]
    clustered = compute_metrics(evaluation.logits, evaluation.labels, facts.classes, groups)
    grouped = replace(facts, evaluation=replace(evaluation, metrics=clustered))
    words = Page(render(grouped)).words
    assert "drawn like the 30 images in 15 groups of the test set" in words
    assert "Wilson's score interval at the effective sample size" in words
    crossed = replace(facts, evaluation=replace(evaluation, split="cross-validation"))
    words = Page(render(replace(crossed, transfer=TRANSFER))).words
    assert "The expected accuracy holds for images drawn like these 30 images." in words
    assert "the models of cross-validation share training images" in words
    assert "accuracy holds" not in Page(render(replace(facts, evaluation=None))).words


def test_no_interval_of_a_recall_excludes_it_by_rounding() -> None:
    """199 of 200 are 99.5 %; the upper bound is 99.9 %, which is 99 % without a decimal."""
    labels = np.zeros(200, np.int64)
    logits = np.eye(2, dtype=np.float32)[np.arange(200) // 199]
    metrics = compute_metrics(logits, labels, ["egret", "owl"])
    facts = make(["egret", "owl"])
    assert facts.evaluation is not None
    facts = replace(facts, evaluation=replace(facts.evaluation, metrics=metrics))
    assert "99.5 % (97.2 to 99.9)" in Page(render(facts)).words.replace("\xa0", " ")


def test_the_majority_class_is_that_of_the_training_set_everywhere() -> None:
    facts = make()
    assert facts.evaluation is not None
    evaluation = replace(facts.evaluation, baselines={"majority class": 0.125})
    words = Page(render(replace(facts, evaluation=evaluation))).words.replace("\xa0", " ")
    assert "majority class 12.5 %" in words
    assert "12.5 %: majority-class baseline" in words


def test_all_facts_are_shown(page: Page) -> None:
    for fact in (
        "272,474", "270,906", "1,568", "41.0 M", "1 min 15 s", "a.jpg", "cut", "threads",
        "setting value reason training.epochs 12 few images", "residua train data/birds",
        "best epoch 2", "Validation, epoch 3: 66.7 %", "learning rate",
        "180 images in 3 classes: 120 training, 30 validation, 30 test; 1 unreadable file, "
        "0 with identical pixels.",
    ):  # fmt: skip
        assert fact in page.words


@pytest.mark.slow
def test_the_epoch_of_the_saved_weights_is_named() -> None:
    assert "The saved weights are those of epoch 2" in render(
        replace(make(), history=[row(1), row(2)])
    )
    text = render(replace(make(), history=[row(1)], best_epoch=0))
    assert "No epoch was better than the weights before fine-tuning, so these are saved" in text
    assert "those of epoch" not in text


def test_curves_state_the_precision_in_which_epochs_were_validated(page: Page) -> None:
    facts = replace(make(), history=[row(1)], environment={"precision": "bf16"})
    text = Page(render(facts)).words
    assert "Epochs were validated in bf16. All other accuracies" in text
    assert "Epochs were validated in" not in page.words  # fp32, as all accuracies


def test_class_names_cannot_inject_markup() -> None:
    evil = [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ facts }}",
        "a\u202eb",
    ]
    facts = replace(make([*evil, "a\udcffb\x00"]), title="</title><script>")
    text = render(facts)
    text.encode()
    page = Page(text)
    assert [tag for tag, _ in page.elements if tag == "script"] == []
    assert all("onerror" not in attributes for _, attributes in page.elements)
    for name in evil:
        assert name in page.text
    assert "a\ufffdb\ufffd" in page.text


def test_class_names_of_any_script_are_text_in_the_page() -> None:
    text = Page(render(make(FOREIGN))).text
    assert all(name in text for name in FOREIGN)


def test_right_and_wrong_differ_by_more_than_colour(page: Page) -> None:
    marks = [a.get("aria-label") for t, a in page.elements if t == "svg" and a.get("role")]
    frames = [c for _, a in page.elements if (c := a.get("class") or "") in ("right", "wrong")]
    assert [mark for mark in marks if mark in ("right", "wrong")] == frames
    assert frames == sorted(frames, reverse=True)  # wrong ones first
    assert {"right", "wrong"} <= set(frames)
    assert re.search(r"\.wrong \.frame \{[^}]*dashed", page.styles)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": None, "samples": None, "choices": []}
        | {"best_epoch": None, "environment": {}, "seconds": 0.0},
        {"history": [{"epoch": 1, "loss": 2.0, "accuracy": 0.1}]},
        {"history": [row(1), row(2, loss=float("nan"), val_loss=None), row(3, val_loss=4021.5)]},
        {"history": [row(1, loss=float("inf"), accuracy=None, val_accuracy=None)]},
        {"history": [{"epoch": e, "loss": float("nan")} for e in (1, 2)], "best_epoch": 9},
        {"history": [row(e, test_loss=1.0, test_accuracy=0.0) for e in range(1, 4)]},
        {"history": [row(1, loss=0.0, val_loss=0.0, accuracy=1.0, val_accuracy=1.0)]},
    ],
)
def test_odd_runs_have_a_report(changes: dict[str, object], tmp_path: Path) -> None:
    facts = replace(make(images=4), **changes)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write(facts, tmp_path) == ()
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert not re.search(r"\bnan\b|\binf\b|None|Undefined", page.text)
    assert not any("nan" in (a.get("d") or "") for _, a in page.elements)
    if not facts.evaluation:
        assert "Not evaluated: all images were used for training." in page.text


def test_one_class_and_many_classes() -> None:
    assert "1 class:" in Page(render(make(["only"]))).words
    assert "top-5" not in Page(render(make([f"kind {k}" for k in range(10)]))).text
    many = render(make([f"kind {k}" for k in range(200)], images=900))
    page = Page(many)
    assert "Confusion matrix of 200 classes" in many
    assert "180 more classes" in page.text
    assert "top-5 accuracy" in page.text
    assert len(many) < 1_500_000


def test_a_prediction_outside_the_classes_has_a_name() -> None:
    logits = np.zeros((2, 9), np.float32)
    logits[:, 8] = 1
    labels, classes = np.array([0, 1]), ("egret", "owl")
    metrics, pixels = compute_metrics(logits, labels, classes), np.zeros((2, 8, 8, 1), np.uint8)
    evaluation = Evaluation("all", metrics, classes, ("a", "b"), labels, logits, pixels, ())
    facts = replace(make(["egret", "owl"], images=2), evaluation=evaluation)
    assert "output 8" in Page(render(facts)).text


TRANSFER = TransferResult(
    layers=(LayerResult(3, 2, 256, 0.9, 0.8, 1.0, 0.3, abandoned=True),),
    cross_validation=CrossValidation(0.9, (0.8, 0.95), 58, training_images=59, skipped=1, errors=6),
    trials=(TrialResult("full", "trial", 2, 1.5, 30.0, 0.92, 0.02, 0.01, images=50),),
    expected={"full": 0.95},
    data=DataSummary(60, 3, 1.5, 8, 9),
    scenario=Scenario(None, None, is_large=False, is_similar=None, reason="few images"),
    chosen="full",
    reason="it gained 2.0 points",
)


def test_a_transfer_shows_its_probes_and_trials() -> None:
    words = Page(render(replace(make(split="validation"), transfer=TRANSFER))).words
    for text in (
        "Strategy full: it gained 2.0 points.",
        "stage 3, 2 x 2 256 90.0 % 80.0 % ≤ 0.3",
        "Strategies on the validation set: 50 images",
        "full trial 2 1.5 30.0 92.0 % +2.0 ± 1.0",
        "Extrapolated from the trials to the time left: full 95.0 %. Data: 60 training images, "
        "the largest class 1.5 times the smallest, median size 8 \u00d7 9 px.",
        f"This accuracy is {CAVEAT}.",
    ):
        assert text in words


def test_without_held_out_images_the_headline_is_cross_validated() -> None:
    facts = replace(make(), evaluation=None, transfer=TRANSFER)
    words = Page(render(facts)).words
    assert "90.0% expected accuracy" in words
    assert "6 of 58 images were misclassified by linear probes that were trained without" in words
    assert "95 % CI 80.0 % to 95.0 %, is that of a model trained on all of them, for new" in words
    assert "1 image without another of the same class is excluded." in words
    assert TRANSFER.cross_validation is not None
    more = replace(TRANSFER.cross_validation, training_images=500)
    words = Page(render(replace(facts, transfer=replace(TRANSFER, cross_validation=more)))).words
    assert "that of a model trained on that many of the 500 images, for new images" in words
    earlier = replace(TRANSFER.cross_validation, errors=None)
    words = Page(render(replace(facts, transfer=replace(TRANSFER, cross_validation=earlier)))).words
    assert "each of 58 images was classified by a linear probe that was trained without it" in words


@pytest.mark.slow
def test_files_are_whole_and_sensible(tmp_path: Path) -> None:
    facts = replace(make(size=8), history=[row(1), row(2)])
    write(facts, tmp_path)
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["confusion.png", "curves.png", "predictions.png", "report.html", "samples.png"]
    for path in tmp_path.glob("figures/*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert 380 <= image.width <= 2200
            assert 300 <= image.height <= 2200
            assert len(set(image.convert("L").get_flattened_data())) > 10
    (tmp_path / "file").touch()
    with pytest.raises(ResiduaError, match="file"):
        write(make(), tmp_path / "file")


def test_names_that_no_font_can_draw_give_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "installed", dict)
    facts = replace(make(FOREIGN, images=4), evaluation=None)
    (warning,) = write(facts, tmp_path)
    assert "雪鸮" in warning
    assert "雪鸮" in (tmp_path / "report.html").read_text("utf-8")


def test_images_keep_their_pixels_and_small_ones_stay_sharp() -> None:
    facts = make(size=8)
    images = [a for t, a in Page(render(facts)).elements if t == "img"]
    assert all(image.get("class") == "tiny" for image in images)
    content = base64.b64decode((images[-1]["src"] or "").split(",")[1])
    assert facts.samples is not None
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.asarray(image), facts.samples[0][7])
