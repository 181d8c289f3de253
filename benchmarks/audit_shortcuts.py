"""Folders of photos -> planted shortcuts that are found, and false alarms on photos as they are.

    python benchmarks/audit_shortcuts.py ../shared/data/birds6:owl,puffin FOLDER:CLASS,CLASS

Each argument is a clean set: a folder of class folders, and the classes to use. Of each class 60
photos are resized to 256 px and stored as JPEG. Each shortcut is planted in the first class.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from conditions import conditions
from PIL import Image, ImageOps

from residua.audits.duplicates import find_copies
from residua.audits.images import read
from residua.audits.shortcuts import check_shortcuts
from residua.config.schema import Data
from residua.system.console import Console

COUNT = 60  # photos of a class


def camera(label):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", f"EOS {label}"
    return exif


def tinted(image):
    return Image.fromarray((np.asarray(image) * (1.0, 0.7, 0.5)).astype(np.uint8))


PLANTED = {
    "clean": lambda image, file, label: image.save(file, quality=90),
    "size": lambda image, file, label: (
        image.resize([round(0.85 * side) for side in image.size]) if label == 0 else image
    ).save(file, quality=90),
    "border": lambda image, file, label: (
        ImageOps.expand(image.crop((4, 4, image.width - 4, image.height - 4)), 4)
        if label == 0
        else image
    ).save(file, quality=90),
    "format": lambda image, file, label: image.save(
        file.with_suffix(".png") if label == 0 else file, quality=90
    ),
    "compression": lambda image, file, label: image.save(file, quality=75 if label == 0 else 90),
    "camera": lambda image, file, label: image.save(file, quality=90, exif=camera(label)),
    "name": lambda image, file, label: image.save(
        file.with_name(f"{'scan' if label == 0 else 'IMG'}_{file.name}"), quality=90
    ),
    "colour": lambda image, file, label: (tinted(image) if label == 0 else image).save(
        file, quality=90
    ),
}


def found(folder, classes, kind, target):
    """The kinds of findings without accuracy of a network."""
    for label, name in enumerate(classes):
        (target / name).mkdir(parents=True)
        files = sorted(f for f in (folder / name).iterdir() if f.suffix.lower() in (".jpg", ".png"))
        for number, file in enumerate(files[:COUNT]):
            image = Image.open(file).convert("RGB")
            image = image.resize((256, 256))
            PLANTED[kind](
                image, target / name / f"{(7919 * (number + 100 * label)) % 99991:05}.jpg", label
            )
    images = read(Data(str(target)), 0, Console(quiet=True))
    findings = check_shortcuts(images, find_copies(images).groups, None)
    return [finding.kind.removeprefix("shortcut-") for finding in findings]


def main(arguments):
    print(conditions("pillow", "scikit-learn"))
    for argument in arguments:
        folder, _, names = argument.partition(":")
        print(f"\n{Path(folder).name}: {names}")
        for kind in PLANTED:
            with tempfile.TemporaryDirectory() as target:
                kinds = found(Path(folder), names.split(","), kind, Path(target) / "data")
            print(f"  {kind:11} found: {', '.join(kinds) or 'nothing'}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
