"""Images and heat maps -> overlays, and small JPEG images for HTML."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

from residua.report.view import Pixels

STRENGTH = 0.65  # opacity of the colour at the strongest evidence
GREY = 0.75  # share of colour that the image loses, so that it does not compete with the map
_STOPS = (0.0, 0.35, 0.7, 1.0)
_RED, _GREEN, _BLUE = (40, 30, 250, 255), (60, 180, 200, 60), (150, 140, 40, 20)


def overlay(pixels: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """An image uint8 [S, S, C] under its heat map [S, S] in [0, 1], as uint8 [S, S, 3].

    Blue over yellow to red at 1, more opaque the stronger the evidence is.
    """
    image = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.float32)
    image = (1 - GREY) * image + GREY * image.mean(2, keepdims=True)
    colours = np.stack([np.interp(heat, _STOPS, stops) for stops in (_RED, _GREEN, _BLUE)], 2)
    opacity = STRENGTH * np.sqrt(heat)[..., None]
    return (
        np.asarray((1 - opacity) * image + opacity * colours, np.float32).round().astype(np.uint8)
    )


def jpeg_uri(pixels: Pixels, side: int) -> str:
    """An image uint8 [H, W, C], C 1 or 3, as a JPEG data URI of a few kB, shrunk to `side` px."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
