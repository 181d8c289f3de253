"""A crop is a candidate of its original also among images of the same layout."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from references.scenes import SIDE, scene

from residua.data.crops import crop_candidates
from residua.data.near_duplicates import thumbnails_of

LAYOUT = np.asarray(scene(99).resize((6, 6)).resize((SIDE, SIDE), 3), np.float64)


def scan(seed: int) -> Image.Image:
    """An image that differs from others in fine structure alone, as scans do."""
    fine = np.asarray(scene(seed), np.float64)
    coarse = np.asarray(scene(seed).resize((12, 12), 4).resize((SIDE, SIDE), 3), np.float64)
    return Image.fromarray((1.2 * LAYOUT + fine - coarse).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_crops_are_candidates_where_all_images_have_the_same_layout(is_mirrored: bool) -> None:
    scans = [scan(seed) for seed in range(40)]
    corners = [(0, 0), (9, 9), (0, 9), (9, 0), (5, 4)]
    crops = [
        image.crop((left, top, left + 87, top + 87))
        for image, (left, top) in zip(scans, corners, strict=False)
    ]
    if is_mirrored:
        crops = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in crops]
    thumbnails = np.concatenate([thumbnails_of(np.asarray(x)[None]) for x in scans + crops])
    pairs, mirrored, motions = crop_candidates(thumbnails)
    for number, (left, top) in enumerate(corners):
        (row,) = np.flatnonzero(
            (pairs == [len(scans) + number, number]).all(axis=1) & (mirrored == is_mirrored)
        )
        right_or_left = SIDE - 87 - left if is_mirrored else left
        shift = [2 * (start + 87 / 2) / SIDE - 1 for start in (right_or_left, top)]
        assert motions[row] == pytest.approx([87 / SIDE, 87 / SIDE, *shift], abs=0.03)
