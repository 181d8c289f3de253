"""An exported ONNX file -> a script that predicts with it, without residua."""

from __future__ import annotations

from pathlib import Path

from residua.config.schema import Preprocessing

_HEAD = '''\
"""Predict the classes of images: python SCRIPT IMAGE...  Needs onnxruntime, numpy and Pillow."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

if not sys.argv[1:]:
    sys.exit(f"usage: python {{sys.argv[0]}} IMAGE...")
session = onnxruntime.InferenceSession({path!r})
description = json.loads(session.get_modelmeta().custom_metadata_map["residua"])
classes, size = description["classes"], {size}
'''
_PILLOW = """

def resample(image, box, width, height):
    return np.asarray(image.resize((width, height), Image.Resampling.{filter}, box))
"""
_BILINEAR = """

def resample(image, box, width, height):  # bilinear without antialiasing, as TensorFlow and OpenCV
    def axis(start, stop, count, length):
        at = start + (np.arange(count) + 0.5) * ((stop - start) / count) - 0.5
        low = np.floor(at).astype(int)
        return low.clip(0, length - 1), (low + 1).clip(0, length - 1), (at - low).astype("f4")

    pixels = np.asarray(image).reshape(image.height, image.width, -1).astype("f4")
    top, bottom, down = axis(box[1], box[3], height, image.height)
    left, right, across = axis(box[0], box[2], width, image.width)
    rows = pixels[:, left] + (pixels[:, right] - pixels[:, left]) * across[None, :, None]
    return np.rint(rows[top] + (rows[bottom] - rows[top]) * down[:, None, None]).astype(np.uint8)
"""
_READ = """

def read(file):  # uint8 [size, size, {channels}], upright, as in training
    image = ImageOps.exif_transpose(Image.open(file))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
{deep}    image = image.convert("RGB"){grey}
    width, height = image.size
{fit}

"""
_DEEP = """\
    if image.mode[0] in "IF":  # 16 bits or float
        values = (np.asarray(image).astype("f8") - {low!r}) * (255 / ({high!r} - {low!r}))
        values = np.nan_to_num(values, nan=0, posinf=0, neginf=0).clip(0, 255)
        image = Image.fromarray(np.rint(values).astype(np.uint8))
"""
_FITS = {
    "squash": """\
    pixels = resample(image, (0, 0, width, height), size, size)
    return pixels.reshape(size, size, {channels})
""",
    "crop": """\
    side = max(1, round(min(width, height) * {crop}))
    left, top = (width - side) // 2, (height - side) // 2
    pixels = resample(image, (left, top, left + side, top + side), size, size)
    return pixels.reshape(size, size, {channels})
""",
    "pad": """\
    across, down = (max(1, round(n * size / max(width, height))) for n in (width, height))
    left, top = (size - across) // 2, (size - down) // 2
    padded = np.zeros((size, size, {channels}), np.uint8)
    pixels = resample(image, (0, 0, width, height), across, down)
    padded[top : top + down, left : left + across] = pixels.reshape(down, across, {channels})
    return padded
""",
}
_TAIL = """\
images = []
for file in sys.argv[1:]:
    try:
        images.append(read(file))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        sys.exit(f"{file}: cannot be read: {error}")
rows = session.run(["probabilities"], {"images": np.stack(images)})[0]
for file, row in zip(sys.argv[1:], rows):
    best = row.argsort(kind="stable")[::-1][:3]
    names = [classes[k] if k < len(classes) else f"output {k}" for k in best]
    print(file, ", ".join(f"{name} {100 * row[k]:.1f} %" for name, k in zip(names, best)), sep="  ")
"""
_FILTERS = {"nearest": "NEAREST", "antialias": "BILINEAR", "bicubic": "BICUBIC"}


def script(path: Path, preprocessing: Preprocessing) -> str:
    """Python code that prints the three most likely classes of image files.

    path: of the ONNX file. It reads 8-bit images as residua does, and those of 16 bits and float if
    the preprocessing has their range.
    """
    size, channels = preprocessing.size, preprocessing.channels
    scale, grey = preprocessing.value_range, '.convert("L")' if channels == 1 else ""
    deep = "" if scale is None else _DEEP.format(low=scale[0], high=scale[1])
    filter = _FILTERS.get(preprocessing.interpolation)
    fit = _FITS[preprocessing.resize].format(channels=channels, crop=f"{preprocessing.crop:g}")
    return "".join(
        (
            _HEAD.format(path=str(path), size=size),
            _PILLOW.format(filter=filter) if filter else _BILINEAR,
            _READ.format(channels=channels, deep=deep, grey=grey, fit=fit),
            _TAIL,
        )
    )
