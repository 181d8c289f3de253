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
from residua.evaluation.metrics import compute_metrics
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
        judged=[Judged(part, compute_metrics(logits, labels, names), chose)],
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


def test_grids_show_the_surest_mistakes_first_and_keep_room_for_right_ones() -> None:
    truth, guess = [0] * 8, [0, 1, 1, 1, 0, 1, 1, 1]
    sure = [0.9, 0.5, 0.7, 0.6, 0.4, float("nan"), 0.9, 0.2]
    assert most_instructive(truth, guess, sure, 4) == [6, 2, 3, 0]
    assert most_instructive(truth, guess, sure, 8) == [6, 2, 3, 1, 7, 5, 0, 4]


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
        judged=[Judged("all", compute_metrics(logits, np.array([0, 1]), ["egret", "owl"]), False)],
        predictions=Predictions(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], [8, 8], [0.3, 0.3]),
    )
    assert "output 8" in Page(render(facts)).text


def luminance(colour: npt.NDArray[np.float64]) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def channels(text: str) -> npt.NDArray[np.float64]:
    numbers = [int(text[i : i + 2], 16) for i in (1, 3, 5)] if text[0] == "#" else text.split()
    return np.array(numbers, float) / 255


def test_numbers_in_the_confusion_table_have_contrast(page: Page) -> None:
    """At least 4.5 to 1 in both themes (WCAG 2.1, 1.4.3), for every share and both colours."""
    found = re.findall(r"--(hit|miss|deep|paper|ink): ([^;]+);", page.styles)
    light, dark = dict(found[:5]), {**dict(found[:5]), **dict(found[5:7])}
    assert light["paper"] != dark["paper"]
    truth = np.arange(1000) % 2
    cells: list[Cell] = []
    for share in range(1, 501):
        logits = np.eye(2, dtype=np.float32)[truth]
        logits[: 2 * share] = logits[: 2 * share, ::-1]
        table = confusion_cells(compute_metrics(logits, truth, ["a", "b"]))
        assert table is not None
        cells += [cell for cell in table[0] if cell.number]
    for theme in (light, dark):
        for cell in cells:
            ground = channels(theme[cell.style.split()[0]]) * cell.strength
            ground += channels(theme["paper"]) * (1 - cell.strength)
            ink = channels(theme["deep" if "deep" in cell.style else "ink"])
            pair = sorted((luminance(ground), luminance(ink)))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (cell, theme["paper"])


def test_charts_place_values_and_keep_labels_apart() -> None:
    chart = charts.chart([row(e, test_loss=2.21 / e) for e in range(1, 11)], "loss", kept=4)
    assert chart is not None
    assert chart.title == "Training, validation and test loss"
    assert [line.last_text for line in chart.lines] == ["0.2", "0.22", "0.221"]
    labels = sorted(line.label_y for line in chart.lines)
    assert min(np.diff(labels)) >= charts.LABEL_GAP - 1e-9
    assert labels[0] >= charts.TOP
    assert labels[-1] <= charts.BOTTOM
    dots = chart.lines[0].dots
    assert dots[0].tooltip == "Training, epoch 1: 2"
    assert [dot.y for dot in dots] == sorted(dot.y for dot in dots)  # a falling loss goes down
    assert chart.kept is not None
    assert chart.kept.x == pytest.approx(dots[3].x)
    assert chart.x_ticks[0][1] == "1"


def test_gaps_and_a_logarithmic_axis() -> None:
    rows = [row(1, val_loss=4021.5), row(2, val_loss=None), row(3), row(4)]
    chart = charts.chart(rows, "loss")
    assert chart is not None
    assert chart.logarithmic
    assert chart.lines[1].path.count("M") == 2
    assert charts.chart([{"epoch": 1, "loss": float("nan")}], "loss") is None


def test_percent_never_rounds_to_certainty() -> None:
    assert charts.percent(0.9996) == "99 %"
    assert charts.percent(0.99996, 1) == "99.9 %"
    assert charts.percent(1.0) == "100 %"
    assert charts.percent(0.0001) == "<1 %"
    assert charts.percent(0.0) == "0 %"
    assert charts.percent(0.867, 1) == "86.7 %"
    assert [duration(s) for s in (4.26, 59.97, 192, 7500)] == [
        "4.3 s", "1 min 00 s", "3 min 12 s", "2 h 05 min"
    ]  # fmt: skip


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


