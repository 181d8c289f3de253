"""A batch of images -> the augmented batch of an epoch, on any device.

`draw` turns (seed, epoch, sample) into one row of parameters per image, `transform` applies them,
so the augmentation of an image does not depend on its batch.
Legend: B batch size, C channels, S image size in pixels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from residua.config.schema import Augmentation, Preprocessing
from residua.data.random import Integers, uniform

Floats = npt.NDArray[np.float64]

GREY = (0.299, 0.587, 0.114)  # weights of RGB, ITU-R BT.601, as Pillow's "L"


@dataclass(frozen=True)
class Draw:
    """The augmentation parameters of a batch, one row per image; None is off.

    window: [B, 2, 3], affine map from output pixel (row, column, 1) to input pixel.
    exact: every window is a flip and a shift by whole pixels: no interpolation.
    colour: [B, 3], factors of brightness, contrast, saturation.
    erased: [B, 4], top, left, bottom, right in pixels; bottom <= top erases nothing.
    """

    window: Floats | None
    exact: bool
    colour: Floats | None
    erased: Floats | None


@dataclass(frozen=True)
class Mixing:
    """The mixing parameters of a batch: mixup for an empty box, else CutMix.

    partner: [B] sample indices. share: [B], weight of the image itself. box: [B, 4], as `erased`.
    """

    partner: Integers
    share: Floats
    box: Floats


def draw(settings: Augmentation, size: int, seed: int, epoch: int, samples: Integers) -> Draw:
    """The parameters of `samples` ([B] sample indices) in this epoch."""
    window, exact = _windows(settings, size, uniform(seed, epoch, samples, 9, "window"))
    ranges = (settings.brightness, settings.contrast, settings.saturation)
    colour = None
    if any(ranges):
        colour = 1 + (2 * uniform(seed, epoch, samples, 3, "colour") - 1) * np.array(ranges)
    erased = None
    if settings.erase:
        erased = _rectangles(settings.erase, size, uniform(seed, epoch, samples, 5, "erase"))
    return Draw(window, exact, colour, erased)


def draw_mixing(
    settings: Augmentation, size: int, seed: int, epoch: int, samples: Integers, members: Integers
) -> Mixing | None:
    """Mixing parameters of `samples`, with partners among `members`; None if mixing is off.

    mixup: Zhang et al. 2017, section 2; CutMix: Yun et al. 2019, section 3.1. With both on, each
    has probability 1/2. members: [N] sample indices of the training set.
    """
    if not (settings.mixup or settings.cutmix):
        return None
    from scipy.special import betaincinv

    chance = uniform(seed, epoch, samples, 5, "mixing")
    partner = members[(chance[:, 0] * len(members)).astype(np.int64)]
    cut = chance[:, 1] < (0.5 if settings.mixup and settings.cutmix else float(settings.cutmix > 0))
    alpha = np.where(cut, settings.cutmix or 1.0, settings.mixup or 1.0)
    share = betaincinv(alpha, alpha, chance[:, 2])
    side = np.where(cut, np.sqrt(1 - share), 0.0) * size
    centre = chance[:, 3:5] * size
    corners = np.concatenate([centre - side[:, None] / 2, centre + side[:, None] / 2], axis=1)
    box = np.clip(np.round(corners), 0, size)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return Mixing(partner, np.where(cut, 1 - area / size**2, share), box)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 or float [B, S, S, C] in 0..255, RGB -> float32 [B, C, S, S], (x - mean) / std.

    The result is channels_last in memory. Channel order, mean and std are applied only here, in
    training, evaluation and prediction alike.
    """
    x = pixels.permute(0, 3, 1, 2).float()
    if preprocessing.channel_order == "bgr" and preprocessing.channels == 3:
        x = x.flip(1)
    mean = torch.tensor(preprocessing.mean, device=x.device).view(1, -1, 1, 1)
    scale = 1 / torch.tensor(preprocessing.std, device=x.device).view(1, -1, 1, 1)
    return (x - mean).mul_(scale).contiguous(memory_format=torch.channels_last)


