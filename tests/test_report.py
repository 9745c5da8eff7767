"""Counts, times and exit code, and the files that tell of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from petseg.batch.report import Counts, Report, Rows


@pytest.mark.parametrize(
    ("stopped", "failed", "code"),
    [
        (None, 0, 0),
        (None, 1, 3),
        ("--fail-fast", 1, 1),
        ("error", 0, 1),
        ("SIGINT", 5, 130),
        ("SIGTERM", 0, 143),
    ],
)
def test_exit_codes(stopped: str | None, failed: int, code: int) -> None:
    report = Report({}, Counts(files=9, failed=failed), stopped=stopped)
    assert report.exit_code == code
    assert report.as_dict()["exit_code"] == code


def report_with(infer_wall: float, read: float, infer: float, write: float) -> Report:
    report = Report({}, Counts(files=10, done=10))
    report.wall_seconds, report.ready_seconds = 11.0, 1.0
    report.infer_wall_seconds = infer_wall
    for name, seconds in (("read", read), ("infer", infer), ("write", write)):
        report.stages[name].busy_seconds = seconds
    return report


def test_the_bottleneck() -> None:
    assert report_with(9.0, 99.0, 1.0, 1.0).bottleneck == "infer"
    assert report_with(5.0, 9.0, 1.0, 1.0).bottleneck == "read"
    assert report_with(5.0, 1.0, 1.0, 9.0).bottleneck == "write"
    assert Report({}).bottleneck is None


def test_a_store_that_is_waited_for_half_of_the_time_is_the_bottleneck() -> None:
    report = report_with(7.0, 9.0, 9.0, 1.0)
    report.store_wait_seconds = 4.9
    assert report.bottleneck == "read"
    report.store_wait_seconds = 5.0
    assert report.bottleneck == "store"
    assert "held back by: store" in report.summary()
    assert report.as_dict()["store_wait_seconds"] == 5.0
    report.infer_wall_seconds = 9.0
    assert report.bottleneck == "infer"


def test_rates_leave_loading_the_model_out() -> None:
    report = report_with(5.0, 1.0, 1.0, 1.0)
    report.pixels = 20_000_000
    assert report.images_per_second == pytest.approx(1.0)
    assert report.as_dict()["megapixels_per_second"] == pytest.approx(2.0)
    empty = Report({}).as_dict()
    assert empty["images_per_second"] == empty["megapixels_per_second"] == 0.0


def test_the_summary_names_what_matters() -> None:
    report = report_with(5.0, 1.0, 1.0, 9.0)
    report.counts = Counts(files=16, done=10, skipped=3, kept=2, failed=1, ignored=1)
    report.provider, report.precision = "cpu", "float32"
    report.notes.append("something happened")
    assert "replaced" not in report.summary()
    report.worker_restarts = 2
    text = report.summary()
    assert "16 files: 10 done, 3 skipped, 1 failed, 1 ignored, 1 left" in text
    assert "2 masks kept that petseg did not make or somebody changed" in text
    assert "images/s on cpu (float32)" in text
    assert "held back by: write" in text
    assert "2 workers died or hung and were replaced" in text
    assert "something happened" in text


def test_a_batch_size_under_trial_is_not_named_as_found() -> None:
    report = report_with(5.0, 1.0, 1.0, 1.0)
    report.batch_size, report.workers = 2, 3
    assert "(batches of 2, 3 workers)" in report.summary()
    assert report.as_dict()["batch_size_found"] is True
    report.trying = True
    assert "(batches of 2, 3 workers; still trying batch sizes)" in report.summary()
    assert report.as_dict()["batch_size_found"] is False


def test_stats_are_json_and_whole(tmp_path: Path) -> None:
    report = report_with(5.0, 1.0, 1.0, 1.0)
    report.write_stats(tmp_path / "new" / "stats.json")
    found = json.loads((tmp_path / "new" / "stats.json").read_text())
    assert found["counts"]["done"] == 10
    assert set(found["stages"]) == {"read", "infer", "write"}
    assert {"p50_seconds", "p95_seconds", "p99_seconds", "busy_core_seconds"} == set(
        found["stages"]["read"]
    )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["stats.json"]


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "stats.json").mkdir()
    with pytest.raises(OSError, match="stats"):
        Report({}).write_stats(tmp_path / "stats.json")
    assert [path.name for path in tmp_path.iterdir()] == ["stats.json"]


@pytest.mark.parametrize(
    ("name", "header"),
    [("failures.csv", ("file", "reason")), ("kept.csv", ("mask",)), ("gone.csv", ("mask",))],
)
def test_no_row_holds_a_formula(name: str, header: tuple[str, ...], tmp_path: Path) -> None:
    """A name is written as a path that means the same file; reasons are petseg's own words."""
    rows = Rows(tmp_path / name, tmp_path, header)
    cells = ("why",) * (len(header) - 1)
    for begin in "=+-@\t\r":
        rows.add(f"{begin}cmd|' /C calc'!A0.jpg", *cells)
    rows.add("a/=x.jpg", *cells)
    rows.close()
    with (tmp_path / name).open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))[1:]
    assert [row[0] for row in found] == [
        *(f"./{begin}cmd|' /C calc'!A0.jpg" for begin in "=+-@\t\r"),
        "a/=x.jpg",
    ]
    assert not any(cell[0] in "=+-@\t\r" for row in found for cell in row)


def test_rows_keep_any_name(tmp_path: Path) -> None:
    path = tmp_path / "failures.csv"
    rows = Rows(path, tmp_path, ("file", "reason"))
    names = ["plain.jpg", "new\nline.jpg", 'quote",.jpg', "caf\u00e9.jpg", "not-utf8-\udcff.jpg"]
    for name in names:
        rows.add(name, "why")
    assert not path.exists()
    rows.close()
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert list(csv.reader(file)) == [["file", "reason"], *([name, "why"] for name in names)]
    assert b"not-utf8-\xff.jpg" in path.read_bytes()
    # Nothing to tell: the earlier list goes.
    Rows(path, tmp_path, ("file", "reason")).close()
    assert list(tmp_path.iterdir()) == []
