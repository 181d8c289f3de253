"""Figures of images, predictions and confusion matrices, by their pixels."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from residua.evaluation.predict import Prediction
from residua.report import figures, fonts


def pixels_of(png: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def test_images_of_one_channel_make_a_figure() -> None:
    grey = np.zeros((1, 8, 8, 1), np.uint8)
    assert pixels_of(figures.samples(grey, [0], fonts.lettering(["a"])).png()).std() > 0


def test_settings_of_a_user_change_no_figure_and_figures_change_no_setting() -> None:
    import matplotlib

    grey, letters = np.zeros((1, 8, 8, 1), np.uint8), fonts.lettering(["a"])
    expected = figures.samples(grey, [0], letters).png()
    settings = {"text.usetex": True, "savefig.dpi": 30, "axes.titlesize": 40, "font.size": 3}
    with matplotlib.rc_context(settings):
        with ThreadPoolExecutor(4) as pool:
            drawn = list(pool.map(lambda _: figures.samples(grey, [0], letters).png(), range(4)))
        assert {name: matplotlib.rcParams[name] for name in settings} == settings
    assert set(drawn) == {expected}


def test_the_frames_of_a_figure_are_green_and_red_and_the_wrong_one_is_dashed() -> None:
    black = np.zeros((2, 8, 8, 3), np.uint8)
    letters = fonts.lettering(["a", "b"])
    truth, predicted, probability = np.array([0, 0]), np.array([0, 1]), np.array([0.9, 0.9])
    drawing = figures.predictions(black, truth, predicted, probability, letters)
    png = pixels_of(drawing.png()).astype(int)
    near = [np.abs(png - colour).sum(axis=2) < 30 for colour in ((26, 127, 75), (196, 50, 10))]
    green, red = (mask.sum() for mask in near)
    assert green > 1000
    assert 0.5 * green < red < 0.95 * green


@pytest.mark.slow
def test_a_confusion_figure_has_numbers_up_to_thirty_classes() -> None:
    for count in (1, 30, 31):
        letters = fonts.lettering([f"class {k}" for k in range(count)])
        png = pixels_of(figures.confusion(np.eye(count, dtype=np.int64) * 7, letters).png())
        blue = (png == figures.cell_colours(np.eye(count))[0, 0]).all(axis=2)
        rows = np.flatnonzero(blue.any(axis=1))
        # the white 7 on the first blue square
        first = png[rows[0] : rows[0] + max(len(rows) // count - 2, 1)]
        columns = np.flatnonzero(blue[rows[0] + 1])
        inside = first[:, columns.min() : columns.max()]
        assert ((inside == 255).all(axis=2).sum() > 5) == (count <= 30)


def test_a_prediction_grid_shows_class_probability_file_and_unknown_images(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), 128, np.uint8)
    shown = []
    for file, top, unknown in (
        ("a.png", ("owl", 0.9), None),
        ("b.png", ("owl", 0.9), None),
        ("a.png", ("owl", 0.6), None),
        ("a.png", ("owl", 0.9), "far from every class"),
    ):
        prediction = Prediction(file, (top,), unknown=unknown)
        assert figures.write_prediction_grid([(prediction, pixels)], tmp_path / "grid.png") is None
        shown.append(pixels_of((tmp_path / "grid.png").read_bytes()))
    assert all((shown[0] != other).any() for other in shown[1:])
    red = [(image == (0xC4, 0x32, 0x0A)).all(axis=2).sum() > 100 for image in shown]
    assert red == [False, False, False, True]


def test_a_prediction_grid_shows_readable_images_and_never_raises(tmp_path: Path) -> None:
    (tmp_path / "red.png").touch()
    pixels = np.full((8, 8, 3), (200, 10, 10), np.uint8)
    rows = [(Prediction("red.png", (("owl", 0.9),)), pixels)]

    def write(rows: list[tuple[Prediction, np.ndarray]], file: str) -> str | None:
        return figures.write_prediction_grid(rows, tmp_path / file)

    assert write(rows, "grid.png") is None
    red = (pixels_of((tmp_path / "grid.png").read_bytes()) == (200, 10, 10)).all(axis=2).sum()
    assert red > 1000
    assert "none of the files is readable" in (write(rows[1:], "none.png") or "")
    assert not (tmp_path / "none.png").exists()
    assert "cannot be written" in (write(rows, "red.png/grid.png") or "")
