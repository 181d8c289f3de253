"""Pairs of grey thumbnails -> how well one fits on the other after shifting, scaling, mirroring.

Gauss-Newton on a scale and a shift per axis, with gain and offset of the brightness, from coarse to
fine (Lucas and Kanade 1981; Baker and Matthews 2004, sections 2 and 4).
Legend: P pairs, S side of a level, px; coordinates are -1..1 from edge to edge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from residua.data.neighbours import Floats, Pairs

SIDE = 64  # px of a thumbnail
UNMOVED = 1.0, 1.0, 0.0, 0.0  # scale x, y, shift x, y
_LEVELS = (
    (16, 4, 0.75, 0.4),
    (32, 3, 0.8, 0.6),
    (64, 3, 0.8, -1.0),
)  # side, iterations, correlation and that of detail, up to which pairs are different images
_DETAIL_SIDE = 32  # px, for a rough estimate
_NOISE = 4.0  # of 0..255: standard deviation that recompression adds to flat areas, about
_STEP = 0.1  # largest change of a parameter in an iteration
_SCALE, _SHIFT = (0.75, 1.34), 0.3  # limits
_MIN_COVER = 0.6  # share of the first image that the second must cover
_CHUNK = 512  # pairs at once

Thumbnails = npt.NDArray[np.uint8]  # [N, 64, 64], grey
Motions = npt.NDArray[np.float32]  # [P, 4]: scale x, y, shift x, y


@torch.inference_mode()
def align(
    thumbnails: Thumbnails,
    pairs: Pairs,
    mirrored: npt.NDArray[np.bool_],
    motions: Motions | None = None,
) -> Floats:
    """Fit the second image of each pair, mirrored or not, on the first one.

    thumbnails: uint8 [N, 64, 64]. pairs: int64 [P, 2], of these. mirrored: bool [P].
    motions: of the second images, to start from; None: as they are. Returns float32 [2, P], 0 where
    a pair does not fit: the correlation of the pixels after alignment, and that of what is finer
    than about a tenth of the side, at equal local contrast: two images that are smooth, or have the
    same outline on a flat background, have a high correlation, but unrelated detail.
    """
    if motions is None:
        motions = np.tile(np.array(UNMOVED, np.float32), (len(pairs), 1))
    fits = [torch.zeros(2, 0)]
    for start in range(0, len(pairs), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        members, positions = np.unique(pairs[chunk], return_inverse=True)
        images = torch.from_numpy(thumbnails[members])[:, None].float()
        rows = torch.from_numpy(positions.reshape(-1, 2))
        flags, start_motions = (torch.from_numpy(x[chunk]) for x in (mirrored, motions))
        fits.append(_align(images, rows, flags, start_motions))
    return torch.cat(fits, dim=1).numpy()


def _align(thumbnails: Tensor, pairs: Tensor, mirrored: Tensor, motion: Tensor) -> Tensor:
    """thumbnails: float32 [n, 1, 64, 64]. pairs: int64 [P, 2], of these."""
    levels = {side: F.avg_pool2d(thumbnails, SIDE // side) for side, *_ in _LEVELS}
    rows = torch.arange(len(pairs))
    fits = torch.zeros(2, len(pairs))
    best = detail = torch.zeros(0)

    def images(side: int) -> tuple[Tensor, Tensor]:
        base, moved = (levels[side][pairs[rows, column]] for column in (0, 1))
        flags = mirrored[rows]
        moved[flags] = moved[flags].flip(-1)
        return base, moved

    for side, iterations, least, least_detail in _LEVELS:
        best, motion = _refine(*images(side), motion, iterations)
        alike = best > least
        rows, motion, best = rows[alike], motion[alike], best[alike]
        detail = _detail(*images(max(side, _DETAIL_SIDE)), motion)
        alike = detail > least_detail
        rows, motion, best, detail = rows[alike], motion[alike], best[alike], detail[alike]
    fits[:, rows] = torch.stack([best, detail])
    return fits


def _refine(base: Tensor, moved: Tensor, motion: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The best correlation [P] and its motion [P, 4] (scale x, y, shift x, y)."""
    side = base.shape[-1]
    pixels = base[:, 0]
    columns, rows = _coordinates(side)
    stack = torch.cat([moved, *_gradients(moved)], dim=1)
    best, best_motion = torch.full((len(base),), -1.0), motion
    for iteration in range(iterations + 1):
        is_last = iteration == iterations  # which needs no gradients
        warped, mask = _warp(moved if is_last else stack, motion)
        fit = _correlation(pixels, warped[:, 0], mask)
        better = fit > best
        best = torch.where(better, fit, best)
        best_motion = torch.where(better[:, None], motion, best_motion)
        if is_last:
            break
        slopes_x, slopes_y = warped[:, 1], warped[:, 2]
        unknowns = (
            slopes_x * columns,
            slopes_y * rows,
            slopes_x,
            slopes_y,
            -pixels,  # gain
            -torch.ones_like(pixels),  # offset
        )
        # The right-hand side is one more column: a product of its own takes far longer.
        system = (torch.stack((*unknowns, warped[:, 0]), dim=1) * mask[:, None]).flatten(2)
        products = system @ system.transpose(1, 2)
        normal, target = products[:, :-1, :-1], -products[:, :-1, -1:]
        damping = normal.diagonal(dim1=1, dim2=2).mean(dim=1) * 1e-5 + 1e-6
        normal = normal + damping[:, None, None] * torch.eye(len(unknowns))
        change = torch.linalg.solve(normal, target)[:, :4, 0]
        motion = motion + change.clamp(-_STEP, _STEP)
        scale, shift = motion[:, :2].clamp(*_SCALE), motion[:, 2:].clamp(-_SHIFT, _SHIFT)
        motion = torch.cat([scale, shift], dim=1)
    return best, best_motion


