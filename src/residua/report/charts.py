"""History rows -> the geometry of a line chart; the report's template draws it as SVG.

Also the few rules that the SVG charts and the PNG figures share: which lines there are, when a loss
wants a logarithmic axis, and how a share is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

History = Sequence[Mapping[str, float | None]]

# Part -> prefix of its keys in a history row, and its word.
SERIES = {
    "train": ("", "Training"),
    "validation": ("val_", "Validation"),
    "test": ("test_", "Test"),
}
WIDTH, HEIGHT = 480.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 406.0, 14.0, 250.0
LABEL_GAP = 16.0  # least distance of the last values' labels
DOTTED = 80  # epochs up to which every point has a dot, whose tooltip says its value


@dataclass(frozen=True)
class Dot:
    """A point of a line in the chart's units, and the sentence of its tooltip."""

    x: float
    y: float
    tooltip: str


@dataclass(frozen=True)
class Line:
    """One part's line: an SVG path with gaps where values are missing, its dots, its last value."""

    split: str
    name: str
    path: str
    dots: tuple[Dot, ...]
    last: Dot
    last_text: str
    label_y: float


@dataclass(frozen=True)
class Chart:
    """A chart of WIDTH x HEIGHT units; ticks are (position, text)."""

    title: str
    logarithmic: bool
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    kept: Dot | None


@dataclass(frozen=True)
class _Scale:
    """Linear or logarithmic: value -> position between the ends of an axis."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = (math.log10(max(each, self.low)) for each in (value, low, high))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def chart(history: History, kind: str, kept: int | None = None) -> Chart | None:
    """The lines of `kind`, "accuracy" or "loss", of all recorded parts; None without any value.

    Missing, NaN and infinite values leave gaps. `kept` is the epoch whose weights were kept.
    """
    epochs = [int(row.get("epoch") or index + 1) for index, row in enumerate(history)]
    values = {
        part: [finite(row, prefix + kind) for row in history]
        for part, (prefix, _) in SERIES.items()
    }
    values = {part: own for part, own in values.items() if not all(map(math.isnan, own))}
    if not values:
        return None
    known = [value for own in values.values() for value in own if not math.isnan(value)]
    logarithmic = kind == "loss" and wants_log(known)
    ticks = _value_ticks(known, kind, logarithmic)
    x = _Scale(min(epochs), max(epochs), LEFT + 8, RIGHT - 8)
    y = _Scale(ticks[0], ticks[-1], BOTTOM, TOP, logarithmic)
    lines = [_line(part, kind, epochs, own, x, y) for part, own in values.items()]
    return Chart(
        title=f"{joined([line.name for line in lines])} {kind}".capitalize(),
        logarithmic=logarithmic,
        lines=_apart(lines),
        x_ticks=tuple((x(epoch), str(epoch)) for epoch in _epoch_ticks(epochs)),
        y_ticks=tuple((y(tick), _axis_text(tick, kind)) for tick in ticks),
        kept=Dot(x(kept), TOP, f"epoch {kept} kept") if kept in epochs and kept else None,
    )


def counted(number: int, word: str) -> str:
    """A number with its word: "1 seed", "3 seeds", "1,000 images"."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def joined(words: Sequence[str]) -> str:
    """Words as a list in a sentence: "a", "a and b", "a, b and c"; nothing for none."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def finite(row: Mapping[str, float | None], key: str) -> float:
    """A number of a history row, NaN where it is missing or not finite."""
    value = row.get(key)
    return float(value) if value is not None and math.isfinite(value) else math.nan


def wants_log(values: Sequence[float]) -> bool:
    """Whether a loss spans so much that a linear axis would show only its worst epoch."""
    known = [value for value in values if value > 0]
    return bool(known) and max(known) > 30 * median(known)


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] as text, never rounded up to 100 or down to 0; "n/a" if not finite."""
    if not math.isfinite(share):
        return "n/a"
    step = 10.0**-digits
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        text = f"{100 - step:.{digits}f}"
    elif share > 0 and float(text) == 0:
        text = f"<{step:.{digits}f}"
    return f"{text} %"


def _line(
    part: str, kind: str, epochs: Sequence[int], values: Sequence[float], x: _Scale, y: _Scale
) -> Line:
    name = SERIES[part][1]
    dots, path, pen = [], "", "M"
    for epoch, value in zip(epochs, values, strict=True):
        if math.isnan(value):
            pen = "M"
            continue
        text = f"{name}, epoch {epoch}: {_value_text(value, kind)}"
        dots.append(Dot(x(epoch), y(value), text))
        path += f"{pen}{x(epoch):.1f} {y(value):.1f}"
        pen = "L"
    last = next(value for value in reversed(values) if not math.isnan(value))
    shown = tuple(dots) if len(epochs) <= DOTTED else ()
    return Line(part, name, path, shown, dots[-1], _value_text(last, kind), dots[-1].y)


def _apart(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The same lines with their last values' labels moved apart, as little as possible."""
    places: dict[str, float] = {}
    lowest = BOTTOM - LABEL_GAP * (len(lines) - 1)
    for line in sorted(lines, key=lambda line: line.last.y):
        above = max(places.values(), default=-math.inf)
        places[line.split] = max(min(line.last.y, lowest), above + LABEL_GAP)
        lowest += LABEL_GAP
    return tuple(replace(line, label_y=places[line.split]) for line in lines)


def _value_ticks(values: Sequence[float], kind: str, logarithmic: bool) -> list[float]:
    """Round numbers around the values: 1, 2 or 5 times a power of ten apart, or powers of ten."""
    low, high = min(values), max(values)
    if logarithmic:
        positive = min(value for value in values if value > 0)
        first, last = math.floor(math.log10(positive)), math.ceil(math.log10(high))
        return [10.0**power for power in range(first, max(last, first + 1) + 1)]
    if kind == "accuracy":
        high = max(high, min(1.0, low + 0.1))
        low = min(low, high - 0.1)
    elif high - low < 0.1 * abs(high):  # one epoch, or one value: some room above and below
        low, high = low - 0.1 * abs(low), high + 0.1 * abs(high)
    rough = max(high - low, 1e-6) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _epoch_ticks(epochs: Sequence[int]) -> list[int]:
    """The first and last epoch and round numbers well between them."""
    first, last = min(epochs), max(epochs)
    rough = max((last - first) / 6, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    between = range((first // step + 1) * step, last, step)
    room = 0.6 * step
    return sorted({first, last, *(e for e in between if e - first >= room and last - e >= room)})


def _value_text(value: float, kind: str) -> str:
    return percent(value, 1) if kind == "accuracy" else f"{value:.3g}"


def _axis_text(value: float, kind: str) -> str:
    return f"{round(100 * value, 6):g} %" if kind == "accuracy" else f"{round(value, 9):g}"
