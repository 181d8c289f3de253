"""Augmentation against Keras' transform, its ranges, and the exact result of each effect."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from residua.config.schema import Augmentation, Preprocessing
from residua.data.augmentation import (
    OFF,
    Draw,
    Mixing,
    affine_windows,
    draw,
    draw_mixing,
    mix,
    normalise,
    transform,
)

RAW = Preprocessing(
    size=32,
    channels=3,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    crop=1.0,
    interpolation="antialias",
)
SIZE = 32


@pytest.fixture
def images() -> np.ndarray:
    """Smooth random images uint8 [6, 32, 32, 3]: neighbouring pixels are alike, as in photos."""
    coarse = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)
    return (fine * 255).round().byte().permute(0, 2, 3, 1).numpy()


def settings(**changes: object) -> Augmentation:
    return dataclasses.replace(OFF, **changes)  # type: ignore[arg-type]


def draw_of(window: np.ndarray) -> Draw:
    return Draw(window, exact=False, colour=None, erased=None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
@pytest.mark.parametrize(("fill", "size"), [("nearest", 32), ("constant", 33), ("reflect", 32)])
def test_the_warp_is_keras_apply_affine_transform(
    monkeypatch: pytest.MonkeyPatch, fill: str, size: int
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    from keras.src.legacy.preprocessing.image import apply_affine_transform

    generator = np.random.default_rng(1)
    coarse = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    pixels = (fine * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    rotation = generator.uniform(-40, 40, 8)
    shift = generator.uniform(-0.2, 0.2, (8, 2)) * size
    shear = generator.uniform(-30, 30, 8)
    zoom = generator.uniform(0.8, 1.2, (8, 2))
    window = affine_windows(size, rotation=rotation, shift=shift, shear=shear, zoom=zoom)
    changed = settings(fill=fill, rotation=40.0, fill_value=9.0)
    ours = transform(pixels, draw_of(window), changed, dataclasses.replace(RAW, size=size))
    for index in range(8):
        theirs = apply_affine_transform(
            pixels[index].numpy().astype(np.float32),
            theta=rotation[index],
            tx=shift[index, 0],
            ty=shift[index, 1],
            shear=shear[index],
            zx=zoom[index, 0],
            zy=zoom[index, 1],
            row_axis=0,
            col_axis=1,
            channel_axis=2,
            fill_mode=fill,
            cval=9.0,
        )
        difference = np.abs(ours[index].permute(1, 2, 0).numpy() - theirs).max(-1)
        # on the outline of a constant fill, rounding decides which side a pixel falls on
        allowed = 0.002 if fill == "constant" else 0.0
        assert (difference > 2).mean() <= allowed, (index, difference.max())


def test_ranges_are_those_of_keras(images: np.ndarray) -> None:
    """Rotations, shifts, shears and zooms are uniform in Keras' ranges, each on its own."""
    samples = np.arange(20_000)
    for name, value in (("rotation", 40.0), ("shift", 0.125), ("shear", 0.2)):
        window = draw(settings(**{name: value}), SIZE, 0, 0, samples).window
        assert window is not None
        if name == "rotation":
            found = np.rad2deg(np.arctan2(window[:, 0, 1], window[:, 0, 0]))
        elif name == "shift":
            found = window[:, 1, 2] / SIZE
        else:
            found = np.rad2deg(np.arcsin(-window[:, 1, 0]))
        assert found.min() == pytest.approx(-value, rel=0.01)
        assert found.max() == pytest.approx(value, rel=0.01)
        assert np.std(found) == pytest.approx(value / np.sqrt(3), rel=0.02)
    each = draw(settings(zoom=(0.8, 1.2), zoom_axes="each"), SIZE, 0, 0, samples).window
    both = draw(settings(zoom=(0.8, 1.2)), SIZE, 0, 0, samples).window
    assert each is not None
    assert both is not None
    assert abs(np.corrcoef(each[:, 0, 0], each[:, 1, 1])[0, 1]) < 0.03
    np.testing.assert_array_equal(both[:, 0, 0], both[:, 1, 1])
    assert (each[:, 0, 0].min(), each[:, 0, 0].max()) == pytest.approx((0.8, 1.2), abs=0.001)


