"""A built network and an input size -> an SVG drawing of its stages and of each kind of unit.

Everything is read from the layer table of the built module (see cost). A unit is the rows named
stages.S.units.U; its parts are before, branch, shortcut, add and after.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from torch import nn

from residua.networks.analysis.cost import Cost, Layer, Size, Stage, measure
from residua.system.files import DRAWN

WIDTH, MARGIN = 1312, 48  # of the page, in pixels
BOX, SIDE, HEIGHT, GAP = 190, 128, 30, 14  # widths of boxes in branch and shortcut; height, space
CARD, GUTTER = 392, 20  # width of a unit's card, space between cards
BARS, AXIS = 150, 212  # height of the tallest bar, y of the line through all bars
TIMES = "\N{MULTIPLICATION SIGN}"
WIDE = ("Convolution", "Linear")  # kinds of layers that are drawn with their width

HEAD = """<style>
text { font: 12.5px Inter, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1b2430 }
.title { font-size: 26px; font-weight: 650 } .head { font-size: 15px; font-weight: 600 }
.strong { font-weight: 600 } .muted { fill: #667284 } .small { font-size: 11.5px }
.page { fill: #f6f7f9 } .card { fill: #fff; stroke: #e2e6eb } .under { fill: #fff }
.line { fill: none; stroke: #8b96a5; stroke-width: 1.4 } .rule { fill: none; stroke: #d5dae1 }
.plus { fill: #fff; stroke: #1b2430; stroke-width: 1.4 } .tip { fill: #8b96a5 }
.box { fill: #8794a6; stroke: #8794a6; fill-opacity: .16; stroke-opacity: .65 }
.convolution { fill: #4187dd; stroke: #4187dd } .batch { fill: #dba32e; stroke: #dba32e }
.relu { fill: #3fae70; stroke: #3fae70 } .max, .average { fill: #9067d6; stroke: #9067d6 }
.linear { fill: #dd5b6e; stroke: #dd5b6e } .plain { fill: #a3adba } .kind0 { fill: #3a7bd0 }
.kind1 { fill: #e0873a } .kind2 { fill: #2f9e77 } .kind3 { fill: #9566cf } .kind4 { fill: #cf5568 }
@media (prefers-color-scheme: dark) {
text { fill: #e7ebf1 } .muted { fill: #95a2b3 } .box { fill-opacity: .24 } .plain { fill: #5d6878 }
.page { fill: #11151b } .card { fill: #191f28; stroke: #2b3441 } .under { fill: #191f28 }
.line { stroke: #7d8a9b } .rule { stroke: #303a48 } .tip { fill: #7d8a9b }
.plus { fill: #191f28; stroke: #e7ebf1 } }</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
orient="auto"><path class="tip" d="M0 .8 7.5 4 0 7.2z"/></marker></defs>"""

Bars = list[tuple[str, tuple[int, ...]]]  # colour, shape of the map
Colours = dict[tuple[object, ...], str]  # of the kinds of units
Rows = Sequence[Layer]


def draw(network: nn.Module, name: str, input: Size) -> str:
    """The network as SVG text, light or dark as its viewer prefers. input: (C, H, W).

    Stages in a row with their maps, widths and unit counts, and each kind of unit as in the papers;
    a network without stages is a column of its layers. Raises ResiduaError as `measure` does.
    """
    cost, paper = measure(network, input), _Paper([])
    sizes = f"{_times(input)} → {_times(cost.layers[-1].output)}"
    totals = f"{cost.parameters:,} parameters, {cost.trainable:,} of them trainable"
    paper.text(MARGIN, 72, name, "title", room=WIDTH - 2 * MARGIN)
    paper.text(MARGIN, 100, f"{sizes} · {totals} · {cost.multiply_adds:,} multiply-adds", "muted")
    if cost.stages:
        units = [unit for stage in cost.stages for unit in _units(cost, stage)]
        kinds = sorted(dict.fromkeys(unit.kind for unit in units), key=lambda kind: not kind[-1])
        colours = {kind: f"kind{number % 5}" for number, kind in enumerate(kinds)}
        bottom = _cards(paper, units, colours, _overview(paper, cost, units, colours))
    else:
        bottom = _column(paper, cost)
    page = f'width="{WIDTH}" height="{bottom + MARGIN:.0f}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + MARGIN:.0f}"'
    title = f'{svg} {page} role="img">\n<title>{escape(name)}</title>'
    head = (title, f"<!-- {DRAWN} -->", HEAD, f'<rect class="page" {page}/>')
    return "\n".join((*head, *paper.elements, "</svg>\n"))


@dataclass(frozen=True)
class _Unit:
    """A residual unit of the layer table.

    layers: rows by part. tapped: the shortcut reads before(x), not x.
    """

    stage: str
    number: int
    input: tuple[int, ...]
    output: tuple[int, ...]
    layers: dict[str, list[Layer]]
    tapped: bool

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for units that differ only in widths and map sizes."""
        words = tuple((part, _words(row)) for part, rows in self.layers.items() for row in rows)
        return (*words, self.tapped, self.input == self.output)

    @property
    def title(self) -> str:
        words = " ".join(map(_words, self.layers.get("shortcut", ())))
        title = "Identity unit" + ", activated shortcut" * self.tapped
        if "add" not in self.layers:
            title = "Plain unit, no shortcut"
        elif words:
            title = "Zero-padding unit" if "zero" in words else "Projection unit"
        stride = math.ceil(self.input[-1] / self.output[-1])
        return title + ", average pool" * ("pool" in words) + f", stride {stride}" * (stride > 1)


def _units(cost: Cost, stage: Stage) -> Iterator[_Unit]:
    shapes = {layer.name: layer.output for layer in cost.layers}
    groups: dict[int, dict[str, list[Layer]]] = {}
    for layer in stage.layers:
        if match := re.match(rf"{re.escape(stage.name)}\.units\.(\d+)\.(\w+)", layer.name):
            groups.setdefault(int(match[1]), {}).setdefault(match[2], []).append(layer)
    for number, layers in groups.items():
        if "branch" not in layers:
            continue  # of another architecture: its stage is drawn as boxes
        first, *_, last = (layer for rows in layers.values() for layer in rows)
        reader = layers.get("shortcut", layers.get("add", []))[:1]  # reads the shortcut's input
        ready = {layer.name for layer in layers.get("before", ())}
        tapped = any(ready & set(layer.connected_to) for layer in reader)
        x = shapes[first.connected_to[0]]
        yield _Unit(stage.name, number, x, last.output, layers, tapped)


def _overview(paper: _Paper, cost: Cost, units: Sequence[_Unit], colours: Colours) -> float:
    """Stages in a row, a bar per unit; below, the layers of a stage without units. -> the foot."""
    stages = (Stage("input", cost.layers[:1]), *cost.stages)
    column, middle, bottom = (WIDTH - 2 * MARGIN) / len(stages), float(MARGIN), 0.0
    rows: list[Bars] = []
    for stage in stages:
        inside = [(colours[unit.kind], unit.output) for unit in units if unit.stage == stage.name]
        blocks = [("plain", row.output) for row in stage.layers if row.kind.startswith(WIDE)]
        rows.append(inside or blocks or [("plain", stage.layers[-1].output)])
    roots = [[math.sqrt(shape[0]) for _, shape in row] for row in rows]
    thick = min(22 / max(map(max, roots)), (column - 30) / 1.35 / max(map(sum, roots)))
    legend = "a bar is a unit or a convolution, as high as its map, as thick as its width"
    paper.text(WIDTH - MARGIN, 100, legend, "muted", "end")
    paper.path(f"M{MARGIN + column / 2:.1f} {AXIS}H{WIDTH - MARGIN - column / 2:.1f}", "rule")
    for stage, row in zip(stages, rows, strict=True):
        centre, middle = middle + column / 2, middle + column
        y = paper.bars(centre, stage, row, thick, BARS / math.sqrt(cost.layers[0].output[-1]))
        if count := sum(unit.stage == stage.name for unit in units):
            paper.text(centre, y + 24, f"{count} unit" + "s" * (count > 1), "strong", "middle")
        elif stage.name != "input":
            y = paper.stack(centre, y + 14, min(column - 16, 160), stage.layers, gap=8)
        bottom = max(bottom, y + 24)
    return bottom


def _cards(paper: _Paper, units: Sequence[_Unit], colours: Colours, top: float) -> float:
    """A card per kind of unit, three in a row. -> the foot."""
    for first in range(0, len(colours), 3):
        behind, feet, row = len(paper.elements), [], list(colours)[first : first + 3]
        lefts = [MARGIN + column * (CARD + GUTTER) for column in range(len(row))]
        top += 36
        for left, kind in zip(lefts, row, strict=True):
            alike = [unit for unit in units if unit.kind == kind]
            paper.dot(left + 24, top + 27, 6, colours[kind])
            paper.text(left + 38, top + 32, alike[0].title, "head", room=CARD - 50)
            foot = _diagram(paper, alike[0], left + 38, top + 70)
            feet.append(_unit_table(paper, alike, left + 20, foot + 40))
        for left in lefts:  # behind the content, all as high as the highest card
            frame = f'x="{left}" y="{top}" width="{CARD}" height="{max(feet) - top}" rx="12"'
            paper.elements.insert(behind, f'<rect class="card" {frame}/>')
        top = max(feet)
    return top


def _diagram(paper: _Paper, unit: _Unit, left: float, top: float) -> float:
    """A unit as in the papers, its trunk at the left. -> the foot."""
    middle, behind = left + BOX / 2, len(paper.elements)
    paper.text(middle, top, f"x   {_times(unit.input)}", "muted", "middle")
    tap = y = top + 24
    for part in ("before", "branch", "add", "after"):
        if part == "add" and part in unit.layers:
            paper.arc(middle, tap, y + GAP + 12, unit.layers.get("shortcut", []))
            y += GAP + 24
        elif part in unit.layers:
            paper.brace(left - 9, y + GAP, len(unit.layers[part]), part)
            y = paper.stack(middle, y + GAP, BOX, unit.layers[part])
        if part == "before" in unit.layers and unit.tapped:
            tap = y = y + GAP
    trunk = f'<path class="line" d="M{middle} {top + 9}V{y + 24}" marker-end="url(#tip)"/>'
    paper.elements.insert(behind, trunk)
    paper.text(middle, y + 40, _times(unit.output), "muted", "middle")
    return y + 40


def _unit_table(paper: _Paper, alike: Sequence[_Unit], left: float, top: float) -> float:
    """A table of the units of one kind, with their widths and maps. -> the foot."""
    lines = [("stage", "units", "widths", "map")]
    for stage, group in groupby(alike, key=lambda unit: unit.stage):
        units = list(group)
        numbers = [unit.number for unit in units]
        gapless = len(units) > 2 and numbers[-1] - numbers[0] == len(units) - 1
        units_shown = f"{numbers[0]} to {numbers[-1]}" if gapless else ", ".join(map(str, numbers))
        branch = units[0].layers["branch"]
        outputs = [layer.output[0] for layer in branch if layer.kind.startswith(WIDE)]
        widths = " → ".join(map(str, (units[0].input[0], *outputs)))
        lines.append((stage, units_shown, widths, _times(units[0].output[1:])))
    paper.path(f"M{left} {top + 8}h{CARD - 40}", "rule")
    for number, (stage, units_shown, widths, area) in enumerate(lines):
        style, y = ("small", top + 20 * number + 7) if number else ("small muted", top)
        for x, text in ((0, stage), (60, units_shown), (126, widths)):
            paper.text(left + x, y, text, style)
        paper.text(left + CARD - 40, y, area, style, "end")
    return top + 20 * len(lines) + 10


def _column(paper: _Paper, cost: Cost) -> float:
    """A box per layer in a column, with its inputs unless it reads the one above. -> the foot."""
    foot, above = paper.stack(MARGIN + 120, 130, 240, cost.layers, gap=8), ""
    for number, layer in enumerate(cost.layers):
        y = 150 + number * (HEIGHT + 8)
        paper.text(MARGIN + 260, y, _times(layer.output), "muted", room=150)
        reads = "" if layer.connected_to in ((), (above,)) else "   reads "
        text = layer.name + reads + ", ".join(layer.connected_to * bool(reads))
        paper.text(MARGIN + 420, y, text, "", room=WIDTH - 2 * MARGIN - 420)
        above = layer.name
    return foot


@dataclass(frozen=True)
class _Paper:
    """SVG elements in the order of painting. Lengths are pixels; y grows downwards."""

    elements: list[str]

    def text(
        self, x: float, y: float, text: str, style: str, anchor: str = "start", room: float = 0
    ) -> None:
        """A line of text; with `room`, cut to about that many pixels."""
        letters = int(room / {"title": 14.5, "head": 8.2}.get(style, 6.3))
        if room and len(text) > letters:
            text = text[: letters - 1] + "…"
        position = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" xml:space="preserve"'
        self.elements.append(f'<text class="{style}" {position}>{escape(text)}</text>')

    def path(self, course: str, style: str, more: str = "") -> None:
        self.elements.append(f'<path class="{style}" d="{course}" {more}/>')

    def dot(self, x: float, y: float, radius: float, style: str) -> None:
        self.elements.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')

    def bar(self, x: float, y: float, width: float, height: float, style: str) -> None:
        position = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self.elements.append(f'<rect class="{style}" {position} rx="{min(6, width / 5):.1f}"/>')

    def bars(self, middle: float, stage: Stage, row: Bars, thick: float, tall: float) -> float:
        """A stage's bars, by square roots, so that maps of 7 pixels stay visible. -> the foot."""
        widths = [max(thick * math.sqrt(shape[0]), 1.4 / len(row)) for _, shape in row]
        x, foot = middle - sum(widths) * 1.35 / 2, AXIS + BARS / 2
        for (colour, shape), width in zip(row, widths, strict=True):
            high = max(tall * math.sqrt(shape[-1] if len(shape) == 3 else 1), 8)
            self.bar(x, AXIS - high / 2, width, high, colour)
            x += width * 1.35
        self.text(middle, foot + 28, stage.name, "head", "middle")
        self.text(middle, foot + 48, _times(stage.layers[-1].output), "muted", "middle")
        return foot + 48

    def stack(self, middle: float, top: float, width: float, rows: Rows, gap: int = GAP) -> float:
        """Boxes in a column, joined by a line. -> the foot."""
        foot, left = top + len(rows) * (HEIGHT + gap) - gap, middle - width / 2
        self.path(f"M{middle:.1f} {top:.1f}V{foot:.1f}", "line")
        for number, row in enumerate(rows):
            y, wide = top + number * (HEIGHT + gap), row.kind.startswith(WIDE)
            for style in ("under", f"box {row.kind.split()[0].lower()}"):
                self.bar(left, y, width, HEIGHT, style)
            self.text(left + 10, y + 19.5, _words(row), "", room=width - (46 if wide else 14))
            if wide:
                self.text(left + width - 10, y + 19.5, str(row.output[0]), "strong", "end")
        return foot

    def arc(self, middle: float, tap: float, plus: float, rows: Rows) -> None:
        """A shortcut from the trunk through its layers to the plus sign."""
        beside, centre = middle + BOX / 2 + 22 + SIDE / 2, (tap + plus) / 2
        course = f"M{middle} {tap}H{beside - 14}q14 0 14 14V{plus - 14}q0 14 -14 14H{middle + 13}"
        self.path(course, "line", 'marker-end="url(#tip)"')
        self.dot(middle, tap, 3.5, "tip")
        circle = "a12 12 0 1 1 24 0a12 12 0 1 1 -24 0m6 0h12m-6 -6v12"
        self.path(f"M{middle - 12} {plus}{circle}", "plus")
        if rows:
            self.stack(beside, centre - (len(rows) * (HEIGHT + GAP) - GAP) / 2, SIDE, rows)
        else:
            self.text(beside - 10, centre + 4, "identity", "muted", "end")

    def brace(self, x: float, top: float, boxes: int, part: str) -> None:
        """A line along a part of a unit, and its name."""
        height = boxes * (HEIGHT + GAP) - GAP
        self.path(f"M{x} {top}v{height}", "rule")
        turn = f'transform="translate({x - 6} {top + height / 2}) rotate(-90)"'
        self.elements.append(f'<text class="small muted" text-anchor="middle" {turn}>{part}</text>')


def _words(layer: Layer) -> str:
    """A kind as text in a box: "conv 3x3 /2, 32 groups", with a multiplication sign."""
    text = layer.kind.replace("Convolution", "conv").replace("Average", "avg").replace("/", " /")
    text = re.sub(r"(?<=\d)x(?=\d)", TIMES, text.replace(" shortcut", ""))
    return text if text[1:3].isupper() or "LU" in text else text[:1].lower() + text[1:]


def _times(shape: Sequence[int]) -> str:
    return f" {TIMES} ".join(map(str, shape))
