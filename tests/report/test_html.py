"""The report and its figures: self-contained, escaped, honest, whole in odd cases."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from residua.config.auto import Choice
from residua.errors import ResiduaError
from residua.evaluation.metrics import summarize
from residua.report import charts, figures, fonts
from residua.report.html import (
    ClassCount,
    DataFacts,
    Judged,
    NetworkFacts,
    Predictions,
    ReportFacts,
    Samples,
    render,
    write,
)
from residua.report.view import Cell, confusion_cells, duration, most_instructive

VOID = {"meta", "img", "br", "path", "circle"}
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

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def row(epoch: int, **more: float | None) -> dict[str, float | None]:
    plain = {"epoch": epoch, "loss": 2 / epoch, "accuracy": 1 - 0.8 / epoch, "rate": 0.1}
    return {**plain, "val_loss": 2.2 / epoch, "val_accuracy": 0.9 - 0.7 / epoch, **more}


def make(
    classes: list[str] | None = None, images: int = 60, size: int = 16, chose: bool = False
) -> ReportFacts:
    names = classes or ["egret", "owl", "puffin"]
    random = np.random.default_rng(0)
    labels = random.integers(0, len(names), images)
    logits = random.normal(size=(images, len(names))).astype(np.float32)
    logits[np.arange(images), labels] += 1.5
    guesses = logits.argmax(axis=1)
    pixels = random.integers(0, 256, (images, size, size, 3), np.uint8)
    part = "validation" if chose else "test"
    counts = [ClassCount(name, 40, 10, 10) for name in names]
    return ReportFacts(
        title="birds",
        network=NetworkFacts("cifar_resnet20", 272_474, 270_906, 1_568, (3, 16, 16), 41_000_000),
        data=DataFacts("data/birds", "a folder of class folders", 180, counts, [("a.jpg", "cut")]),
        history=[row(epoch) for epoch in range(1, 13)],
        judged=[Judged(part, summarize(logits, labels, names), chose)],
        choices=[Choice("training.epochs", "12", "few images")],
        environment={"device": "cpu", "threads": 2},
        seconds=75.4,
        train_command="residua train data/birds",
        predict_command="residua predict runs/birds-1 IMAGE",
        best_epoch=11,
        samples=Samples(pixels[:8], labels[:8].tolist()),
        predictions=Predictions(
            pixels, labels.tolist(), guesses.tolist(), [0.5] * images, ["a.png"] * images
        ),
    )


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(make()))


def test_it_asks_nothing_of_the_network_and_runs_no_script(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "action", "data", "xlink:href"}:
                assert value is not None
                assert value.startswith("#" if tag == "a" else "data:image/png;base64,")
    assert not re.search(r"url\(|@import|https?:|//", page.styles)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_links_within_the_page_arrive(page: Page) -> None:
    places = {attributes.get("id") for _, attributes in page.elements}
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links
    assert {link[1:] for link in links if link} <= places


def test_the_headline_says_what_was_judged_and_what_it_is_worth() -> None:
    facts = make()
    scores = facts.judged[0].scores
    low, high = (charts.percent(bound, 1) for bound in scores.interval)
    assert (
        f"Of 60 images never used for choosing, {scores.correct} were right; the true accuracy "
        f"lies between {low} and {high} with 95 % confidence."
    ) in Page(render(facts)).words
    optimistic = Page(render(make(chose=True))).words
    assert "never used for choosing" not in optimistic
    assert (
        "this part chose the epoch (11 of 12), so its figure is somewhat optimistic" in optimistic
    )


def test_all_facts_are_there(page: Page) -> None:
    for fact in (
        "272,474", "270,906", "1,568", "41,000,000", "1 min 15 s", "training.epochs",
        "few images", "a.jpg", "cut", "residua train data/birds", "epoch 11 kept", "threads",
        "Found 180 images in 3 classes; 120 for training, 30 for validation, 30 for test; "
        "1 unreadable, 0 exact duplicates.",
    ):  # fmt: skip
        assert fact in page.words


def test_names_are_text_and_cannot_do_harm() -> None:
    evil = [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ facts }}",
        "a\u202eb",
    ]
    facts = replace(make([*evil, "a\udcffb\x00"]), title="</title><script>")
    page = Page(render(facts))
    assert [tag for tag, _ in page.elements if tag == "script"] == []
    assert all("onerror" not in attributes for _, attributes in page.elements)
    for name in evil:
        assert name in page.text
    assert "a\ufffdb\ufffd" in page.text
    render(facts).encode()


def test_names_of_any_script_are_text_in_the_page() -> None:
    text = Page(render(make(FOREIGN))).text
    assert all(name in text for name in FOREIGN)


def test_right_and_wrong_differ_by_more_than_colour(page: Page) -> None:
    marks = [a.get("aria-label") for t, a in page.elements if t == "svg" and a.get("role")]
    frames = [c for _, a in page.elements if (c := a.get("class") or "") in ("right", "wrong")]
    assert [mark for mark in marks if mark in ("right", "wrong")] == frames
    assert frames == sorted(frames, reverse=True)  # wrong ones first
    assert {"right", "wrong"} <= set(frames)
    assert re.search(r"\.wrong \.frame \{[^}]*dashed", page.styles)


@pytest.mark.parametrize(
    "changes",
    [
        {"judged": [], "predictions": None, "samples": None, "choices": []},
        {"history": [], "best_epoch": None},
        {"history": [{"epoch": 1, "loss": 2.0, "accuracy": 0.1}]},
        {"history": [row(1), row(2, loss=float("nan"), val_loss=None), row(3, val_loss=4021.5)]},
        {"history": [row(1, loss=float("inf"), accuracy=None, val_accuracy=None)]},
        {"history": [{"epoch": e, "loss": float("nan")} for e in (1, 2)], "best_epoch": 9},
        {"history": [row(e, test_loss=1.0, test_accuracy=0.0) for e in range(1, 4)]},
        {"history": [row(1, loss=0.0, val_loss=0.0, accuracy=1.0, val_accuracy=1.0)]},
        {"environment": {}, "seconds": 0.0},
    ],
)
def test_odd_runs_have_a_report(changes: dict[str, object], tmp_path: Path) -> None:
    facts = replace(make(), **changes)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write(facts, tmp_path) == ()
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert not re.search(r"\bnan\b|\binf\b|None|Undefined", page.text)
    assert not any("nan" in (a.get("d") or "") for _, a in page.elements)
    if not facts.judged:
        assert "Not judged" in page.text


def test_one_class_and_many_classes() -> None:
    assert "1 class;" in Page(render(make(["only"]))).words
    many = render(make([f"kind {k}" for k in range(200)], images=900))
    page = Page(many)
    assert "Confusion matrix of 200 classes" in many
    assert "The other 180 classes" in page.text
    assert "among the top five" in page.text
    assert len(many) < 1_500_000


def test_an_answer_outside_the_classes_has_a_name() -> None:
    logits = np.zeros((2, 9), np.float32)
    logits[:, 8] = 1
    facts = make(["egret", "owl"], images=2)
    facts = replace(
        facts,
        judged=[Judged("all", summarize(logits, np.array([0, 1]), ["egret", "owl"]), False)],
        predictions=Predictions(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], [8, 8], [0.3, 0.3]),
    )
    assert "output 8" in Page(render(facts)).text


def test_files_are_whole_and_sensible(tmp_path: Path) -> None:
    write(make(size=8), tmp_path)
    found = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["confusion.png", "curves.png", "predictions.png", "report.html", "samples.png"]
    for path in tmp_path.glob("figures/*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert 380 <= image.width <= 2200
            assert 300 <= image.height <= 2200
            assert len(set(image.convert("L").get_flattened_data())) > 10
    again = (tmp_path / "figures" / "curves.png").read_bytes()
    write(make(size=8), tmp_path)
    assert (tmp_path / "figures" / "curves.png").read_bytes() == again
    (tmp_path / "file").touch()
    with pytest.raises(ResiduaError, match="file"):
        write(make(), tmp_path / "file")


def test_images_keep_their_pixels_and_small_ones_stay_squares() -> None:
    facts = make(size=8)
    images = [a for t, a in Page(render(facts)).elements if t == "img"]
    assert all(image.get("class") == "tiny" for image in images)
    content = base64.b64decode((images[-1]["src"] or "").split(",")[1])
    assert facts.samples is not None
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.asarray(image), facts.samples.pixels[7])


