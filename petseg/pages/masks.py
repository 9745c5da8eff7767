"""`report.html`: what lies in a folder of masks, whoever made them, and how the last run went."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from petseg.masks.reading import RESERVED
from petseg.pages import charts, gallery, html
from petseg.pages.charts import Chart
from petseg.pages.gallery import Pair
from petseg.pages.run import FAILURES, Failures, Run, read_failures
from petseg.pages.survey import Least, Survey

# In `masks/petseg/`.
NAME = "report.html"

# Bars of a histogram.
_BARS = 50
# Units of time in charts, and how many of them a chart should at least span.
_UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
_FEWEST_UNITS = 3


@dataclass(frozen=True)
class Group:
    """Masks that are shown together, and what they have in common."""

    anchor: str
    title: str
    pairs: list[Pair]


def write(
    path: Path,
    survey: Survey,
    folder: Path,
    images: Path | None,
    run: Run | None,
    failures: Failures,
    temporary: Path | None = None,
) -> None:
    """Write the report.

    Args:
        path: where it goes.
        survey: of all masks.
        folder: of the masks.
        images: the folder of the photos, where it is known.
        run: the last one; None where nothing tells of it.
        failures: of that run.
        temporary: see `temporary.write_whole`.

    Raises:
        OSError: it cannot be written.
    """
    groups = [
        Group("unsure", "Least confident", _pairs(survey.unsure, survey, folder, images)),
        Group("random", "Random", _pairs(survey.random, survey, folder, images)),
        Group("smallest", "Smallest masks", _pairs(survey.smallest, survey, folder, images)),
        Group("largest", "Largest masks", _pairs(survey.largest, survey, folder, images)),
    ]
    html.write(
        path,
        "masks.html",
        temporary,
        title=f"petseg: {folder.resolve().name}",
        made=datetime.datetime.now(datetime.UTC),
        folder=str(folder),
        survey=survey,
        run=run,
        speed=None if run is None else _speed(run),
        failures=failures,
        charts=_charts(survey),
        groups=[group for group in groups if group.pairs],
        photos_known=images is not None,
    )


def failures_of(folder: Path, run: Run | None) -> Failures:
    """The photos that failed in the last run on a folder of masks.

    Raises:
        PetsegError: what lies where their list goes is none of petseg's.
    """
    lists = (FAILURES,) if run is None else run.failures
    return read_failures(folder / RESERVED / name for name in lists)


def _pairs(chosen: Least, survey: Survey, folder: Path, images: Path | None) -> list[Pair]:
    pairs = (gallery.draw(mask, folder, images, survey.classes) for mask in chosen.masks)
    return [pair for pair in pairs if pair is not None]


def _speed(run: Run) -> Chart | None:
    # What is left of the last span is no rate.
    rates = run.rates[:-1]
    if len(rates) < 2:
        return None
    unit, size = _unit(len(rates) * run.rates_width)
    words = (
        f"Between {min(rates):.1f} and {max(rates):.1f} masks a second, in spans of "
        f"{html.seconds(run.rates_width)}."
    )
    begin, width = run.rates_begin / size, run.rates_width / size
    label = f"{unit} since the run began"
    svg = charts.steps_over_time(rates, begin, width, label, "masks/s", "chart: speed over time")
    return Chart("Speed over time", svg, words)


def _charts(survey: Survey) -> list[Chart]:
    found = []
    for title, label, values in (
        ("Area", "foreground's share of the photo", survey.areas),
        ("Confidence", "confidence", survey.confidence),
        ("Uncertain pixels", "share of uncertain pixels", survey.uncertain),
    ):
        if len(values):
            low, middle, high = (html.percent(values.quantile(q)) for q in (0.05, 0.5, 0.95))
            words = (
                f"In half of the masks less than {middle}, in nine of ten between {low} and {high}."
                if len(values) > 1
                # The middle of its bin might be another value than the page's other figures.
                else f"{html.percent(values.mean)}, of one mask."
            )
            svg = charts.histogram(values.grouped(_BARS).tolist(), label, f"chart: {title}")
            found.append(Chart(title, svg, words))
    written = survey.written.as_dict()
    if written is not None and len(written["counts"]) > 1:
        width = written["bin_seconds"]
        rates = [count / width for count in written["counts"]]
        unit, size = _unit(len(rates) * width)
        begin = datetime.datetime.fromtimestamp(written["begin_seconds"], datetime.UTC)
        words = (
            f"By the times of their files, from {begin:%Y-%m-%d %H:%M:%S} UTC on, in whatever "
            f"runs and on whatever machines: at most {html.number(max(rates))} masks a second, in "
            f"spans of {html.seconds(width)}."
        )
        label = f"{unit} since then"
        svg = charts.steps_over_time(
            rates, 0.0, width / size, label, "masks/s", "chart: masks over time"
        )
        found.append(Chart("When the masks were written", svg, words))
    return found


def _unit(span: float) -> tuple[str, float]:
    """In what to count so many seconds."""
    return next((unit for unit in _UNITS if span >= _FEWEST_UNITS * unit[1]), _UNITS[-1])
