"""A thumbnail fits on a shifted, scaled or mirrored copy of itself, and on no other."""

from __future__ import annotations

import numpy as np
import pytest
from references.scenes import scene

from residua.data.alignment import SIDE, align
from residua.data.near_duplicates import MATCH, thumbnails_of

LARGE = scene(0, 120)


def thumbnail(box: tuple[int, int, int, int]) -> np.ndarray:
    return thumbnails_of(np.asarray(LARGE.crop(box))[None])


def fit_of(first: np.ndarray, second: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Each of the second thumbnails fitted on the one of the same position."""
    count = len(first)
    pairs = np.stack([np.arange(count), count + np.arange(count)], axis=1)
    return align(np.concatenate([first, second]), pairs, np.full(count, mirrored))


@pytest.mark.parametrize(
    "box", [(8, 0, 120, 120), (0, 0, 108, 114), (6, 6, 114, 114), (0, 12, 120, 120)]
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_fits_its_original_also_when_mirrored(
    box: tuple[int, int, int, int], mirrored: bool
) -> None:
    copy = thumbnail(box)
    copy = copy[:, :, ::-1] if mirrored else copy
    correlation, detail = fit_of(thumbnail((0, 0, 120, 120)), copy, mirrored)
    assert correlation[0] > 0.95
    assert detail[0] > 0.85


def test_gain_and_offset_do_not_matter() -> None:
    image = thumbnail((0, 0, 120, 120))
    darker = (image * 0.6 + 20).astype(np.uint8)
    assert fit_of(image, darker)[0, 0] > 0.99


def test_different_images_do_not_fit() -> None:
    others = np.concatenate([thumbnails_of(np.asarray(scene(n))[None]) for n in range(1, 21)])
    image = np.repeat(thumbnail((0, 0, 120, 120)), 20, axis=0)
    assert image.shape == (20, SIDE, SIDE)
    _, detail = fit_of(image, others)
    assert detail.max() < 0.5


def test_the_same_outline_on_black_does_not_fit() -> None:
    """As in scans of different patients: a bright rim on black, and low contrast within it."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    radius = np.hypot(x, y)
    rim = np.where((radius > 0.85) & (radius < 0.93), 200.0, 0.0)
    tissues = [60 + 0.5 * (np.asarray(scene(n).convert("L")) - 128.0) for n in range(11)]
    images = [np.where(radius <= 0.85, tissue, rim).astype(np.uint8) for tissue in tissues]
    scans = np.concatenate([thumbnails_of(image[None, ..., None]) for image in images])
    first = np.repeat(scans[:1], 10, axis=0)
    correlation, detail = fit_of(first, scans[1:])
    assert correlation.min() > 0.9
    assert detail.max() < MATCH[1]
    darker = (scans * 0.7).astype(np.uint8)
    assert fit_of(scans, darker)[1].min() > 0.95
