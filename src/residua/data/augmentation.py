"""A batch of images -> the same batch as this epoch sees it; whole batches, on any device.

Drawing is apart from doing: `draw` turns (seed, epoch, sample) into one row of numbers per image,
`transform` carries them out. So an image's look never depends on the batch that it travels in.
Legend: B batch, C channels, S side in pixels.
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

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"


@dataclass(frozen=True)
class Draw:
    """The numbers of a batch, one row per image; a None is an effect that is off.

    window: [B, 2, 3], from an output pixel (row, column, 1) to the input pixel that it shows.
    exact: every window is a mirror image and a whole number of pixels, so nothing is interpolated.
    colour: [B, 3], factors of brightness, contrast, saturation.
    erased: [B, 4], top, left, bottom, right in pixels; bottom <= top erases nothing.
    """

    window: Floats | None
    exact: bool
    colour: Floats | None
    erased: Floats | None


@dataclass(frozen=True)
class Mixing:
    """Which image each one is mixed with, and how: mixup where `box` is empty, else cutmix.

    partner: [B] sample numbers. share: [B], what is left of the image itself. box: [B, 4].
    """

    partner: Integers
    share: Floats
    box: Floats


def draw(settings: Augmentation, size: int, seed: int, epoch: int, samples: Integers) -> Draw:
    """The numbers for `samples` ([B] sample numbers) in this epoch."""
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
    settings: Augmentation,
    size: int,
    seed: int,
    epoch: int,
    samples: Integers,
    members: Integers,
) -> Mixing | None:
    """Partners of `samples` among `members`; None where neither mixup nor cutmix is on.

    mixup: Zhang et al. 2017, section 2; cutmix: Yun et al. 2019, section 3.1. With both on, each
    image takes either with probability 1/2. A partner is drawn from the whole training part.
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

    The result is channels_last in memory. This is the only place where channel order, mean and std
    are applied, in training, evaluation and prediction alike.
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
    """uint8 [B, S, S, C] -> float32 [B, C, S, S]: colour, normalise, one warp, erase.

    Colour works on pixels; the warp comes after normalisation, where a constant fill is meant.
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
    """Two float batches [B, C, S, S] -> one: blended, or the box of each cut from its partner."""
    box = _tensor(mixing.box, x)
    share = _tensor(mixing.share, x).view(-1, 1, 1, 1)
    is_cut = ((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])).view(-1, 1, 1, 1)
    blended = other + (x - other) * torch.where(is_cut, 1.0, share)
    return torch.where(_inside(box, x.shape[-1]), other, blended)


def changes_nothing(settings: Augmentation) -> bool:
    """Whether a batch passes through unchanged."""
    return dataclasses.replace(settings, **{name: getattr(OFF, name) for name in _HOW}) == OFF


_HOW = ("fill", "fill_value", "zoom_axes")  # say how, not how much
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
    """Compose flip and crop with Keras' rotation . shift . shear . zoom about the centre.

    The ranges, units and distributions are those of Keras' ImageDataGenerator: shear's matrix as it
    defines it, a zoom above 1 showing more of the image.
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
    if settings.flip:  # last: the finished image is mirrored, column c shows column S - 1 - c
        mirrored = chance[:, 8] < 0.5
        window[mirrored, :, 2] += window[mirrored, :, 1] * (size - 1)
        window[mirrored, :, 1] *= -1
    return window, exact


def affine_windows(
    size: int, *, rotation: Floats, shift: Floats, shear: Floats, zoom: Floats
) -> Floats:
    """[B, 2, 3] windows of Keras' apply_affine_transform, which thinks in (column, row) order.

    rotation, shear: [B], degrees. shift: [B, 2], pixels. zoom: [B, 2], factors. Its matrix is
    rotation . shift . shear . zoom about the centre of the pixels' centres.
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
    """Bilinear, one grid_sample for everything geometric; window is [B, 2, 3] in pixels."""
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
    edge = 1 - (1 - 1e-4) / size  # the centre of the last pixel, with room for rounding
    inside = (grid.abs() <= edge).all(-1).unsqueeze(1)
    return torch.where(inside, y, settings.fill_value)


def _shift_pixels(x: Tensor, window: Tensor, settings: Augmentation) -> Tensor:
    """The same for mirror images and whole pixels, by indexing: exact, and faster than a warp."""
    batch, channels, size, _ = x.shape
    places = torch.arange(size, device=x.device)
    rows = places + window[:, 0, 2:].long()
    columns = places * window[:, 1, 1:2].long() + window[:, 1, 2:].long()
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


def _reflected(places: Tensor, size: int) -> Tensor:
    """Indices mirrored about the outer edges of the first and last pixel: (b a | a b c | c b)."""
    around = places.remainder(2 * size)
    return torch.where(around < size, around, 2 * size - 1 - around)


def _recolour(pixels: Tensor, factors: Tensor) -> Tensor:
    """float [B, S, S, C] in 0..255 -> the same; [B, 3]: brightness, contrast, saturation."""
    bright, contrast, saturation = (each.view(-1, 1, 1, 1) for each in factors.unbind(1))
    x = pixels * bright
    grey = x if x.shape[-1] == 1 else (x @ x.new_tensor(GREY)).unsqueeze(-1)
    level = grey.mean((1, 2, 3), keepdim=True)
    x = grey + (x - grey) * saturation
    return (level + (x - level) * contrast).clamp_(0, 255)


def _rectangles(probability: float, size: int, chance: Floats) -> Floats:
    """Rectangles to erase: 2 to 33 % of the area, aspect .3 to 3.3 (after Zhong 2017)."""
    area = (0.02 + 0.31 * chance[:, 1]) * size**2
    aspect = np.exp(np.log(0.3) + (np.log(3.3) - np.log(0.3)) * chance[:, 2])
    sides = np.minimum(np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], 1), size)
    sides = np.round(sides) * (chance[:, :1] < probability)
    corner = np.floor(chance[:, 3:5] * (size - sides + 1))
    return np.concatenate([corner, corner + sides], axis=1)


def _inside(box: Tensor, size: int) -> Tensor:
    """Boxes [B, 4] (top, left, bottom, right) -> bool [B, 1, S, S]."""
    places = torch.arange(size, device=box.device)
    rows = (places >= box[:, 0:1]) & (places < box[:, 2:3])
    columns = (places >= box[:, 1:2]) & (places < box[:, 3:4])
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def _tensor(numbers: Floats, like: Tensor) -> Tensor:
    return torch.from_numpy(numbers).to(like.device, torch.float32, non_blocking=True)
