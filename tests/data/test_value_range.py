"""The range of 16-bit and float images follows from all values, never from a single pixel."""

from __future__ import annotations

import numpy as np
import pytest

from residua.data.value_range import of_dataset, of_image

RAMP = np.linspace(0, 1, 1000)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP, (0, 1)),
        (np.append(RAMP, 1.01), (0, 1)),
        (np.append(RAMP, 40.0), (0, 1)),  # a hot pixel
        (np.append(RAMP, [-9999.0] * 300), (0, 1)),  # no data
        (np.append(RAMP, [-9999.0, 1e20]), (0, 1)),
        (RAMP * 1.001, (0, 1)),
        (RAMP * 255.1, (0, 255)),
        (RAMP * 65535, (0, 65535)),
        (RAMP * 2 - 1, (-1, 1)),
        (RAMP * 1e6, (0, 1e6)),
        (np.zeros(0), (0, 1)),
    ],
)
def test_floats_have_a_usual_range_or_their_own(
    values: np.ndarray, expected: tuple[float, float]
) -> None:
    assert of_image(values, "F") == expected
    assert of_dataset(values, is_float=True) == expected


def test_16_bits_are_the_whole_range_unless_the_file_declares_less() -> None:
    values = RAMP * 4095
    assert of_image(values, "I;16") == (0, 65535)
    assert of_image(RAMP * 200, "I") == (0, 255)  # values of 8 bits in a wider type
    assert of_image(values, "I;16", (4095,)) == (0, 4095)
    assert of_image(values, "I;16", 1000) == (0, 65535)  # a declaration that is wrong
    assert of_image(RAMP * 100_000 - 5, "I") == (-5, 99_995)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP * 4095, (0, 4095)),
        (np.append(RAMP * 4000, 65535), (0, 4095)),
        (RAMP * 65000, (0, 65535)),
        (RAMP * 200, (0, 255)),
        (RAMP * 1000 + 30_000, (30_000, 31_000)),  # less than a tenth of 0 to 32767
        (np.array([0.0, 65535.0]), (0, 65535)),  # a mask
    ],
)
def test_a_data_set_of_integers_has_the_bits_that_it_uses(
    values: np.ndarray, expected: tuple[float, float]
) -> None:
    assert of_dataset(values, is_float=False) == expected