def transform(
    pixels: Tensor, drawn: Draw, settings: Augmentation, preprocessing: Preprocessing
) -> Tensor:
    """uint8 [B, S, S, C] -> float32 [B, C, S, S]: colour, normalise, warp, erase.

    Colour changes pixels in 0..255; the constant fill of the warp is in normalised units.
    """
    if drawn.colour is not None:
        pixels = _recolour(pixels.float(), _tensor(drawn.colour, pixels))
    x = normalise(pixels, preprocessing)
    if drawn.window is not None:
        move = _shift_pixels if drawn.exact else _warp
        x = move(x, _tensor(drawn.window, x), settings)
    if drawn.erased is not None:
        x = torch.where(_inside(_tensor(drawn.erased, x), x.shape[-1]), 0.0, x)
    return x.contiguous(memory_format=torch.channels_last)


def mix(x: Tensor, other: Tensor, mixing: Mixing) -> Tensor:
    """Two batches [B, C, S, S] -> one: blended (mixup) or with a box of the partner (CutMix)."""
    box = _tensor(mixing.box, x)
    share = _tensor(mixing.share, x).view(-1, 1, 1, 1)
    is_cut = ((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])).view(-1, 1, 1, 1)
    blended = other + (x - other) * torch.where(is_cut, 1.0, share)
    return torch.where(_inside(box, x.shape[-1]), other, blended)


def changes_nothing(settings: Augmentation) -> bool:
    """Whether every effect is off."""
    return dataclasses.replace(settings, **{name: getattr(OFF, name) for name in _HOW}) == OFF


_HOW = ("fill", "fill_value", "zoom_axes")  # without effect on their own
OFF = Augmentation(
    flip=False,
    crop_padding=0,
    rotation=0.0,
    zoom=(1.0, 1.0),
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
)


def _windows(settings: Augmentation, size: int, chance: Floats) -> tuple[Floats | None, bool]:
    """[B, 2, 3] windows of flip and crop after Keras' rotation . shift . shear . zoom; exact.

    Ranges, units and distributions are those of Keras' ImageDataGenerator, including its shear
    matrix; a zoom above 1 zooms out. chance: [B, 9] in [0, 1).
    """
    exact = not (
        settings.rotation or settings.shift or settings.shear or settings.zoom != (1.0, 1.0)
    )
    if exact and not settings.flip and not settings.crop_padding:
        return None, True
    signed = 2 * chance - 1
    low, high = settings.zoom
    zoom = low + (high - low) * chance[:, 4:6]
    if settings.zoom_axes == "both":
        zoom[:, 1] = zoom[:, 0]
    window = affine_windows(
        size,
        rotation=signed[:, 0] * settings.rotation,
        shift=signed[:, 1:3] * settings.shift * size,
        shear=signed[:, 3] * settings.shear,
        zoom=zoom,
    )
    padding = settings.crop_padding
    window[:, :, 2] += np.floor(chance[:, 6:8] * (2 * padding + 1)) - padding
    if settings.flip:  # last: column c shows column S - 1 - c of the result
        mirrored = chance[:, 8] < 0.5
        window[mirrored, :, 2] += window[mirrored, :, 1] * (size - 1)
        window[mirrored, :, 1] *= -1
    return window, exact


def affine_windows(
    size: int, *, rotation: Floats, shift: Floats, shear: Floats, zoom: Floats
) -> Floats:
    """[B, 2, 3] windows of Keras' apply_affine_transform, which uses (column, row) order.

    rotation, shear: [B], degrees. shift: [B, 2], pixels. zoom: [B, 2], factors. The matrix is
    rotation . shift . shear . zoom about the centre of the pixel centres.
    """
    theta, phi = np.deg2rad(rotation), np.deg2rad(shear)
    turn = np.stack([np.cos(theta), -np.sin(theta), np.sin(theta), np.cos(theta)], -1)
    turn = turn.reshape(-1, 2, 2)
    slant = np.zeros_like(turn)
    slant[:, 0, 0], slant[:, 0, 1], slant[:, 1, 1] = 1, -np.sin(phi), np.cos(phi)
    linear = turn @ slant * zoom[:, None, :]
    centre = np.full(2, size / 2 - 0.5)
    offset = (turn @ shift[:, :, None])[:, :, 0] + centre - linear @ centre
    window = np.concatenate([linear, offset[:, :, None]], axis=2)
    return window[:, [1, 0]][:, :, [1, 0, 2]]  # to (row, column)


