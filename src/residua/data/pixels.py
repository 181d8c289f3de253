"""A path, bytes, a Pillow image, an array or a tensor -> uint8 pixels; or the network's input."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from residua.config.schema import Preprocessing
from residua.data.augmentation import normalise
from residua.data.dataset import Pixels, Unreadable
from residua.data.image import decode, finite, from_pillow, prepared, resize
from residua.data.recognition import read_file
from residua.data.value_range import ValueRange
from residua.errors import ResiduaError
from residua.system.files import user_path

ImageLike = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | Image.Image
    | npt.NDArray[Any]
    | torch.Tensor
)
KINDS = "a path, the bytes of a file, a Pillow image, a NumPy array or a tensor"


def is_one_image(value: object) -> bool:
    """Whether a value is a single image; anything else is several, to be iterated."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim <= 3 and not (isinstance(value, np.ndarray) and value.dtype.kind in "USO")
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)


def checked_range(value_range: object) -> ValueRange | None:
    """The range of an array's values, (low, high). Raises ResiduaError if it is none."""
    if value_range is None:
        return None
    try:
        low, high = map(float, value_range)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high < np.inf or low == -np.inf:
        raise ResiduaError(
            f"value_range = {value_range!r}: expected the values of black and white, such as "
            "(0, 255)."
        )
    return low, high


def fitted(
    image: object,
    preprocessing: Preprocessing,
    max_pixels: int,
    value_range: ValueRange | None = None,
) -> Pixels:
    """An image, see `pixels_of`, as uint8 [size, size, channels]. Raises Unreadable."""
    if isinstance(image, str | os.PathLike):
        image = read_file(user_path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return prepared(bytes(image), preprocessing, max_pixels)
    stored = preprocessing.value_range
    pixels = pixels_of(image, preprocessing.channels, max_pixels, value_range, stored)
    return resize(pixels, preprocessing)


def pixels_of(
    image: object,
    channels: int,
    max_pixels: int,
    value_range: ValueRange | None = None,
    stored: ValueRange | None = None,
) -> Pixels:
    """An image as uint8 [H, W, channels], 0..255, RGB or greyscale. Raises Unreadable.

    Files, bytes and Pillow images are turned upright by EXIF; transparency is blended with white.

    An array is [H, W] or [H, W, C], a tensor [C, H, W] or [H, W], with C = 1, 3 (RGB) or 4 (RGBA):
    uint8, uint16 (0..65535), bool, or floating-point numbers in 0..1.
    value_range: (black, white) of an array or tensor with other values. stored: (black, white) of
    images of 16 bits or float that the network was trained on; values outside are clipped.
    """
    if isinstance(image, str | os.PathLike):
        return decode(read_file(user_path(image)), channels, max_pixels, stored)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), channels, max_pixels, stored)
    if isinstance(image, Image.Image):
        return from_pillow(image, channels, max_pixels, stored)
    if isinstance(image, torch.Tensor):
        image = _array_of(image)
    if not isinstance(image, np.ndarray):
        raise Unreadable(f"is of type {type(image).__name__}: expected {KINDS}")
    array = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    is_colour = array.ndim == 3 and array.shape[2] in (3, 4)
    if not (array.ndim == 2 or is_colour) or array.size == 0:
        raise Unreadable(
            f"is an array of shape {image.shape}: expected (H, W) or (H, W, C) with 1, 3 or 4 "
            "channels"
        )
    if array.dtype.kind == "f":
        finite(array)
    if value_range is None and stored is not None and array.dtype not in (np.uint8, np.bool_):
        array, value_range = np.clip(array, *stored), stored
    return from_pillow(Image.fromarray(_bytes(array, value_range)), channels, max_pixels)


def _array_of(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """[C, H, W] or [H, W] -> [H, W, C] or [H, W]."""
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
        raise Unreadable(f"is a tensor of {tensor.layout}, {tensor.dtype}: expected dense numbers")
    plain = tensor.detach().cpu()
    if plain.is_floating_point():
        plain = plain.float()
    if plain.ndim not in (2, 3) or (plain.ndim == 3 and len(plain) not in (1, 3, 4)):
        raise Unreadable(
            f"is a tensor of shape {tuple(tensor.shape)}: expected (C, H, W) with 1, 3 or 4 "
            "channels, or (H, W)"
        )
    array: npt.NDArray[Any] = (plain.permute(1, 2, 0) if plain.ndim == 3 else plain).numpy()
    return array


def _bytes(values: npt.NDArray[Any], value_range: ValueRange | None) -> Pixels:
    """Numbers of any type -> uint8: black becomes 0, white 255. Raises Unreadable."""
    if value_range is None and values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    usual = {"b": (0.0, 1.0), "f": (0.0, 1.0)}
    if values.dtype.newbyteorder("=") == np.uint16:
        usual["u"] = (0.0, 65535.0)
    if values.dtype.kind not in "buif" or (not value_range and values.dtype.kind not in usual):
        raise Unreadable(
            f"is an array of {values.dtype}: expected uint8, uint16 or floating-point numbers in "
            "0..1; state other ranges, such as value_range=(0, 255)"
        )
    low, high = value_range or usual[values.dtype.kind]
    numbers = values.astype(np.float64)
    least, most = float(numbers.min()), float(numbers.max())
    if not low <= least <= most <= high:
        raise Unreadable(
            f"has values from {least:g} to {most:g}, outside {low:g}..{high:g}: state their range, "
            "such as value_range=(0, 255)"
        )
    return np.rint((numbers - low) * (255 / (high - low))).astype(np.uint8)


@dataclass(frozen=True)
class Transform:
    """From an image to the input of a network; can be pickled, as a DataLoader's workers need.

    preprocessing: of the network. max_pixels: larger images are refused. value_range: see
    `pixels_of`.
    """

    preprocessing: Preprocessing
    max_pixels: int
    value_range: ValueRange | None = None

    def __call__(self, image: ImageLike) -> torch.Tensor:
        """An image, see `pixels_of` -> float32 [C, S, S]. Raises ResiduaError."""
        rule = self.preprocessing
        try:
            pixels = fitted(image, rule, self.max_pixels, self.value_range)
        except Unreadable as error:
            name = str(image) if isinstance(image, str | os.PathLike) else "the image"
            raise ResiduaError(f"{name}: {error}.") from error
        batch = torch.from_numpy(pixels[None].copy())
        return normalise(batch, rule)[0].contiguous()
