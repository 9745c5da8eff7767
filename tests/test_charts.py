"""Charts as parts of a page: well-formed, named, with the page's colours and their numbers."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from petseg.pages import charts

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: Markup) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def texts(svg: Markup) -> list[str]:
    return ["".join(text.itertext()) for text in parsed(svg).iter(f"{SVG}text")]


DRAWN = {
    "histogram": charts.histogram([1, 0, 7, 2], "confidence", "a <b> & 'c' \"d\""),
    "steps": charts.steps_over_time([1.0, 0.0, 3.5], 2.0, 0.5, "hours", "masks/s", "speed"),
    "lines": charts.lines(
        [1, 2, 3],
        {"one": [0.5, 0.2, 0.1], "two": [0.6, 0.3, 0.3], "three": [3e-4, 0.2, 1.0]},
        *("epoch", "curves"),
    ),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_a_chart_is_a_picture_with_a_name_and_no_colours_of_its_own(kind: str) -> None:
    root = parsed(DRAWN[kind])
    assert root.get("role") == "img"
    assert (
        root.get("aria-label")
        == {
            "histogram": "a <b> & 'c' \"d\"",
            "steps": "speed",
            "lines": "curves",
        }[kind]
    )
    for color in re.findall(r"(?:fill|stroke): ([^;\"]+)", DRAWN[kind]):
        assert color == "none" or re.fullmatch(r"var\(--\w+\)", color), color
    ids = re.findall(r' id="([^"]+)"', DRAWN[kind])
    referred = set(re.findall(r'(?:href="|url\()#([^")]+)', DRAWN[kind]))
    assert set(ids) == referred
    assert len(ids) == len(set(ids))
    # Nothing is loaded from anywhere, nothing runs.
    assert not re.search(r"<(script|image|foreignObject|a) ", DRAWN[kind])


def test_what_is_written_on_them() -> None:
    assert {"confidence, %", "masks", "0", "100"} <= set(texts(DRAWN["histogram"]))
    assert {"hours", "masks/s", "2.0", "3.4"} <= set(texts(DRAWN["steps"]))


def test_lines_differ_in_colour_and_dashes() -> None:
    # Each is drawn in the chart and in the legend.
    found = re.findall(r"fill: none; (?:stroke-dasharray: ([^;]+);)?[^\"]*", DRAWN["lines"])
    assert len(set(found)) == 3
    for color in ("first", "second", "third"):
        assert f"stroke: var(--{color})" in DRAWN["lines"]
    assert {"one", "two", "three", "epoch", "1", "2", "3"} <= set(texts(DRAWN["lines"]))
    assert "one" not in texts(charts.lines([1], {"one": [1e-4]}, "epoch", "rate"))


def test_the_same_values_give_the_same_chart() -> None:
    assert charts.histogram([1, 2], "x", "y") == charts.histogram([1, 2], "x", "y")
    assert charts.histogram([1, 2], "x", "y") != charts.histogram([2, 1], "x", "y")


def test_bars_are_as_high_as_their_counts() -> None:
    svg = charts.histogram([1, 3], "x", "y")
    (path,) = (
        part.get("d", "")
        for part in parsed(svg).iter(f"{SVG}path")
        if "var(--first)" in part.get("style", "")
    )
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]
    bottom = max(y for _, y in points)
    heights = sorted({round(bottom - y, 3) for _, y in points})
    assert heights[0] == 0
    assert heights[2] / heights[1] == pytest.approx(3, rel=1e-3)