def _warp(x: Tensor, window: Tensor, settings: Augmentation) -> Tensor:
    """All geometric changes in one bilinear grid_sample; window: [B, 2, 3] in pixels."""
    size = x.shape[-1]
    # grid_sample wants (x, y) in -1..1 for pixel edges: u = (2 * pixel + 1) / S - 1
    swapped = window[:, [1, 0]][:, :, [1, 0, 2]]
    linear = swapped[:, :, :2]
    offset = (2 * swapped[:, :, 2] + 1) / size - 1 + linear.sum(2) * (size - 1) / size
    theta = torch.cat([linear, offset[:, :, None]], 2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    mode = "reflection" if settings.fill == "reflect" else "border"
    y = F.grid_sample(x, grid, mode="bilinear", padding_mode=mode, align_corners=False)
    if settings.fill != "constant":
        return y
    edge = 1 - (1 - 1e-4) / size  # the centre of the last pixel, with a margin for rounding
    inside = (grid.abs() <= edge).all(-1).unsqueeze(1)
    return torch.where(inside, y, settings.fill_value)


def _shift_pixels(x: Tensor, window: Tensor, settings: Augmentation) -> Tensor:
    """The same for exact windows, by indexing: no interpolation, and faster."""
    batch, channels, size, _ = x.shape
    pixels = torch.arange(size, device=x.device)
    rows = pixels + window[:, 0, 2:].long()
    columns = pixels * window[:, 1, 1:2].long() + window[:, 1, 2:].long()
    if settings.fill == "reflect":
        inner_rows, inner_columns = _reflected(rows, size), _reflected(columns, size)
    else:
        inner_rows, inner_columns = rows.clamp(0, size - 1), columns.clamp(0, size - 1)
    flat = x.permute(0, 2, 3, 1).reshape(-1, channels)  # a view: x is channels_last
    start = torch.arange(batch, device=x.device).view(-1, 1, 1) * size * size
    index = start + inner_rows[:, :, None] * size + inner_columns[:, None, :]
    y = flat.index_select(0, index.view(-1)).view(batch, size, size, channels)
    if settings.fill == "constant":
        inside = (rows == inner_rows)[:, :, None] & (columns == inner_columns)[:, None, :]
        y = torch.where(inside.unsqueeze(-1), y, settings.fill_value)
    return y.permute(0, 3, 1, 2)


def _reflected(indices: Tensor, size: int) -> Tensor:
    """Indices reflected at the outer edges of the image: (b a | a b c | c b)."""
    period = indices.remainder(2 * size)
    return torch.where(period < size, period, 2 * size - 1 - period)


def _recolour(pixels: Tensor, factors: Tensor) -> Tensor:
    """float [B, S, S, C] in 0..255 -> the same; factors: [B, 3], as `Draw.colour`."""
    bright, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors.unbind(1))
    x = pixels * bright
    grey = x if x.shape[-1] == 1 else (x @ x.new_tensor(GREY)).unsqueeze(-1)
    level = grey.mean((1, 2, 3), keepdim=True)
    x = grey + (x - grey) * saturation
    return (level + (x - level) * contrast).clamp_(0, 255)


def _rectangles(probability: float, size: int, chance: Floats) -> Floats:
    """[B, 4] rectangles of 2 to 33 % of the area, aspect 0.3 to 3.3 (Zhong et al. 2017)."""
    area = (0.02 + 0.31 * chance[:, 1]) * size**2
    aspect = np.exp(np.log(0.3) + (np.log(3.3) - np.log(0.3)) * chance[:, 2])
    sides = np.minimum(np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], 1), size)
    sides = np.round(sides) * (chance[:, :1] < probability)
    corner = np.floor(chance[:, 3:5] * (size - sides + 1))
    return np.concatenate([corner, corner + sides], axis=1)


def _inside(box: Tensor, size: int) -> Tensor:
    """Boxes [B, 4] (top, left, bottom, right) -> mask, bool [B, 1, S, S]."""
    pixels = torch.arange(size, device=box.device)
    rows = (pixels >= box[:, 0:1]) & (pixels < box[:, 2:3])
    columns = (pixels >= box[:, 1:2]) & (pixels < box[:, 3:4])
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def _tensor(numbers: Floats, like: Tensor) -> Tensor:
    return torch.from_numpy(numbers).to(like.device, torch.float32, non_blocking=True)
