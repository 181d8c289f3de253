"""Arrays of a file that may be damaged or hostile -> the arrays that were written, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def checked_array(
    arrays: Mapping[str, npt.NDArray[Any]],
    name: str,
    dtype: type[np.generic],
    shape: tuple[int | None, ...],
) -> npt.NDArray[Any]:
    """The array of a file, if it is what was written. shape: None for any length.

    Raises ValueError with a sentence if it is missing, or of another type or shape, or not finite.
    """
    array = arrays.get(name)
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        actual = "missing" if array is None else f"of type {getattr(array, 'dtype', type(array))}"
        raise ValueError(f"The array {name} is {actual}, expected {np.dtype(dtype)}.")
    fits = array.ndim == len(shape) and all(
        expected_length in (None, length)
        for expected_length, length in zip(shape, array.shape, strict=True)
    )
    if not fits:
        expected = tuple("any" if length is None else length for length in shape)
        raise ValueError(f"The array {name} has shape {array.shape}, expected {expected}.")
    if not np.isfinite(array).all():
        raise ValueError(f"The array {name} contains values that are not finite.")
    return array
