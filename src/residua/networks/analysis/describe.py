"""Names of the catalogue -> the text and the drawings of `residua models`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from residua.errors import ResiduaError
from residua.networks.analysis import cost, drawing
from residua.networks.analysis.shapes import on_meta
from residua.networks.own import is_own
from residua.networks.zoo import catalogue
from residua.system.files import check_output, write_atomically


@dataclass(frozen=True)
class Description:
    """A network without memory for its weights. input: (C, H, W) of the images it is shown for."""

    name: str
    network: nn.Module
    input: tuple[int, int, int]

    def text(self, as_json: bool) -> str:
        """The layer table and the totals, or one JSON object."""
        measured = cost.measure(self.network, self.input)
        if as_json:
            return json.dumps(cost.to_json(self.name, measured, self.input))
        return cost.layer_table(measured).rstrip()

    def draw(self, file: Path) -> None:
        """Write the drawing of units and stages as SVG. Raises ResiduaError."""
        check_output(file, (".svg",), drawn=True)
        write_atomically(file, drawing.draw(self.network, self.name, self.input))


def describe(
    name: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    size: int | None = None,
    ordering: str | None = None,
    shortcut: str | None = None,
    cardinality: str | None = None,
) -> Description:
    """The row `name` with these changes; None: the row's default. Raises ResiduaError."""
    if is_own(name):
        raise ResiduaError(
            f"{name}: is not one of residua's networks, which alone are described here. To train "
            f"it: residua train DATA --model {name}"
        )
    row = catalogue.row(name)
    size = row.size if size is None else size
    if size < 1:
        raise ResiduaError(f"--size {size}: must be at least 1.")
    with on_meta():
        network = catalogue.build(
            name,
            classes=classes,
            channels=channels,
            ordering=ordering,
            shortcut=shortcut,
            cardinality=cardinality,
        )
    return Description(name, network, (row.channels if channels is None else channels, size, size))


def list_models(as_json: bool) -> Iterator[str]:
    """All rows of the catalogue with their totals: the lines of a table, or of a JSON list.

    A line is there as soon as its network is counted.
    """
    rows = cost.listing()
    if as_json:
        yield json.dumps([cost.to_json(name, counts, size) for name, size, counts in rows])
        return
    width = max(map(len, catalogue.ROWS))
    yield f"{'model':<{width}}  {'parameters':>12}  {'multiply-adds':>16}  input        source"
    for name, size, counts in rows:
        shape = " x ".join(map(str, size))
        yield (
            f"{name:<{width}}  {counts.parameters:>12,}  {counts.multiply_adds:>16,}  {shape:<11}  "
            f"{catalogue.row(name).source}"
        )
