"""A built network and an input size -> an SVG picture of its stages and of each kind of its units.

Everything is read from the layer table of the built module (residua.networks.cost): boxes are rows,
lines are what a row is connected to. A unit is what the table calls stages.S.units.U, with the
parts of the unit grammar: before, branch, shortcut, add, after.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from torch import nn

from residua.networks.cost import Cost, Layer, Size, Stage, measure

WIDTH, MARGIN = 1312, 48  # of the page, in pixels
BOX, SIDE, HEIGHT, GAP = 190, 128, 30, 14  # widths of boxes in branch and shortcut; height, space
CARD, GUTTER = 392, 20  # width of a unit's card, space between cards
BARS, AXIS = 150, 212  # height of the tallest bar, y of the line through all bars
TIMES = "\N{MULTIPLICATION SIGN}"

STYLE = """
text { font: 12.5px Inter, "Helvetica Neue", "Segoe UI", Arial, sans-serif; fill: #1b2430;
  font-variant-numeric: tabular-nums }
.title { font-size: 26px; font-weight: 650 } .head { font-size: 15px; font-weight: 600 }
.strong { font-weight: 600 } .muted { fill: #667284 } .small { font-size: 11.5px }
.page { fill: #f6f7f9 } .card { fill: #fff; stroke: #e2e6eb } .tip { fill: #8b96a5 }
.line { fill: none; stroke: #8b96a5; stroke-width: 1.4 } .rule { fill: none; stroke: #d5dae1 }
.plus { fill: #fff; stroke: #1b2430; stroke-width: 1.4 } .plain { fill: #a3adba }
.conv { fill: #dfebfb; stroke: #85b1ea } .norm { fill: #fcedcd; stroke: #dfb65c }
.act { fill: #daf1e3; stroke: #76c096 } .pool { fill: #ebe2fa; stroke: #b297e4 }
.dense { fill: #fbe0e3; stroke: #e4909c } .other { fill: #eef0f3; stroke: #b7bfca }
.kind0 { fill: #3a7bd0 } .kind1 { fill: #e0873a } .kind2 { fill: #2f9e77 }
.kind3 { fill: #9566cf } .kind4 { fill: #cf5568 }
@media (prefers-color-scheme: dark) {
text { fill: #e7ebf1 } .muted { fill: #95a2b3 } .plain { fill: #5d6878 }
.page { fill: #11151b } .card { fill: #191f28; stroke: #2b3441 } .tip { fill: #7d8a9b }
.line { stroke: #7d8a9b } .rule { stroke: #303a48 } .plus { fill: #191f28; stroke: #e7ebf1 }
.conv { fill: #1c3150; stroke: #4a83c8 } .norm { fill: #3d3119; stroke: #b18a3c }
.act { fill: #1a3829; stroke: #4c9c72 } .pool { fill: #31254a; stroke: #8668c2 }
.dense { fill: #442228; stroke: #c2606c } .other { fill: #252c36; stroke: #566172 }
}"""
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" role="img">
<title>{name}</title>
<style>{style}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" \
orient="auto"><path class="tip" d="M0 .8 7.5 4 0 7.2z"/></marker></defs>
<rect class="page" width="{width}" height="{height}"/>
{elements}
</svg>
"""
_BOXES = {  # how the kind of a layer begins -> the colour of its box
    "Convolution": "conv",
    "Batch norm": "norm",
    "ReLU": "act",
    "Max pool": "pool",
    "Average pool": "pool",
    "Linear": "dense",
}


def draw(network: nn.Module, name: str, input: Size) -> str:
    """The network as SVG text, light or dark as its viewer prefers; `input` is (C, H, W).

    Stages in a row with their map sizes, widths and unit counts, and each distinct kind of unit as
    the papers draw it. A network without stages is one column of its layers. Raises ResiduaError
    where the network does not take such a picture.
    """
    cost = measure(network, input)
    paper = _Paper([])
    paper.text(MARGIN, 72, name, "title", room=WIDTH - 2 * MARGIN)
    facts = (
        f"{_times(input)} → {_times(cost.layers[-1].output)}",
        f"{cost.total:,} parameters, {cost.trainable:,} of them trainable",
        f"{cost.multiply_adds:,} multiply-adds",
    )
    paper.text(MARGIN, 100, " · ".join(facts), "muted")
    if cost.stages:
        legend = "a bar is a unit or a convolution, as high as its map, as thick as its width"
        paper.text(WIDTH - MARGIN, 100, legend, "muted", "end")
        units = [unit for stage in cost.stages for unit in _units(cost, stage)]
        kinds = sorted(dict.fromkeys(unit.kind for unit in units), key=lambda kind: not kind[-1])
        bottom = _cards(paper, units, kinds, _overview(paper, cost, units, kinds))
    else:
        bottom = _column(paper, cost)
    return _SVG.format(
        width=WIDTH,
        height=round(bottom + MARGIN),
        name=escape(name),
        style=STYLE,
        elements="\n".join(paper.elements),
    )


@dataclass(frozen=True)
class _Unit:
    """A residual unit as the layer table shows it. tapped: the shortcut reads before(x), not x."""

    stage: str
    number: int
    input: tuple[int, ...]
    layers: dict[str, list[Layer]]
    tapped: bool

    @property
    def output(self) -> tuple[int, ...]:
        return next(reversed(self.layers.values()))[-1].output

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for units that differ in nothing but widths and map sizes."""
        words = tuple((part, _words(each)) for part, rows in self.layers.items() for each in rows)
        return (*words, self.tapped, self.input == self.output)

    @property
    def title(self) -> str:
        words = " ".join(_words(each) for each in self.layers.get("shortcut", ()))
        if "add" not in self.layers:
            title = "Plain unit, no shortcut"
        elif not words:
            title = "Identity unit" + ", activated shortcut" * self.tapped
        elif "conv" in words:
            title = "Average-pool projection unit" if "pool" in words else "Projection unit"
        else:
            title = "Zero-padding unit"
        stride = math.ceil(self.input[-1] / self.output[-1])
        return title + f", stride {stride}" * (stride > 1)


def _units(cost: Cost, stage: Stage) -> list[_Unit]:
    shapes = {each.name: each.output for each in cost.layers}
    groups: dict[int, dict[str, list[Layer]]] = {}
    for each in stage.layers:
        if found := re.match(rf"{re.escape(stage.name)}\.units\.(\d+)\.(\w+)", each.name):
            groups.setdefault(int(found[1]), {}).setdefault(found[2], []).append(each)
    units = []
    for number, layers in groups.items():
        if "branch" not in layers:  # another family's unit: its stage is drawn as boxes
            continue
        x = next(iter(layers.values()))[0].connected_to[0]
        reader = layers.get("shortcut", layers.get("add", []))[:1]  # what takes the shortcut's end
        ready = {each.name for each in layers.get("before", ())}
        tapped = any(ready & set(each.connected_to) for each in reader)
        units.append(_Unit(stage.name, number, shapes[x], layers, tapped))
    return units


def _overview(paper: _Paper, cost: Cost, units: Sequence[_Unit], kinds: Sequence[object]) -> float:
    """Stages in a row, one bar a unit; below, what a part without units holds. Returns the foot."""
    column, bottom = (WIDTH - 2 * MARGIN) / (len(cost.stages) + 1), 0.0
    middle, picture = MARGIN + column / 2, cost.layers[0].output
    paper.path(f"M{middle:.1f} {AXIS}H{WIDTH - MARGIN - column / 2:.1f}", "rule")
    rows: list[list[tuple[str, tuple[int, ...]]]] = [[("plain", picture)]]
    for stage in cost.stages:
        inside = [unit for unit in units if unit.stage == stage.name]
        blocks = [("plain", each.output) for each in stage.layers if _has_width(each)]
        rows.append([(_colour(kinds, unit), unit.output) for unit in inside] or blocks)
    rows = [row if len(row) <= 40 else [*row[:10], *[("", ())] * 3, *row[-10:]] for row in rows]
    roots = [[math.sqrt((shape or (16,))[0]) for _, shape in row] for row in rows]
    scale = min(22 / max(map(max, roots)), (column - 30) / 1.35 / max(map(sum, roots)))
    paper.caption(middle, "input", _times(picture))
    paper.bars(middle, rows[0], picture[-1], scale)
    for stage, row in zip(cost.stages, rows[1:], strict=True):
        middle += column
        paper.bars(middle, row, picture[-1], scale)
        logits = len(stage.output) == 1
        y = paper.caption(middle, stage.name, _times(stage.output) + " logits" * logits)
        counts = Counter(_colour(kinds, unit) for unit in units if unit.stage == stage.name)
        if counts:
            y = paper.tally(middle, y + 24, counts)
        else:
            y = paper.stack(middle, y + 14, min(column - 16, 160), stage.layers, gap=8)
        bottom = max(bottom, y)
    return bottom


def _cards(paper: _Paper, units: Sequence[_Unit], kinds: Sequence[object], top: float) -> float:
    """A card per kind of unit, three in a row. Returns the foot."""
    for first in range(0, len(kinds), 3):
        row, behind, feet = kinds[first : first + 3], len(paper.elements), []
        lefts = [MARGIN + place * (CARD + GUTTER) for place in range(len(row))]
        top += 36
        for left, kind in zip(lefts, row, strict=True):
            alike = [unit for unit in units if unit.kind == kind]
            paper.dot(left + 24, top + 27, 6, _colour(kinds, alike[0]))
            paper.text(left + 38, top + 32, alike[0].title, "head", room=CARD - 50)
            foot = _diagram(paper, alike[0], left + 38, top + 70)
            feet.append(_places(paper, alike, left + 20, foot + 40))
        for left in lefts:  # all as high as the highest, which is known only now
            frame = f'x="{left}" y="{top}" width="{CARD}" height="{max(feet) - top}" rx="12"'
            paper.elements.insert(behind, f'<rect class="card" {frame}/>')
        top = max(feet)
    return top


def _diagram(paper: _Paper, unit: _Unit, left: float, top: float) -> float:
    """A unit as the papers draw it, its trunk at the left. Returns the foot."""
    middle, behind = left + BOX / 2, len(paper.elements)
    paper.text(middle, top, f"x   {_times(unit.input)}", "muted", "middle")
    tap = y = top + 24
    for part in ("before", "branch", "add", "after"):
        if part == "add" and part in unit.layers:
            paper.arc(middle, tap, y + GAP + 12, unit.layers.get("shortcut", []))
            y += GAP + 24
        elif part in unit.layers:
            start = y + GAP
            y = paper.stack(middle, start, BOX, unit.layers[part])
            paper.brace(left - 9, start, y, part)
        if part == "before" in unit.layers and unit.tapped:
            tap = y = y + GAP
    paper.elements.insert(
        behind, f'<path class="line" d="M{middle} {top + 9}V{y + 24}" marker-end="url(#tip)"/>'
    )
    paper.text(middle, y + 40, _times(unit.output), "muted", "middle")
    return y + 40


def _places(paper: _Paper, alike: Sequence[_Unit], left: float, top: float) -> float:
    """Where units of this kind stand, with their widths and maps. Returns the foot."""
    lines = [("stage", "units", "widths", "map")]
    for stage, group in groupby(alike, key=lambda unit: unit.stage):
        units = list(group)
        numbers = [each.number for each in units]
        places = ", ".join(map(str, numbers))
        if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
            places = f"{numbers[0]} to {numbers[-1]}"
        outputs = [each.output[0] for each in units[0].layers["branch"] if _has_width(each)]
        widths = " → ".join(map(str, (units[0].input[0], *outputs)))
        lines.append((stage, places, widths, _times(units[0].output[1:])))
    paper.path(f"M{left} {top + 8}h{CARD - 40}", "rule")
    for number, (stage, places, widths, area) in enumerate(lines):
        style, y = ("small", top + 20 * number + 7) if number else ("small muted", top)
        paper.text(left, y, stage, style)
        paper.text(left + 60, y, places, style, room=62)
        paper.text(left + 126, y, widths, style)
        paper.text(left + CARD - 40, y, area, style, "end")
    return top + 20 * len(lines) + 10


def _column(paper: _Paper, cost: Cost) -> float:
    """All layers below each other, and what they read if not the one above. Returns the foot."""
    y, above = 130.0, ""
    paper.path(f"M{MARGIN + 120} {y}v{len(cost.layers) * (HEIGHT + 8) - 8}", "line")
    for each in cost.layers:
        paper.stack(MARGIN + 120, y, 240, [each])
        paper.text(MARGIN + 260, y + 20, _times(each.output), "muted", room=150)
        paper.text(MARGIN + 420, y + 20, each.name, "", room=340)
        if each.connected_to not in ((), (above,)):
            reads = "reads " + ", ".join(each.connected_to)
            paper.text(MARGIN + 770, y + 20, reads, "muted", room=WIDTH - 2 * MARGIN - 770)
        y, above = y + HEIGHT + 8, each.name
    return y


@dataclass(frozen=True)
class _Paper:
    """SVG elements in the order of painting. All lengths are pixels; y grows downwards."""

    elements: list[str]

    def text(
        self, x: float, y: float, text: str, style: str, anchor: str = "start", room: float = 0
    ) -> None:
        """One line; with `room`, cut to about that many pixels."""
        letters = int(room / {"title": 14.5, "head": 8.2}.get(style, 6.3))
        if room and len(text) > letters:
            text = text[: letters - 1] + "…"
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" xml:space="preserve"'
        self.elements.append(f'<text class="{style}" {place}>{escape(text)}</text>')

    def path(self, course: str, style: str, more: str = "") -> None:
        self.elements.append(f'<path class="{style}" d="{course}" {more}/>')

    def dot(self, x: float, y: float, radius: float, style: str) -> None:
        self.elements.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')

    def rectangle(self, box: tuple[float, float, float, float], round: float, style: str) -> None:
        x, y, width, height = box
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self.elements.append(f'<rect class="{style}" {place} rx="{round}"/>')

    def bars(
        self, middle: float, row: Sequence[tuple[str, tuple[int, ...]]], side: int, scale: float
    ) -> None:
        """A bar per (colour, shape), as high as its map and as thick as its width: square roots, or
        a last map of 7 pixels and a first width of 64 could not be seen."""
        thick = [max(scale * math.sqrt((shape or (16,))[0]), 1.4) for _, shape in row]
        x = middle - sum(thick) * 1.35 / 2
        for (colour, shape), width in zip(row, thick, strict=True):
            high = max(BARS * math.sqrt((shape[-1] if len(shape) == 3 else 1) / side), 8)
            if shape:
                self.rectangle((x, AXIS - high / 2, width, high), 1.5, colour)
            else:  # some of very many
                self.dot(x + width / 2, AXIS, 1.8, "tip")
            x += width * 1.35

    def caption(self, middle: float, title: str, shape: str) -> float:
        self.text(middle, AXIS + BARS / 2 + 28, title, "head", "middle")
        self.text(middle, AXIS + BARS / 2 + 48, shape, "muted", "middle")
        return AXIS + BARS / 2 + 48

    def tally(self, middle: float, y: float, counts: Counter[str]) -> float:
        """How many units there are, and how many of each colour."""
        total = counts.total()
        self.text(middle, y, f"{total} unit" + "s" * (total > 1), "strong", "middle")
        x = middle - 23 * len(counts)
        for colour, count in counts.items():
            self.dot(x + 9, y + 18, 5, colour)
            self.text(x + 19, y + 22, f"{TIMES} {count}", "muted")
            x += 46
        return y + 24

    def stack(
        self, middle: float, top: float, width: float, rows: Sequence[Layer], gap: float = GAP
    ) -> float:
        """Boxes below each other on a line; returns the y of the foot."""
        foot, left = top + len(rows) * (HEIGHT + gap) - gap, middle - width / 2
        self.path(f"M{middle:.1f} {top:.1f}V{foot:.1f}", "line")
        for number, each in enumerate(rows):
            y = top + number * (HEIGHT + gap)
            styles = (box for word, box in _BOXES.items() if each.kind.startswith(word))
            self.rectangle((left, y, width, HEIGHT), 6, next(styles, "other"))
            wide, y = _has_width(each), y + HEIGHT / 2 + 4.5
            self.text(left + 10, y, _words(each), "", room=width - (46 if wide else 14))
            if wide:
                self.text(left + width - 10, y, str(each.output[0]), "strong", "end")
        return foot

    def arc(self, middle: float, tap: float, plus: float, rows: Sequence[Layer]) -> None:
        """A shortcut from the tap at the trunk, through its layers, into the plus sign."""
        beside, centre = middle + BOX / 2 + 22 + SIDE / 2, (tap + plus) / 2
        course = f"M{middle} {tap}H{beside - 14}q14 0 14 14V{plus - 14}q0 14 -14 14H{middle + 13}"
        self.path(course, "line", 'marker-end="url(#tip)"')
        self.dot(middle, tap, 3.5, "tip")
        sign = f"M{middle - 6} {plus}h12m-6 -6v12"
        self.path(f"M{middle - 12} {plus}a12 12 0 1 1 24 0a12 12 0 1 1 -24 0{sign}", "plus")
        if rows:
            self.stack(beside, centre - (len(rows) * (HEIGHT + GAP) - GAP) / 2, SIDE, rows)
        else:
            self.text(beside - 10, centre + 4, "identity", "muted", "end")

    def brace(self, x: float, top: float, foot: float, part: str) -> None:
        """A line along a part of a unit, with its name."""
        self.path(f"M{x} {top}V{foot}", "rule")
        turn = f'transform="translate({x - 6} {(top + foot) / 2}) rotate(-90)"'
        self.elements.append(f'<text class="small muted" text-anchor="middle" {turn}>{part}</text>')


def _colour(kinds: Sequence[object], unit: _Unit) -> str:
    return f"kind{kinds.index(unit.kind) % 5}"


def _has_width(layer: Layer) -> bool:
    return layer.kind.startswith(("Convolution", "Linear"))


def _words(layer: Layer) -> str:
    """A kind as it is written in a box: "conv 3x3 /2, 32 groups", with a multiplication sign."""
    text = layer.kind.replace("Convolution", "conv").replace("Average", "avg").replace("/", " /")
    text = re.sub(r"(?<=\d)x(?=\d)", TIMES, text)
    return text if text[1:3].isupper() or "LU" in text else text[:1].lower() + text[1:]


def _times(shape: Sequence[int]) -> str:
    return f" {TIMES} ".join(map(str, shape))