def test_half_of_the_images_are_flipped_and_nothing_else(images: np.ndarray) -> None:
    pixels = torch.from_numpy(images)
    plain, mirrored = normalise(pixels, RAW), normalise(pixels.flip(2), RAW)
    seen = {True: 0, False: 0}
    for epoch in range(60):
        drawn = draw(settings(flip=True), SIZE, 0, epoch, np.arange(6))
        moved = transform(pixels, drawn, settings(flip=True), RAW)
        for index in range(6):
            is_mirrored = torch.equal(moved[index], mirrored[index])
            assert is_mirrored or torch.equal(moved[index], plain[index])
            seen[is_mirrored] += 1
    assert 140 < seen[True] < 220


@pytest.mark.parametrize("fill", ["nearest", "constant", "reflect"])
def test_padded_crop_is_a_window_of_the_padded_image(images: np.ndarray, fill: str) -> None:
    changed = settings(crop_padding=4, flip=True, fill=fill, fill_value=7.0)
    pixels = torch.from_numpy(images)
    drawn = draw(changed, SIZE, 3, 5, np.arange(6))
    assert drawn.exact
    assert drawn.window is not None
    moved = transform(pixels, drawn, changed, RAW)
    mode = {"nearest": "edge", "constant": "constant", "reflect": "symmetric"}[fill]
    extra = {"constant_values": 7.0} if fill == "constant" else {}
    for index in range(6):
        padded = np.pad(images[index].astype(float), ((4, 4), (4, 4), (0, 0)), mode, **extra)
        top = int(drawn.window[index, 0, 2]) + 4
        is_mirrored = drawn.window[index, 1, 1] < 0
        left = int(drawn.window[index, 1, 2]) + 4 - (SIZE - 1 if is_mirrored else 0)
        window = padded[top : top + SIZE, left : left + SIZE]
        expected = window[:, ::-1] if is_mirrored else window
        np.testing.assert_array_equal(moved[index].permute(1, 2, 0).numpy(), expected)


def test_indexing_and_warping_agree(images: np.ndarray) -> None:
    """Indexing whole pixels and the general warp give the same image."""
    changed = settings(crop_padding=4, flip=True, fill="reflect")
    pixels = torch.from_numpy(images)
    drawn = draw(changed, SIZE, 0, 0, np.arange(6))
    exact = transform(pixels, drawn, changed, RAW)
    warped = transform(pixels, dataclasses.replace(drawn, exact=False), changed, RAW)
    assert (exact - warped).abs().max() < 0.05


def test_constant_fill_is_in_normalised_units(images: np.ndarray) -> None:
    """Tutorial 1 fills with 0 after normalising, so the border is the mean colour, not black."""
    normalised = Preprocessing(
        size=32, channels=3, mean=(99.0,) * 3, std=(50.0,) * 3, crop=1.0, interpolation="antialias"
    )
    window = affine_windows(
        SIZE,
        rotation=np.zeros(6),
        shift=np.tile([40.0, 0.0], (6, 1)),
        shear=np.zeros(6),
        zoom=np.ones((6, 2)),
    )
    moved = transform(torch.from_numpy(images), draw_of(window), settings(shift=1.0), normalised)
    assert torch.equal(moved, torch.zeros_like(moved))


def test_mixed_targets_are_the_shares_of_the_pixels(images: np.ndarray) -> None:
    """CutMix: the target's share is that of the pixels; mixup: the weight of the blend."""
    samples, members = np.arange(6), np.arange(6)
    zeros, ones = torch.zeros(6, 1, SIZE, SIZE), torch.ones(6, 1, SIZE, SIZE)
    for changed in (settings(cutmix=1.0), settings(mixup=0.5)):
        for epoch in range(20):
            mixing = draw_mixing(changed, SIZE, 0, epoch, samples, members)
            assert isinstance(mixing, Mixing)
            share = mix(ones, zeros, mixing).mean((1, 2, 3))
            np.testing.assert_allclose(share.numpy(), mixing.share, atol=1e-5)
