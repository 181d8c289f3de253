"""Values of 16-bit and float images -> the range that becomes 0..255.

A single pixel decides nothing: a value beyond a gap that is wider than the range of all remaining
values, such as -9999 for "no data" or a hot pixel, is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ValueRange = tuple[float, float]
Values = npt.NDArray[np.float64]

_FLOAT_TOPS = (1.0, 255.0, 65535.0)
_WHOLE_TOPS = tuple(2.0**bits - 1 for bits in range(8, 17))
_OVERSHOOT = 0.1  # of float images, after resampling and sharpening
_FEW = 8  # distinct values: a mask, in which none is an outlier
NARROW = 0.1  # share of a range below which an image keeps too few grey levels


def of_image(values: Values, mode: str, stated: object = None) -> ValueRange:
    """The range of one image whose data set has none; never narrower than a usual range.

    values: some finite values with the extremes, [N]. mode: Pillow's. stated: the largest value
    that a TIFF file declares, which becomes 255. Else integers: 0 to 255 or 65535, floats: 0 to 1,
    255 or 65535, whichever fits first, or from the lowest to the highest value.
    """
    if mode != "F":
        top = max(stated) if isinstance(stated, tuple) else stated
        is_stated = isinstance(top, int) and len(values) and values.max() <= top < 65535
        tops: Sequence[float] = (float(top),) if is_stated else (255.0, 65535.0)  # type: ignore[arg-type]
        return _fitting(values, tops) or _extremes(values)
    values = _without_outliers(values)
    return _fitting(values, _FLOAT_TOPS) or _extremes(values)


def of_dataset(values: Values, is_float: bool) -> ValueRange:
    """The range of all images: a usual one, or from the lowest to the highest value.

    values: some finite values of each image with its extremes, [N]. The usual ranges start at 0 and
    end at 2^bits - 1 for integers, and at 1, 255 or 65535 for floats; if the values fill less than
    a tenth of it, their own range is taken.
    """
    values = _without_outliers(values)
    low, high = _extremes(values)
    usual = _fitting(values, _FLOAT_TOPS if is_float else _WHOLE_TOPS)
    if usual is None or (high > low and high - low < NARROW * usual[1]):
        return low, high
    return usual


def _fitting(values: Values, tops: Sequence[float]) -> ValueRange | None:
    """The range from 0 to the first of `tops` that contains the values; None if none does."""
    low, high = _extremes(values)
    overshoot = _OVERSHOOT if tops is _FLOAT_TOPS else 0.0
    if low < -overshoot * max(high, 0.0):
        return None
    return next(((0.0, top) for top in tops if high <= top * (1 + overshoot)), None)


def _extremes(values: Values) -> ValueRange:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def _without_outliers(values: Values) -> Values:
    """The values without those at either end, beyond a gap wider than the remaining range."""
    distinct = np.unique(values)
    first, last = 0, len(distinct) - 1
    while last - first >= _FEW:
        if distinct[last] - distinct[last - 1] > distinct[last - 1] - distinct[first]:
            last -= 1
        elif distinct[first + 1] - distinct[first] > distinct[last] - distinct[first + 1]:
            first += 1
        else:
            break
    return np.asarray(distinct[first : last + 1])
