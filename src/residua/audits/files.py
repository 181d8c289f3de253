"""Measurements of images -> findings about files, formats, sizes, exposure, classes."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from residua.audits.finding import EXAMPLES, Example, Finding
from residua.audits.images import AuditImages, file_suffix
from residua.data.dataset import SPLITS
from residua.data.fixes import Fix
from residua.data.measurements import Measured
from residua.system.words import agreeing, counted, percent

SUFFIXES = {  # of a format; other formats are not compared
    "JPEG": {"jpg", "jpeg", "jpe", "jfif"},
    "PNG": {"png", "apng"},
    "GIF": {"gif"},
    "BMP": {"bmp", "dib"},
    "TIFF": {"tif", "tiff"},
    "WEBP": {"webp"},
}
TINY = 16  # px: shorter side of an image without detail, where most have at least four times that
GIANT = 36_000_000  # pixels, where most have a tenth of them or fewer
SLIVER = 4.0  # aspect ratio, where most have half of it or less
CONSTANT = 2.0  # standard deviation of the grey values, 0..255
DARK, BRIGHT = 12.0, 244.0  # mean of the grey values, 0..255
OUTLIER = 4.0  # robust standard deviations
BLURRED = 0.25  # of the median sharpness, below which a blurred outlier is reported
FEW = 5  # images of a class
IMBALANCE = 10.0  # images of the largest class for one of the smallest
_COMMON = ("RGB", "L")


def check_files(images: AuditImages) -> list[Finding]:
    """Everything that file headers and single images show."""
    return [
        finding
        for finding in (
            _unreadable(images),
            *_structure(images),
            _suffixes(images),
            *_sizes(images),
            *_exposure(images),
            _blurred(images),
            _rotated(images),
            _modes(images),
            _animated(images),
        )
        if finding is not None
    ]


def _unreadable(images: AuditImages) -> Finding | None:
    if not images.unreadable:
        return None
    them = agreeing(len(images.unreadable), "it", "them")
    return Finding(
        "unreadable",
        "error",
        f"{counted(len(images.unreadable), 'file')} cannot be read",
        len(images.unreadable),
        f"Training skips {them}: replace or delete {them}.",
        tuple(Example(path, reason) for path, reason in images.unreadable),
    )


def _structure(images: AuditImages) -> Iterable[Finding]:
    """Class folders and how many images they have."""
    for warning in images.dataset.warnings:
        if "differ only in case" not in warning:
            yield Finding("structure", "warning", warning.rstrip("."), 1, "Check the folders.")
    names: dict[str, list[str]] = {}
    for name in images.classes:
        folded = unicodedata.normalize("NFKC", name).casefold()
        names.setdefault(re.sub(r"[\s_-]+", "", folded), []).append(name)
    for alike in names.values():
        if len(alike) > 1:
            yield Finding(
                "alike-class-names",
                "warning",
                f"The class names {', '.join(map(repr, alike))} differ only in case or spaces",
                len(alike),
                "If they are one class, merge the folders.",
            )
    counts = np.bincount(images.labels, minlength=len(images.classes))
    few = [f"{name} ({counts[n]})" for n, name in enumerate(images.classes) if counts[n] < FEW]
    if few:
        yield Finding(
            "small-classes",
            "warning",
            f"{counted(len(few), 'class', 'classes')} with fewer than {FEW} readable images: "
            f"{', '.join(few[:EXAMPLES])}",
            len(few),
            "Add images, or remove the class.",
        )
    elif counts.max() >= IMBALANCE * counts.min():
        large, small = (images.classes[int(n)] for n in (counts.argmax(), counts.argmin()))
        yield Finding(
            "imbalance",
            "note",
            f"{large} has {counts.max():,} images, {small} {counts.min():,}",
            len(images.classes),
            "Balanced accuracy and the metrics of each class matter more than accuracy. By "
            "default, `train` gives all classes equal weight in the loss "
            "(optimization.class_weights).",
        )
    yield from _missing_classes(images)


def _missing_classes(images: AuditImages) -> Iterable[Finding]:
    splits = [split for split in SPLITS if split in images.splits]
    if len(splits) < 2:
        return
    by_split = {split: set() for split in splits}  # type: dict[str, set[int]]
    for label, split in zip(images.labels.tolist(), images.splits, strict=True):
        by_split[split or "train"].add(label)
    for label, name in enumerate(images.classes):
        having = [split for split in splits if label in by_split[split]]
        if len(having) == 1:
            yield Finding(
                "class-in-one-split",
                "warning",
                f"The class {name!r} has images in the {having[0]} set alone",
                1,
                "Its accuracy cannot be measured: move some of its images to the other sets.",
            )


def _suffixes(images: AuditImages) -> Finding | None:
    def note(path: str, measured: Measured) -> str | None:
        format, suffix = measured.header.format, file_suffix(path)
        known = SUFFIXES.get(format)
        is_wrong = known is not None and suffix and suffix not in known
        return f"is a {format} file" if is_wrong else None

    return _finding(
        images,
        note,
        "wrong-suffix",
        "note",
        "{} with the suffix of another format",
        "residua goes by the content, but other programs may fail: rename {them}.",
    )


def _sizes(images: AuditImages) -> Iterable[Finding | None]:
    sizes = np.array([(m.header.width, m.header.height) for m in images.measured], np.float64)
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    area, aspect = sizes.prod(axis=1), long / np.maximum(short, 1)
    size = [f"{int(width)} x {int(height)} px" for width, height in sizes]
    yield _flagged(
        images,
        (short < TINY) & (np.median(short) >= 4 * TINY),
        size,
        "tiny",
        "warning",
        "{} so small that no detail is left",
        "Replace or exclude {them}.",
        fix=True,
    )
    yield _flagged(
        images,
        (area > GIANT) & (area > 10 * np.median(area)),
        size,
        "giant",
        "note",
        "{} far larger than the others",
        "Large images are slow to read: resize {them}.",
    )
    yield _flagged(
        images,
        (aspect > SLIVER) & (aspect > 2 * np.median(aspect)),
        size,
        "extreme-shape",
        "warning",
        "{} of extreme shape",
        "A centre crop shows little of {them}: crop or exclude {them}.",
        fix=True,
    )


def _exposure(images: AuditImages) -> Iterable[Finding | None]:
    contrast = np.array([m.contrast for m in images.measured])
    brightness = np.array([m.brightness for m in images.measured])
    constant = contrast < CONSTANT
    yield _flagged(
        images,
        constant,
        [f"grey value {value:.0f} of 255" for value in brightness],
        "constant",
        "warning",
        "{} of one colour, without content",
        "Exclude {them}.",
        fix=True,
    )
    middle = np.median(brightness)
    dark = (brightness < DARK) & (middle > 4 * DARK) & ~constant
    bright = (brightness > BRIGHT) & (middle < 255 - 4 * (255 - BRIGHT)) & ~constant
    yield _flagged(
        images,
        dark | bright,
        [f"mean grey value {value:.0f} of 255" for value in brightness],
        "exposure",
        "warning",
        "{} almost black or white",
        "Exclude images that show nothing.",
    )


def _blurred(images: AuditImages) -> Finding | None:
    """Images far less sharp than all others."""
    sharpness = np.array([m.sharpness for m in images.measured])
    short = np.array([min(m.header.width, m.header.height) for m in images.measured])
    usable = (np.array([m.contrast for m in images.measured]) >= CONSTANT) & (short >= 2 * TINY)
    if usable.sum() < 10:
        return None
    values = np.log(np.maximum(sharpness, 1e-4))
    middle = float(np.median(values[usable]))
    spread = 1.4826 * float(np.median(np.abs(values[usable] - middle)))
    limit = min(middle - OUTLIER * spread, middle + np.log(BLURRED))
    return _flagged(
        images,
        usable & (values < limit),
        [f"{percent(value / np.exp(middle))} of the usual sharpness" for value in sharpness],
        "blurred",
        "warning",
        "{} far more blurred than the others",
        "Exclude images that are too blurred to be labelled.",
    )


def _rotated(images: AuditImages) -> Finding | None:
    return _finding(
        images,
        lambda _, m: f"EXIF orientation {m.orientation}" if m.orientation != 1 else None,
        "exif-rotated",
        "note",
        "{} stored rotated or mirrored, with an EXIF orientation",
        "residua applies the orientation; programs that ignore EXIF show {them} rotated.",
    )


def _modes(images: AuditImages) -> Finding | None:
    """Colour modes that are rare in this data set."""
    modes = Counter(m.header.mode for m in images.measured)
    usual = {mode for mode, count in modes.items() if count > 0.5 * len(images.measured)}
    rare = {mode for mode, count in modes.items() if mode not in usual}
    if not usual:
        rare = {mode for mode in modes if mode not in _COMMON}
    return _finding(
        images,
        lambda _, m: f"colour mode {m.header.mode}" if m.header.mode in rare else None,
        "colour-modes",
        "note",
        "{} with another colour mode than most",
        "All images are converted to one mode; check that no class has a mode of its own.",
    )


def _animated(images: AuditImages) -> Finding | None:
    return _finding(
        images,
        lambda _, m: f"{m.frames} frames" if m.frames > 1 else None,
        "animated",
        "note",
        "{} with several frames",
        "Only the first frame is used.",
    )


def _finding(
    images: AuditImages,
    note: Callable[[str, Measured], str | None],
    kind: str,
    severity: str,
    title: str,
    action: str,
) -> Finding | None:
    """A finding about the images for which `note` returns one."""
    notes = [note(*pair) for pair in zip(images.paths, images.measured, strict=True)]
    flags = np.array([text is not None for text in notes], np.bool_)
    return _flagged(images, flags, [text or "" for text in notes], kind, severity, title, action)


def _flagged(
    images: AuditImages,
    flags: npt.NDArray[np.bool_],
    notes: Sequence[str],
    kind: str,
    severity: str,
    title: str,
    action: str,
    *,
    fix: bool = False,
) -> Finding | None:
    """A finding about the flagged images; with `fix`, it proposes to exclude them.

    title: "{}" is the number of images. action: "{them}" is "it" for one image.
    """
    rows = np.flatnonzero(flags).tolist()
    if not rows:
        return None
    paths = images.paths
    return Finding(
        kind,
        severity,  # type: ignore[arg-type]
        title.format(counted(len(rows), "image")),
        len(rows),
        action.format(them=agreeing(len(rows), "it", "them")),
        tuple(Example(paths[row], notes[row]) for row in rows),
        tuple(Fix(paths[row], "exclude", reason=kind) for row in rows) if fix else (),
    )
