"""A drawing function -> PNG or SVG bytes; the colours, curves and axes that all figures share.

Nothing here depends on pyplot's state or on a user's matplotlibrc, and equal data give equal bytes.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from residua.report.fonts import BASE
from residua.system.files import DRAWN

if TYPE_CHECKING:
    import numpy.typing as npt
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

DPI = 144
INK, FAINT, RULE = "#1d2330", "#667085", "#d5d9e0"
# Okabe and Ito's colours, safe for colour-blind readers; further rows differ by dash and marker.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b6473", "#8c510a")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
MARKERS = "os^Dv<>P"
MARKED = 15  # markers on a long curve, about
ZOOM = 0.4  # fraction of the epochs, the last ones, that a zoomed figure shows
# Colours of the report's charts -> variables of report.css.j2, which has a dark theme
THEME = {
    INK: "--ink",
    FAINT: "--soft",
    RULE: "--rule",
    "#ffffff": "--paper",
    "#2f6fde": "--train",
    "#c2620a": "--validation",
    "#14713f": "--test",
}
TOOLTIP = "tooltip: "
_ONE = threading.Lock()  # the settings of matplotlib belong to the whole process


@dataclass(frozen=True)
class Drawing:
    """A figure that is drawn when it is needed.

    draw: draws on an empty canvas. inches: width and height. families: see `render`.
    """

    draw: Callable[[Canvas], None]
    inches: tuple[float, float]
    families: Sequence[str] = (BASE,)

    def png(self) -> bytes:
        """As a PNG file."""
        return render(self.draw, self.inches, families=self.families)

    def on(self, canvas: Canvas) -> None:
        """Draw on an empty figure, which may be of any size."""
        with _settings(self.families):
            self.draw(canvas)


@contextmanager
def _settings(families: Sequence[str], text: str = "path") -> Iterator[None]:
    """The settings of matplotlib while something is drawn; those of the user afterwards."""
    import matplotlib

    settings: Any = {
        **matplotlib.rcParamsDefault,
        "font.family": list(families),
        "svg.fonttype": text,
        "svg.hashsalt": "residua",  # else ids are random
    }
    del settings["backend"]
    with _ONE, matplotlib.rc_context(settings):
        yield


def render(
    draw: Callable[[Canvas], None],
    inches: tuple[float, float],
    form: Literal["png", "svg"] = "png",
    families: Sequence[str] = (BASE,),
    text: Literal["path", "none"] = "path",
) -> bytes:
    """Call `draw` on an empty canvas and return the file's bytes.

    families: fonts, best first; a later one supplies the characters that the earlier ones lack.
    text: how an SVG stores text, as outlines, the same everywhere, or as text.
    """
    from matplotlib.figure import Figure as Canvas

    with _settings(families, text):
        canvas = Canvas(figsize=inches, layout="constrained")
        draw(canvas)
        stream = io.BytesIO()
        # Dates and versions would make equal figures differ.
        metadata: Any = {"Date": None} if form == "svg" else {"Software": None, "Comment": DRAWN}
        # compressed well in half of the time of the default, level 6, for 7 % more bytes
        options: Any = {} if form == "svg" else {"pil_kwargs": {"compress_level": 3}}
        canvas.savefig(
            stream, format=form, dpi=DPI, facecolor="white", metadata=metadata, **options
        )
    return stream.getvalue()


def inline_svg(draw: Callable[[Canvas], None], inches: tuple[float, float], label: str) -> Markup:
    """An <svg> element that follows the theme and fonts of the HTML around it.

    label: its description for screen readers. An artist whose gid begins with TOOLTIP gets the rest
    of it as its tooltip.
    """
    from markupsafe import Markup, escape

    text = render(draw, inches, "svg", text="none").decode()
    # Without declarations, metadata and rules that would apply to the whole page
    text = re.split(r"</style>\s*</defs>", text, maxsplit=1)[1].replace("</svg>", "")
    text = re.sub(rf'<g id="{TOOLTIP}([^"]*)">', r"<g><title>\1</title>", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # every figure has the same ids
    text = re.sub(r"font-family: [^\";]*;? ?|transform=\"rotate\(-0 [^\"]*\"", "", text)
    text = re.sub("|".join(THEME), lambda match: f"var({THEME[match[0]]})", text)
    size = " ".join(f"{72 * side:g}" for side in inches)
    return Markup(f'<svg viewBox="0 0 {size}" role="img" aria-label="{escape(label)}">{text}</svg>')


def draw_curve(
    axes: Axes,
    epochs: Sequence[int] | npt.NDArray[np.int64],
    values: Sequence[float] | npt.NDArray[np.float64],
    *,
    colour: str,
    dash: Any = "-",
    marker: str = "",
    label: str = "",
    hollow: bool = False,
) -> None:
    """Draw values [E], or the mean of [S, E] with a band from the lowest to the highest of S.

    NaN leaves a gap. hollow: a thinner line with empty markers.
    """
    runs = np.atleast_2d(values)
    if len(runs) > 1:
        axes.fill_between(epochs, runs.min(0), runs.max(0), color=colour, alpha=0.13, lw=0)
    axes.plot(
        epochs,
        runs.mean(0),
        color=colour,
        ls=dash,
        lw=1.2 if hollow else 1.8,
        marker=marker,
        markevery=max(1, len(epochs) // MARKED),
        mfc="white" if hollow else colour,
        ms=4,
        label=label,
    )


def tidy(axes: Axes, title: str, x_label: str) -> None:
    """Style axes like all others: a title, faint ticks, horizontal rules, no box."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, color=INK, fontsize=11, parse_math=False)
    axes.set_xlabel(x_label, color=FAINT)
    if x_label == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.grid(axis="y", color=RULE, lw=0.8)
    axes.tick_params(which="both", colors=FAINT, length=0)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=RULE)


def legend(
    canvas: Canvas,
    columns: int,
    length: float | None = None,
    labels: Sequence[str] = (),
    families: Sequence[str] = (BASE,),
) -> None:
    """A legend of the first axes' lines, below all axes.

    length: of its samples, in font sizes. labels: of all lines, instead of their own.
    """
    handles, texts = canvas.axes[0].get_legend_handles_labels()
    if labels:
        handles, texts = list(canvas.axes[0].lines), list(labels)
    box = canvas.legend(
        handles,
        ["line"] * len(handles),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        labelcolor=INK,
        handlelength=length,
    )
    # Set afterwards: matplotlib leaves out labels that begin with "_", and typesets "$x$".
    for text, label in zip(box.get_texts(), texts, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
        text.set_fontfamily(list(families))
