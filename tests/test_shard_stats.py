"""What shards' stats tell together, on the page and on the command line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from batching import make_job, save_photos, write_mask
from click.testing import CliRunner

from petseg.batch.report import Counts, Report
from petseg.cli.report import main
from petseg.errors import PetsegError
from petseg.pages.run import read_stats, understand
from petseg.pages.shards import gaps, read_last
from petseg.photos.shards import Shard, own_name


def leave(reserved: Path, shard: Shard | None, done: int, failed: int = 0, when: int = 0) -> None:
    """The stats and failures of a run."""
    options = {"images": "photos", "limit": 7, "shard": None if shard is None else str(shard)}
    report = Report(options, Counts(files=done + failed + 1, done=done, failed=failed, ignored=1))
    report.wall_seconds, report.ready_seconds = 11.0, 1.0
    report.stages["read"].busy_seconds = 2.0
    report.notes.append("something happened")
    path = reserved / own_name("stats.json", shard)
    report.write_stats(path)
    os.utime(path, ns=(0, 10**18 + when))
    if failed:
        lists = reserved / own_name("failures.csv", shard)
        with lists.open("w", newline="") as file:
            reasons = [(f"{path.stem}-{n}.jpg", f"{n} bytes are too few") for n in range(failed)]
            csv.writer(file).writerows([("file", "reason"), *reasons])


def test_nothing_is_known_of_no_run(tmp_path: Path) -> None:
    assert read_last(tmp_path) is None
    assert read_last(tmp_path / "none") is None


def test_shards_are_added_up(tmp_path: Path) -> None:
    for number, done, failed in ((1, 20, 0), (2, 30, 2), (4, 50, 1)):
        leave(tmp_path, Shard(number, 5), done, failed, when=number)
    run = read_last(tmp_path)
    assert run is not None
    counts = dict(run.counts)
    assert (counts["files"], counts["done"], counts["failed"]) == (106, 100, 3)
    assert counts["files"] == sum(
        counts[name] for name in ("done", "skipped", "failed", "ignored", "left")
    )
    facts = dict(run.facts)
    assert facts["shards"] == "3 of 5; without stats, not ended or never begun: 3, 5"
    assert facts["speed"] == "10.0 images/s, the sum of the shards'"
    assert facts["photos"] == "photos"
    assert [(shard.name, shard.images_per_second) for shard in run.shards] == [
        *(("1/5", 2.0), ("2/5", 3.0), ("4/5", 5.0))
    ]
    assert run.missing == "3, 5"
    assert {stage.name: stage.busy for stage in run.stages}["read"] == 6.0
    assert run.options == [("images", "photos"), ("limit", "7")]
    assert run.notes[0] == "shard 1/5: something happened"
    assert run.failures == tuple(f"failures-{n}-of-5.csv" for n in (1, 2, 4))


def test_the_latest_split_counts(tmp_path: Path) -> None:
    leave(tmp_path, Shard(1, 2), 10, when=1)
    leave(tmp_path, Shard(1, 3), 20, when=2)
    leave(tmp_path, Shard(2, 3), 20, when=0)
    run = read_last(tmp_path)
    assert run is not None
    assert dict(run.counts)["done"] == 40
    # A run in one piece, after the shards.
    leave(tmp_path, None, 1, when=3)
    run = read_last(tmp_path)
    assert run is not None
    assert (run.shards, dict(run.counts)["done"]) == ([], 1)
    leave(tmp_path, Shard(2, 2), 10, when=4)
    run = read_last(tmp_path)
    assert run is not None
    assert dict(run.counts)["done"] == 20


def test_one_shards_stats_lead_to_its_own_failures(tmp_path: Path) -> None:
    leave(tmp_path, Shard(2, 3), 10, failed=1)
    stats = read_stats(tmp_path / "stats-2-of-3.json")
    assert stats is not None
    assert understand(stats).failures == ("failures-2-of-3.csv",)
    stats["options"]["shard"] = "4/3"
    with pytest.raises(PetsegError, match="not the stats of a run of this version"):
        understand(stats)


def test_stats_that_are_none_are_named(tmp_path: Path) -> None:
    leave(tmp_path, Shard(1, 2), 10)
    (tmp_path / "stats-2-of-2.json").write_text("{}")
    with pytest.raises(PetsegError, match=r"stats-2-of-2\.json: these are not the stats"):
        read_last(tmp_path)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((1, 2, 3, 4, 5, 6, 7, 8, 9), ""),
        ((), "1 to 9"),
        ((2, 4, 7, 8), "1, 3, 5 to 6, 9"),
        ((1, 2, 9), "3 to 8"),
    ],
)
def test_those_that_are_missing_in_few_words(numbers: tuple[int, ...], text: str) -> None:
    assert gaps(numbers, 9) == text


def test_the_page_of_all_shards(tmp_path: Path) -> None:
    job = make_job(tmp_path / "masks")
    times = (0.1, 0.2, 0.3, 1.5, 4.2, 4.3)
    for name, time in zip(save_photos(tmp_path / "photos", 6), times, strict=True):
        write_mask(tmp_path / "photos" / name, name, job)
        # Two shards at the same time: no stats tell how fast they went together.
        os.utime(job.masks / name, (1e9 + time, 1e9 + time))
    reserved = tmp_path / "masks" / "petseg"
    leave(reserved, Shard(1, 3), 20)
    leave(reserved, Shard(3, 3), 30, failed=2)
    # Of an earlier run in one piece; it is not the last one's.
    (reserved / "failures.csv").write_text("file,reason\nearlier.jpg,why\n")
    found = CliRunner().invoke(main, [str(tmp_path / "masks")])
    assert found.exit_code == 0, found.stderr
    assert "shards: 2 of 3; without stats, not ended or never begun: 2\n" in found.stderr
    assert "together: 54 files, 50 done" in found.stderr
    assert "5.0 images/s" in found.stderr
    text = (reserved / "report.html").read_text()
    for words in (
        "<caption>Shards</caption>",
        '<th scope="row">1/3</th>',
        '<th scope="row">3/3</th>',
        "2 of 3; without stats, not ended or never begun: 2",
        "stats-3-of-3-1.jpg",
        "<code>petseg/failures-3-of-3.csv</code>",
        "By the times of their files, from 2001-09-09 01:46:40 UTC on, in whatever runs and on "
        "whatever machines: at most 3 masks a second, in spans of 1 s.",
        'aria-label="chart: masks over time"',
    ):
        assert words in text, words
    assert "earlier.jpg" not in text

    silent = CliRunner().invoke(main, [str(tmp_path / "masks"), "--quiet", "--json"])
    assert (silent.exit_code, silent.stderr) == (0, "")
    told = json.loads(silent.stdout)
    assert (told["page"], told["masks"]) == (str(reserved / "report.html"), 6)
    assert told["shards"] == "2 of 3; without stats, not ended or never begun: 2"
    assert (told["counts"]["files"], told["counts"]["done"]) == (54, 50)
    assert told["speed"].startswith("5.0 images/s")
    assert told["stopped"] == {}
