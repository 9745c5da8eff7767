"""Charts as SVG that stands in a page: its text stays text, its colours are the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that nothing else has, and what the page's style sheet calls them: so a chart follows
# the page from light to dark.
_COLORS = {
    "#010203": "var(--ink)",
    "#010204": "var(--line)",
    "#010205": "var(--first)",
    "#010206": "var(--second)",
    "#010207": "var(--third)",
}
_INK, _LINE, _FIRST, _SECOND, _THIRD = _COLORS
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "petseg",
    "text.parse_math": False,
    "font.size": 8,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _LINE,
    "axes.axisbelow": True,
}
# Inches of 72 points.
_SIZE = (4.4, 2.1)
# Lines differ in more than their colour.
_LINES = ((_FIRST, "-"), (_SECOND, "--"), (_THIRD, ":"))


@dataclass(frozen=True)
class Chart:
    """A picture, and in words what it shows."""

    title: str
    svg: Markup
    words: str


def histogram(counts: Sequence[int], label: str, title: str) -> Markup:
    """How many values of 0..1 lie in each of these bins of equal width.

    Args:
        counts: one for each bin.
        label: of the axis of values, which is in percent.
        title: the picture's name, for who cannot see it.
    """

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 100, len(counts) + 1)
        axes.stairs(counts, edges, fill=True, color=_FIRST)
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"{label}, %")
        axes.set_ylabel("masks")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    return _svg(draw, title)


def steps_over_time(
    values: Sequence[float], begin: float, width: float, unit: str, label: str, title: str
) -> Markup:
    """One value for each span of time.

    Args:
        values: in time's order.
        begin: of the first span, in units of time.
        width: of each span, in the same.
        unit: of time.
        label: of the values.
        title: the picture's name, for who cannot see it.
    """

    def draw(axes: Axes) -> None:
        edges = begin + width * np.arange(len(values) + 1)
        axes.stairs(values, edges, fill=True, color=_FIRST, alpha=0.25)
        axes.stairs(values, edges, color=_FIRST, linewidth=1.5)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(unit)
        axes.set_ylabel(label)

    return _svg(draw, title)


def lines(
    places: Sequence[int], values: Mapping[str, Sequence[float]], label: str, title: str
) -> Markup:
    """Up to three lines over the same places.

    Args:
        places: whole numbers, ascending.
        values: by the line's name, one for each place.
        label: of the places.
        title: the picture's name, for who cannot see it.
    """

    def draw(axes: Axes) -> None:
        for (name, line), (color, style) in zip(values.items(), _LINES, strict=False):
            axes.plot(places, line, color=color, linestyle=style, marker="o", ms=2.5, label=name)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:g}")
        if len(values) > 1:
            axes.legend(frameon=False)

    return _svg(draw, title)


def _svg(draw: Callable[[Axes], None], title: str) -> Markup:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE)
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.13, right=0.96, top=0.96, bottom=0.23)
        axes.grid(axis="y", linewidth=0.5)
        draw(axes)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r" font-family: [^;]+;", "", text)
    for color, name in _COLORS.items():
        text = text.replace(color, name)
    # Names of parts would meet those of other charts; only those that are referred to are needed.
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] * (found[1] in used), text)
    head = f'<svg class="chart" role="img" aria-label="{escape(title)}"'
    return Markup(text.replace("<svg", head, 1))
