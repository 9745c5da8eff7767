"""What is said of each recipe is what its sources say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from petseg.training.reached import REACHED, told
from petseg.training.recipes import RECIPES

ROOT = Path(__file__).parents[1]


def test_every_recipe_says_what_it_reaches() -> None:
    assert list(REACHED) == list(RECIPES)
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| recipe \| reaches .*\n(?:\|.*\n)+", page, re.MULTILINE)
    for name, reached in REACHED.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", table, re.MULTILINE)
        if reached is None:
            assert told(name) == "not measured"
            assert row == f"| `{name}` | not measured | | |"
        else:
            assert told(name) == f"{reached.figures}; on {reached.machine}; {reached.time}"
            assert row.startswith(f"| `{name}` | {reached.figures}")
            assert row.endswith(f"| {reached.machine} | {reached.time} |")


def test_the_articles_figures_are_the_runs() -> None:
    with (ROOT / "docs/runs/article.csv").open(encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    accuracy, iou = (float(history[-1][name]) for name in ("val_accuracy", "val_mean_iou"))
    hours = sum(float(row["seconds"]) for row in history) / 3600
    assert f"accuracy {accuracy:.4f}, mIoU {iou:.4f} on its validation part" in told("article")
    assert told("article").endswith(f"; {hours:.1f} hours")
    log = (ROOT / "docs/training-log.md").read_text(encoding="utf-8")
    assert f" {hours:.1f} hours, " in log


@pytest.mark.parametrize(
    ("recipe", "page"), [("scratch", "docs/training-log.md"), ("long", "petseg/assets/petseg.md")]
)
def test_the_figures_of_the_test_list_are_the_pages(recipe: str, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    row = re.search(r"^\| official test list \| 3,669 \| ([\d.]+) \| ([\d.]+) \|", text, re.M)
    assert row is not None
    assert f"accuracy {row[1]}, mIoU {row[2]} on the official test list" in told(recipe)


def test_the_models_hours_are_the_runs() -> None:
    with (ROOT / "docs/runs/default.csv").open(encoding="utf-8", newline="") as file:
        hours = sum(float(row["seconds"]) for row in csv.DictReader(file)) / 3600
    for page in ("petseg/assets/petseg.md", "docs/training-log.md"):
        assert f"{hours:.1f} hours" in (ROOT / page).read_text(encoding="utf-8")
    assert told("long").endswith(f"; {hours:.1f} hours")
