"""Numbers as people read them, and text that stays text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from petseg.pages import html


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00042, "0.42 ms"),
        (0.25, "250 ms"),
        (12.34, "12.3 s"),
        (99.97, "100 s"),
        (150.4, "2 min 30 s"),
        (7500.0, "2 h 05 min"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert html.seconds(value) == text


def test_numbers() -> None:
    assert html.number(1234567) == "1,234,567"
    assert html.number(1234.5) == "1,234"
    assert html.number(0.12345) == "0.123"
    assert html.number(0) == "0"
    assert html.percent(0.12345) == "12.3 %"
    assert html.percent(math.nan) == "\N{EN DASH}"


def test_a_value_that_is_missing_is_no_empty_page(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError):
        html.write(tmp_path / "report.html", "masks.html", title="x")
    assert list(tmp_path.iterdir()) == []