def _coordinates(side: int) -> tuple[Tensor, Tensor]:
    """Pixel centres along x [1, 1, S] and y [1, S, 1]."""
    centres = (torch.arange(side) + 0.5) * 2 / side - 1
    return centres[None, None, :], centres[None, :, None]


def _gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, per unit of the coordinates."""
    half = images.shape[-1] / 4
    wide = F.pad(images, (1, 1, 0, 0), "replicate")
    tall = F.pad(images, (0, 0, 1, 1), "replicate")
    return (wide[..., 2:] - wide[..., :-2]) * half, (tall[..., 2:, :] - tall[..., :-2, :]) * half


def _warp(images: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Images [P, C, S, S] after the motion, and where they cover the base: 0 or 1, [P, S, S]."""
    columns, rows = _coordinates(images.shape[-1])
    scale_x, scale_y, shift_x, shift_y = motion[:, :, None, None].unbind(1)
    x = scale_x * columns + shift_x
    y = scale_y * rows + shift_y
    mask = ((x.abs() <= 1) & (y.abs() <= 1)).float()
    grid = torch.empty(*mask.shape, 2)
    grid[..., 0], grid[..., 1] = x, y
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False), mask


def _correlation(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Of [P, S, S] within the mask; 0 where it covers too little."""
    count = mask.sum((1, 2)).clamp(min=1)

    def centred(x: Tensor) -> Tensor:
        return (x - ((x * mask).sum((1, 2)) / count)[:, None, None]) * mask

    x, y = centred(first), centred(second)
    squares = (x * x).sum((1, 2)) * (y * y).sum((1, 2))
    value = (x * y).sum((1, 2)) / squares.sqrt().clamp(min=1e-6)
    return torch.where(mask.mean((1, 2)) >= _MIN_COVER, value, torch.zeros_like(value))


def _detail(base: Tensor, moved: Tensor, motion: Tensor) -> Tensor:
    """The correlation of both minus their local means, divided by their local contrast.

    Without the division a few strong edges, such as an outline on black, would outweigh the rest.
    """
    warped, mask = _warp(moved, motion)
    half = base.shape[-1] // 16
    return _correlation(equal_contrast(base, half), equal_contrast(warped, half), mask)


def equal_contrast(images: Tensor, half: int) -> Tensor:
    """Images [P, 1, S, S] with a mean of 0 and a standard deviation of 1, or less where they are
    flat, in windows of 2 `half` + 1 px around each pixel, [P, S, S]."""
    side = images.shape[-1]
    window = 2 * half + 1

    def local_mean(x: Tensor) -> Tensor:  # in a third of the time of avg_pool2d
        x = F.pad(x, (half,) * 4, "replicate")
        rows = sum(x[..., k : k + side, :] for k in range(1, window)) + x[..., :side, :]
        columns = sum(rows[..., k : k + side] for k in range(1, window)) + rows[..., :side]
        return columns / window**2

    fine = images - local_mean(images)
    return (fine / (local_mean(fine * fine) + _NOISE**2).sqrt())[:, 0]
