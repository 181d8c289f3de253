"""Images and heat maps -> overlays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from residua.data.dataset import Pixels

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
