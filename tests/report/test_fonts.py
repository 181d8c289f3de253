"""Class names of any script are drawn with an installed font, or numbered."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from residua.report import figures, fonts

FOREIGN = ["雪鸮", "بومة الثلج", "นกเค้าแมว", "שלג", "снежная", "ψαρόνι"]


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
        drawn = figures.samples(np.zeros((1, 8, 8, 3), np.uint8), [1], letters).png()
    bare = figures.samples(
        np.zeros((1, 8, 8, 3), np.uint8), [1], fonts.lettering(["owl", "owl"])
    ).png()
    assert drawn != bare


def test_names_without_a_font_are_numbered_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fonts, "installed", dict)
    letters = fonts.lettering(["owl", "雪鸮", "นกเค้าแมว", "ψαρόνι"])
    assert letters.classes == ("owl", "class 1", "class 2", "ψαρόνι")
    assert letters.warning is not None
    for word in ("CJK", "Thai", "雪鸮", "fonts-noto-cjk", "fonts-noto-core"):
        assert word in letters.warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.samples(np.zeros((4, 8, 8, 3), np.uint8), range(4), letters).png()


def test_real_fonts_draw_every_name_without_a_missing_glyph() -> None:
    """With whatever fonts this machine has: a name is drawn or numbered, never boxes."""
    names = [*FOREIGN, "🦉", "a\u200db", "x\u2212y", "$x_1$", "a\udcff", "", "\n"]
    letters = fonts.lettering(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.samples(np.zeros((13, 8, 8, 3), np.uint8), range(13), letters).png()
    assert letters.name(9) == "$x_1$"
    assert letters.name(11) == "class 11"
    assert letters.name(99) == "output 99"


def test_long_names_are_shortened_by_their_width() -> None:
    assert fonts.shorten("a" * 30, 10) == "a" * 9 + "…"
    assert fonts.shorten("雪" * 30, 10) == "雪" * 4 + "…"
    assert fonts.shorten("雪" * 5, 10) == "雪" * 5
    assert fonts.shorten("wood duck or so", 10) == "wood duck…"
