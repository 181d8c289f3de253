"""DATA -> an Audit: findings, the worst first, with proposed fixes; as text, JSON or HTML."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.audits.duplicates import Copies, check_duplicates, find_copies
from residua.audits.files import check_files
from residua.audits.finding import SEVERITIES, Finding
from residua.audits.images import AuditImages, Floats, of_prepared, read
from residua.audits.labels import MIN_CLASS, check_labels, predict
from residua.audits.learning_curve import LearningCurve, check_size, learning_curve
from residua.audits.shortcuts import check_shortcuts
from residua.config.recipes import data_settings
from residua.data.fixes import Fix, write_fixes
from residua.data.given import DataLike, path_of
from residua.data.pixels import checked_range
from residua.data.prepared import Prepared
from residua.data.random import Integers
from residua.data.value_range import ValueRange
from residua.inference.logistic import single_blas_thread
from residua.system.console import Console
from residua.system.files import check_output, user_path
from residua.system.notebook import shown
from residua.system.words import counted, percent

FEATURE_SECONDS = 60.0  # for features that are not cached yet
_TEXT_DETAILS, _TEXT_EXAMPLES = 12, 3  # lines and images of a finding in the text
_ALARMS = 3  # findings that are named in a line
_PRINTED = (  # kinds that notes on the splits have named before training
    "identical-across-classes",
    "identical-across-splits",
    "near-duplicates-across-classes",
    "near-duplicates-across-splits",
)


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit.

    findings: the worst first. data, images, classes: what was audited. featured: images with
    features, on which labels were checked. accuracy: cross-validated on these, None if unknown.
    groups: of each image: near-duplicates and groups of --group-by share a number, int64 [N].
    seconds: by step. measured: the images, to draw examples.
    """

    data: str
    findings: tuple[Finding, ...]
    images: int
    classes: tuple[str, ...]
    featured: int
    accuracy: float | None
    curve: LearningCurve | None
    groups: Integers
    seconds: dict[str, float]
    measured: AuditImages

    def __repr__(self) -> str:
        return f"Audit({self.summary!r})"

    def _repr_html_(self) -> str:
        return str(shown("audit_html", self))

    @property
    def summary(self) -> str:
        """One line: the images and the number of findings."""
        number = {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES}
        parts = [counted(count, severity) for severity, count in number.items() if count]
        found = ", ".join(parts) or "nothing found"
        return (
            f"{counted(self.images, 'image')} in "
            f"{counted(len(self.classes), 'class', 'classes')}: {found}"
        )

    @property
    def fixes(self) -> list[Fix]:
        """The proposed fixes, one for an image: exclusions before new labels."""
        chosen: dict[str, Fix] = {}
        for action in ("exclude", "relabel"):
            for finding in self.findings:
                for fix in finding.fixes:
                    if fix.action == action:
                        chosen.setdefault(fix.path, fix)
        return sorted(chosen.values(), key=lambda fix: fix.path)

    @property
    def beyond_files(self) -> list[Finding]:
        """Findings that reading the data has not reported already."""
        return [f for f in self.findings if f.kind not in ("unreadable", "structure")]

    @property
    def alarm(self) -> str:
        """The errors and warnings of `beyond_files` in a line; "" if there are none."""
        serious = [f for f in self.beyond_files if f.severity != "note"]
        titles = [f.title for f in serious if f.kind not in _PRINTED]
        if len(titles) < len(serious):
            titles.append("Copies across classes or splits, as noted before training")
        rest = len(titles) - _ALARMS
        more = [f"More findings: {rest}"] if rest > 0 else []
        return ". ".join(titles[:_ALARMS] + more)  # not "; ", which titles may contain

    @property
    def coverage(self) -> str:
        """Which images the labels were checked on, and why not on all; "" if on all."""
        if self.featured == self.images:
            return ""
        if not self.featured:
            return "Labels were not checked, as there are no features of pretrained weights."
        return (
            f"Labels were checked on {self.featured:,} of {self.images:,} images, those with "
            "features of pretrained weights."
        )

    @property
    def notes(self) -> list[str]:
        """Sentences on how labels were checked, and on which images."""
        more = " Larger --seconds, or the same command again, adds others." if self.featured else ""
        coverage = self.coverage and f"{self.coverage}{more}"
        return [note for note in (self.label_check if self.findings else "", coverage) if note]

    @property
    def label_check(self) -> str:
        """Name and accuracy of the predictions that labels were compared with, or ""."""
        if self.accuracy is None:
            return ""
        return (
            "Labels are compared with predictions of a linear probe and nearest neighbours on "
            "features of the network; their cross-validated accuracy is "
            f"{percent(self.accuracy, 1)}."
        )

    def text(self) -> str:
        """The summary and a paragraph for each finding."""
        lines = [self.summary]
        for finding in self.findings:
            lines += ["", f"{finding.severity}: {finding.title}. {finding.action}"]
            # copies are in the note of the first of them
            examples = [e for e in finding.examples if e.note] or finding.examples
            notes = [f"{e.path}{'  ' + e.note if e.note else ''}" for e in examples]
            for items, most in ((finding.details, _TEXT_DETAILS), (notes, _TEXT_EXAMPLES)):
                lines += [f"  {item}" for item in items[:most]]
                if len(items) > most:
                    lines.append(f"  ... {len(items) - most:,} more")
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data with every finding and every image of each."""
        curve = self.curve
        return {
            "data": self.data,
            "images": self.images,
            "classes": list(self.classes),
            "featured": self.featured,
            "accuracy": self.accuracy,
            "learning_curve": None
            if curve is None
            else {
                "images_per_class": list(curve.images),
                "accuracy": list(curve.accuracy),
                "more_per_class": curve.more,
                "gain": curve.gain,
                "interval": list(curve.interval),
                "class_gains": dict(zip(self.classes, curve.class_gains, strict=True)),
            },
            "findings": [finding.to_json() for finding in self.findings],
            "seconds": {step: round(value, 3) for step, value in self.seconds.items()},
        }

    def write_fixes(self, path: str | Path) -> int:
        """Write the fix list that `train --fixes` reads; returns its lines. Raises ResiduaError."""
        target = user_path(path)
        check_output(target, (".csv",), [self.data])
        write_fixes(target, self.fixes)
        return len(self.fixes)


def audit(
    data: DataLike,
    *,
    group_by: str = "",
    seconds: float = FEATURE_SECONDS,
    settings: Mapping[str, object] | None = None,
    value_range: ValueRange | None = None,
    quiet: bool = True,
) -> Audit:
    """Check a data set before training: files, copies, labels, shortcuts; see docs/audit.md.

    data: see `train`. The folder is only read.
    group_by: images that must share a split: "folder", a column of a table, a regular expression
        on paths, or "FILE.csv:COLUMN".
    seconds: time limit for features that are not cached yet; labels are checked on images with
        features. 0: none.
    settings: columns of a table, {"data.label_column": "breed"}.
    value_range: (black, white) of arrays and tensors with other values than uint8 or 0..1.
    quiet: print nothing.

    Raises ResiduaError if no image can be read.
    """
    began = time.monotonic()
    chosen = data_settings({"data.group_by": group_by, **(settings or {})})
    path = path_of(data, chosen, checked_range(value_range))
    images = read(dataclasses.replace(chosen, path=path), seconds, Console(quiet))
    return examine(path, images, find_copies(images), time.monotonic() - began)


def examine(
    data: str,
    images: AuditImages,
    copies: Copies,
    seconds: float = 0.0,
    margins: npt.NDArray[np.float64] | None = None,
) -> Audit:
    """The findings on measured images of `data`. seconds: that were spent on them before. margins:
    float64 [N], of a training; NaN: not trained on."""
    timer = _Timer({"reading, features and copies": seconds})
    findings = check_files(images) if images.measured else []
    findings += check_duplicates(images, copies)
    timer.step("files")
    accuracy, curve = None, None
    usable = _usable(images, copies.groups)
    with single_blas_thread():
        if len(usable):
            features = images.features[usable]
            rows = images.featured[usable]
            labels, groups = images.labels[rows], copies.groups[rows]
            classes = len(images.classes)
            predictions = predict(features, labels, groups, classes)
            accuracy = float((predictions.combined.argmax(axis=1) == labels).mean())
            paths = [images.paths[row] for row in rows]
            trained = None if margins is None else margins[rows]
            alike = copies.alike[rows]
            findings += check_labels(predictions, labels, images.classes, paths, alike, trained)
            timer.step("labels")
            curve = learning_curve(features, labels, groups, classes)
            findings += check_size(curve, images.classes)
            timer.step("learning curve")
        if images.measured:
            findings += check_shortcuts(images, copies.groups, accuracy)
    timer.step("shortcuts")
    return Audit(
        data=data,
        findings=tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity))),
        images=len(images.rows),
        classes=images.classes,
        featured=len(images.featured),
        accuracy=accuracy,
        curve=curve,
        groups=copies.groups,
        seconds=timer.seconds,
        measured=images,
    )


def check_training(
    prepared: Prepared,
    samples: Integers,
    features: Floats,
    margins: npt.NDArray[np.float64] | None = None,
) -> Audit:
    """The audit of a training's images, without reading them again.

    samples, features: entries int64 [M] whose features float32 [M, D] are at hand. margins: float64
    [N], of all entries, see training.margins; None: nothing was trained step by step.
    """
    images = of_prepared(prepared, samples, features)
    if margins is not None:
        margins = margins[images.rows]
    copies = find_copies(images, prepared.near)
    return examine(prepared.config.data.path, images, copies, margins=margins)


def _usable(images: AuditImages, groups: Integers) -> Integers:
    """Rows of the features whose class has enough images to be checked, not all of one group."""
    labels, groups = images.labels[images.featured], groups[images.featured]
    counts = np.bincount(labels, minlength=len(images.classes))
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    several = np.bincount(pairs[0], minlength=len(images.classes)) > 1
    usable = np.flatnonzero((counts[labels] >= MIN_CLASS) & several[labels])
    return usable if len(np.unique(labels[usable])) > 1 else usable[:0]


class _Timer:
    """Seconds of consecutive steps."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self._last = time.monotonic()

    def step(self, name: str) -> None:
        """End a step."""
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now