def pixels_of(png: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def test_a_history_of_nothing_and_images_of_one_channel_make_figures() -> None:
    letters = fonts.lettering(["a"])
    assert pixels_of(figures.curves([], letters)).shape[2] == 3
    grey = np.zeros((1, 8, 8, 1), np.uint8)
    assert pixels_of(figures.samples(grey, [0], letters)).std() > 0


def test_the_frames_of_a_figure_are_green_and_red_and_the_wrong_one_is_dashed() -> None:
    black = np.zeros((2, 8, 8, 3), np.uint8)
    letters = fonts.lettering(["a", "b"])
    png = pixels_of(figures.predictions(black, [0, 0], [0, 1], [0.9, 0.9], letters)).astype(int)
    near = [np.abs(png - colour).sum(axis=2) < 30 for colour in ((26, 127, 75), (196, 50, 10))]
    green, red = (mask.sum() for mask in near)
    assert green > 1000
    assert 0.5 * green < red < 0.95 * green


def test_a_confusion_figure_has_numbers_up_to_thirty_classes() -> None:
    for count in (1, 30, 31, 100):
        letters = fonts.lettering([f"class {k}" for k in range(count)])
        png = pixels_of(figures.confusion(np.eye(count, dtype=np.int64) * 7, letters))
        blue = (png == figures.cell_colours(np.eye(count))[0, 0]).all(axis=2)
        rows = np.flatnonzero(blue.any(axis=1))
        # the white 7 on the first blue square
        first = png[rows[0] : rows[0] + max(len(rows) // count - 2, 1)]
        columns = np.flatnonzero(blue[rows[0] + 1])
        inside = first[:, columns.min() : columns.max()]
        assert ((inside == 255).all(axis=2).sum() > 5) == (count <= 30)


@pytest.fixture
def snow_font(tmp_path: Path) -> Iterator[Path]:
    """An outline font with the two characters of the first foreign name, both of them squares."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib import font_manager

    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for point in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "snow", "owl"])
    builder.setupCharacterMap({ord("雪"): "snow", ord("鸮"): "owl"})
    builder.setupGlyf({name: pen.glyph() for name in (".notdef", "snow", "owl")})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "snow", "owl"), (900, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Residua Snow", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    path = tmp_path / "snow.ttf"
    builder.save(path)
    known = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(path)
    yield path
    font_manager.fontManager.ttflist[:] = known


def test_a_font_that_has_the_names_is_found(
    snow_font: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "installed", lambda: {"Residua Snow": (str(snow_font), 0)})
    letters = fonts.lettering(["owl", "雪鸮"])
    assert letters == fonts.Lettering((fonts.BASE, "Residua Snow"), ("owl", "雪鸮"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of every missing glyph
        drawn = figures.samples(np.zeros((1, 8, 8, 3), np.uint8), [1], letters)
    bare = figures.samples(np.zeros((1, 8, 8, 3), np.uint8), [1], fonts.lettering(["owl", "owl"]))
    assert drawn != bare


def test_names_without_a_font_are_numbered_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "installed", dict)
    letters = fonts.lettering(["owl", "雪鸮", "นกเค้าแมว", "ψαρόνι"])
    assert letters.classes == ("owl", "class 1", "class 2", "ψαρόνι")
    assert letters.warning is not None
    for word in ("CJK", "Thai", "雪鸮", "fonts-noto-cjk", "fonts-noto-core"):
        assert word in letters.warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = write(make(FOREIGN), tmp_path)
    assert len(said) == 1
    assert "雪鸮" in (tmp_path / "report.html").read_text("utf-8")


def test_real_fonts_draw_every_name_without_a_missing_glyph() -> None:
    """With whatever fonts this machine has: a name is drawn or numbered, never boxes."""
    names = [*FOREIGN, "🦉", "a\u200db", "x\u2212y", "$x_1$", "a\udcff", "", "\n"]
    letters = fonts.lettering(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.samples(np.zeros((13, 8, 8, 3), np.uint8), range(13), letters)
    assert letters.name(9) == "$x_1$"
    assert letters.name(11) == "class 11"
    assert letters.name(99) == "output 99"


def test_long_names_are_cut() -> None:
    assert fonts.shorten("a" * 30, 10) == "a" * 9 + "…"
    assert fonts.shorten("雪" * 30, 10) == "雪" * 4 + "…"
    assert fonts.shorten("雪" * 5, 10) == "雪" * 5
    assert fonts.shorten("wood duck or so", 10) == "wood duck…"
