"""What a page takes from stats and from the list of failures, whatever they hold."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from petseg.batch.report import Counts, Report
from petseg.errors import PetsegError
from petseg.pages.run import read_failures, read_stats, understand


def report() -> Report:
    options = {
        "images": "photos",
        "limit": None,
        "formats": ("color", "overlay"),
        "redo": False,
        "report": True,
        "cluster": {"address": None, "actor_cpus": 1.0},
        "devices": (),
    }
    found = Report(options, Counts(files=9, done=8, failed=1))
    found.wall_seconds, found.ready_seconds = 9.0, 1.0
    for time in (1.5, 1.6, 2.5, 3.5):
        found.masks_over_time.add(time)
    found.stages["read"].add(0.01)
    found.stages["read"].busy_seconds = 5.0
    found.notes.append("something happened")
    return found


def test_a_run_from_its_stats(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    report().write_stats(path)
    stats = read_stats(path)
    assert stats is not None
    run = understand(stats)
    assert dict(run.counts)["done"] == 8
    assert dict(run.facts)["ended"] == "went to its end"
    assert dict(run.facts)["time"] == "9 s"
    assert [stage.name for stage in run.stages] == ["read", "infer", "write"]
    assert run.stages[0].busy == 5.0
    assert run.stages[0].p50 == pytest.approx(0.01, rel=0.06)
    assert run.stages[1].p50 is None
    assert run.bottleneck == "read"
    assert (run.rates, run.rates_begin, run.rates_width) == ([2.0, 1.0, 1.0], 1.0, 1.0)
    assert run.options == [
        ("images", "photos"),
        ("formats", "color, overlay"),
        ("redo", "no"),
        ("report", "yes"),
        ("cluster", "actor_cpus 1.0"),
    ]
    assert run.notes == ["something happened"]


def test_workers_that_were_replaced_are_told_of() -> None:
    found = report()
    assert "workers replaced" not in dict(understand(found.as_dict()).facts)
    found.worker_restarts = 3
    assert dict(understand(found.as_dict()).facts)["workers replaced"] == "3"


def test_a_run_that_did_nothing() -> None:
    run = understand(Report({"images": "photos"}).as_dict())
    assert (run.rates, run.bottleneck) == ([], None)
    assert "speed" not in dict(run.facts)


def test_stats_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    assert read_stats(path) is None
    for text in ("{", "[]", "\x00"):
        path.write_text(text)
        with pytest.raises(PetsegError, match=r"stats\.json"):
            read_stats(path)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": 3},
        {"stages": {"read": {}}},
        {"options": []},
        {"masks_over_time": {}},
        {"masks_over_time": {"begin_seconds": 1.0, "bin_seconds": 0, "counts": [1]}},
        {"masks_over_time": {"begin_seconds": float("nan"), "bin_seconds": 1.0, "counts": [1]}},
        {"stages": {"read": {"busy_core_seconds": 1, "p50_seconds": "x"}}},
    ],
)
def test_stats_of_something_else(change: dict[str, Any]) -> None:
    stats = json.loads(json.dumps(report().as_dict()))
    with pytest.raises(PetsegError, match="not the stats of a run of this version"):
        understand(stats | change)


def test_stats_of_an_earlier_version() -> None:
    with pytest.raises(PetsegError, match="'masks_over_time'"):
        understand({})


def test_failures_are_grouped_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "failures.csv"
    assert read_failures([path]).total == 0
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "reason"))
        for number in range(3000):
            rows.writerow((f"{number}.jpg", f"{number} bytes are too many"))
        for number in range(2000):
            letters = "".join(chr(97 + int(digit)) for digit in str(number))
            rows.writerow((f"d\udcff{number}.jpg", f"reason {letters}"))
    found = read_failures([path])
    assert found.total == 5000
    assert found.commonest[0] == ("\u2026 bytes are too many", 3000)
    assert found.commonest[1] == ("others", 1001)
    assert len(found.kinds) == 1001
    assert len(found.commonest) == len(found.first) == 50
    assert found.first[1] == ("1.jpg", "1 bytes are too many")


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"file,reason\nx.jpg\n"])
def test_another_list_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "failures.csv").write_bytes(content)
    with pytest.raises(PetsegError, match=r"failures\.csv"):
        read_failures([tmp_path / "failures.csv"])
