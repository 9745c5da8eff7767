"""Memory and speed over a long run: python benchmarks/memory.py.

petseg-batch on links to a few hundred photos, with a network that takes no time, or for an hour
with the real one; then --dry-run of the same command, which looks what is there.  Memory is that of
the command and its workers (see processes.memory).  With --bad some of the links lead to what is
cut off or no image.  It ends with an error where the counts do not add up, and where memory,
handles, processes or threads have grown.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import inputs

from petseg.cli.common import OK, exits
from petseg.errors import PetsegError

PER_FOLDER = 1000
# What the last third of a run may hold beyond the first: a photo's worth for each worker, and what
# the allocator keeps.
GROWTH_MB = 32
# Of shorter runs the first third is still starting workers and trying batch sizes.
SHORTEST_SECONDS = 60
SCRIPT = Path(__file__).with_name("watched_batch.py")


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(100), default=100_000, help="Links to photos.")
@click.option("--drawn", type=click.IntRange(1), default=300, help="Photos that they lead to.")
@click.option("--bad", type=click.FloatRange(0, 1), default=0.0, help="Share of bad images.")
@click.option("--real", is_flag=True, help="The packaged model, in place of no network.")
@click.option("--seconds", type=click.IntRange(1), help="Stop the first run after so long.")
@click.option("--out", type=click.Path(path_type=Path), default="memory.png", help="The curves.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(
    count: int, drawn: int, bad: float, real: bool, seconds: int | None, out: Path, as_json: bool
) -> int:
    """Watch a run, then see how long it takes to find out what is left to do."""
    with tempfile.TemporaryDirectory(prefix="petseg-memory-") as name:
        folder = Path(name)
        (folder / "drawn").mkdir()
        inputs.draw(folder / "drawn", drawn)
        photos = sorted((folder / "drawn").iterdir())
        broken = [folder / "drawn" / name for name in ("cut.jpg", "text.jpg")]
        broken[0].write_bytes(photos[0].read_bytes()[:5000])
        broken[1].write_text("hello")
        bad_ones = 0
        for number in range(count):
            # Spread evenly: so many as make the share up to here.
            is_bad = int((number + 1) * bad) > bad_ones
            bad_ones += is_bad
            place = folder / "images" / f"{number // PER_FOLDER:05}"
            place.mkdir(parents=True, exist_ok=True)
            target = broken[bad_ones % 2] if is_bad else photos[number % drawn]
            (place / f"{number:07}.jpg").symlink_to(target)
        options = ["--real"] if real else []
        first, counts = watch(folder, "first", options, seconds)
        again, _ = watch(folder, "again", [*options, "--dry-run"], None)
    check(counts, count, bad_ones, whole=seconds is None)
    found = describe(first, again, count) | {"failed": counts["failed"], "left": counts["left"]}
    draw(first, out)
    for key, value in found.items():
        click.echo(f"{key}: {value}", err=as_json)
    click.echo(f"curves: {out}", err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    if found["seconds"] >= SHORTEST_SECONDS:
        steady(found)
    else:
        click.echo(f"growth is judged from {SHORTEST_SECONDS} seconds on", err=True)
    return OK


def steady(found: dict[str, float]) -> None:
    """Raise PetsegError where a run held more in its last third than in its first.

    Args:
        found: from `describe`.
    """
    allowed = {
        "peak memory of the {} third, MB": GROWTH_MB,
        # A photo or a mask that each process has open when it is looked at.
        "handles at most in the {} third": found["processes at most in the first third"],
        "processes at most in the {} third": 0,
        "threads at most in the {} third": 0,
    }
    for key, more in allowed.items():
        early, late = (found[key.format(third)] for third in ("first", "last"))
        if late > early + more:
            raise PetsegError(
                f"expected no growth over the run, found {key.format('first')} {early:g} and "
                f"{key.format('last')} {late:g}, more than {more:g} beyond it"
            )


def check(counts: dict[str, int], files: int, bad: int, whole: bool) -> None:
    """Raise PetsegError where the counts do not add up, or not all bad images failed."""
    parts = ("done", "skipped", "failed", "ignored", "left")
    right = counts["files"] == files == sum(counts[part] for part in parts)
    if whole:
        right = right and (counts["done"], counts["failed"]) == (files - bad, bad)
    if not right or counts["failed"] > bad:
        raise PetsegError(f"of {files} files {bad} are bad, and the run counts {counts}")


def watch(
    folder: Path, name: str, options: list[str], seconds: int | None
) -> tuple[list[dict[str, float]], dict[str, int]]:
    """One run of petseg-batch.

    Args:
        folder: of images and masks; the log goes there, too.
        name: of the log.
        options: of `watched_batch.py`.
        seconds: SIGTERM comes after so long; None for a run to its end.

    Returns:
        A row a second: seconds, masks done, bytes of memory, and how many file handles, processes
        and threads; and the run's counts.
    """
    log = folder / f"{name}.csv"
    command = [sys.executable, str(SCRIPT), str(folder / "images"), str(folder / "masks"), str(log)]
    process = subprocess.Popen(
        [*command, *options], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, _ = process.communicate()
    if not out:
        raise PetsegError(f"the run ended with exit code {process.returncode}")
    with log.open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return rows, json.loads(out)


def describe(
    first: list[dict[str, float]], again: list[dict[str, float]], files: int
) -> dict[str, float]:
    """Growth and slowing between the first and the last third of a run, and what resuming costs.

    Args:
        first, again: rows of both runs, from `watch`.
        files: that the second one looked at, all of them.
    """
    working = [row for row in first if row["done"] > 0]
    early, late = thirds(working)
    # Behind the last mask comes the page about them all.
    making = [row for row in working if row["done"] < first[-1]["done"]] or working
    making_early, making_late = thirds(making)

    def rate(rows: list[dict[str, float]]) -> float:
        passed = rows[-1]["seconds"] - rows[0]["seconds"]
        return (rows[-1]["done"] - rows[0]["done"]) / passed if passed else 0.0

    def memory(rows: list[dict[str, float]]) -> float:
        return max(row["memory"] for row in rows) / 1e6

    def most(rows: list[dict[str, float]], thing: str) -> int:
        return int(max(row[thing] for row in rows))

    things = {
        f"{thing} at most in the {name} third": most(rows, thing)
        for thing in ("handles", "processes", "threads")
        for name, rows in (("first", early), ("last", late))
    }
    return {
        "masks": first[-1]["done"],
        "seconds": round(first[-1]["seconds"], 1),
        "peak memory of the first third, MB": round(memory(early), 1),
        "peak memory of the last third, MB": round(memory(late), 1),
        "images/s of the first third": round(rate(making_early), 1),
        "images/s of the last third": round(rate(making_late), 1),
        "microseconds a photo to look for its mask": round(1e6 * again[-1]["plan"] / files, 1),
        **things,
    }


def thirds(rows: list[dict[str, float]]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The first and the last third of a run's rows."""
    count = max(1, len(rows) // 3)
    return rows[:count], rows[-count:]


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Memory, what else a run holds, and masks, over time, as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    upper, middle, lower = figure.subplots(3, 1, sharex=True)
    seconds = [row["seconds"] for row in rows]
    upper.plot(seconds, [row["memory"] / 1e6 for row in rows])
    upper.set_ylabel("memory, MB")
    upper.set_ylim(bottom=0)
    for thing in ("handles", "processes", "threads"):
        middle.plot(seconds, [row[thing] for row in rows], label=thing)
    middle.set_ylabel("held by the run")
    middle.set_ylim(bottom=0)
    middle.legend()
    lower.plot(seconds, [row["done"] for row in rows])
    lower.set_ylabel("masks")
    lower.set_xlabel("seconds")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
