"""Files and arrays of 16 bits have the scale that the network was trained with."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.weights_files import PREPARED

from residua.data.dataset import Unreadable
from residua.data.pixels import fitted, pixels_of

RULE = dataclasses.replace(
    PREPARED, size=4, channels=1, mean=(0.0,), std=(1.0,), value_range=(0.0, 4095.0)
)


def test_the_stored_scale_holds_for_files_images_and_arrays(tmp_path: Path) -> None:
    values = (np.arange(16).reshape(4, 4) * 300).astype(np.uint16)
    file = tmp_path / "x.png"
    Image.fromarray(values).save(file)
    expected = np.rint(np.clip(values, 0, 4095) / 4095 * 255)
    swapped = values.astype(values.dtype.newbyteorder())  # as FITS and some TIFF readers give it
    np.testing.assert_array_equal(pixels_of(swapped, 1, 100), pixels_of(values, 1, 100))
    opened = Image.open(io.BytesIO(file.read_bytes()))
    for image in (str(file), file.read_bytes(), opened, values, swapped):
        np.testing.assert_array_equal(fitted(image, RULE, 100)[..., 0], expected)
    plain = values.astype(np.uint8)
    np.testing.assert_array_equal(fitted(plain, RULE, 100)[..., 0], plain)
    wide = fitted(values, RULE, 100, value_range=(0.0, 9000.0))
    np.testing.assert_array_equal(wide[..., 0], np.rint(values / 9000 * 255))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_in_every_form(value: float) -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 3] = value
    forms = (values, values.astype(np.float16), torch.from_numpy(values), Image.fromarray(values))
    for image in forms:
        for rule in (RULE, dataclasses.replace(RULE, value_range=None)):
            for value_range in (None, (0.0, 1.0)):
                with pytest.raises(Unreadable, match="not numbers"):
                    fitted(image, rule, 100, value_range)
