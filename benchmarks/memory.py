"""Memory and speed over a long run: python benchmarks/memory.py.

petseg-batch on links to a few hundred photos, with a network that takes no time, or for an hour
with the real one; then the same command again, which finds every mask in place.  Memory is that of
the command and its workers (see processes.memory).
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

PER_FOLDER = 1000
SCRIPT = Path(__file__).with_name("watched_batch.py")


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(100), default=100_000, help="Links to photos.")
@click.option("--drawn", type=click.IntRange(1), default=300, help="Photos that they lead to.")
@click.option("--real", is_flag=True, help="The packaged model, in place of no network.")
@click.option("--seconds", type=click.IntRange(1), help="Stop the first run after so long.")
@click.option("--out", type=click.Path(path_type=Path), default="memory.png", help="The curves.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(count: int, drawn: int, real: bool, seconds: int | None, out: Path, as_json: bool) -> int:
    """Watch a run, then the run that finds nothing to do."""
    with tempfile.TemporaryDirectory(prefix="petseg-memory-") as name:
        folder = Path(name)
        (folder / "drawn").mkdir()
        inputs.draw(folder / "drawn", drawn)
        photos = sorted((folder / "drawn").iterdir())
        for number in range(count):
            place = folder / "images" / f"{number // PER_FOLDER:05}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:07}.jpg").symlink_to(photos[number % drawn])
        first = watch(folder, "first", real, seconds)
        again = watch(folder, "again", real, seconds)
    found = describe(first, again)
    draw(first, out)
    for key, value in found.items():
        click.echo(f"{key}: {value}", err=as_json)
    click.echo(f"curves: {out}", err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def watch(folder: Path, name: str, real: bool, seconds: int | None) -> list[dict[str, float]]:
    """One run of petseg-batch; a row a second: seconds, masks done, bytes of memory."""
    log = folder / f"{name}.csv"
    options = ["--real"] if real else []
    command = [sys.executable, str(SCRIPT), str(folder / "images"), str(folder / "masks"), str(log)]
    process = subprocess.Popen([*command, *options], start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
    with log.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def describe(first: list[dict[str, float]], again: list[dict[str, float]]) -> dict[str, float]:
    """Growth and slowing between the first and the last third of a run, and what resuming costs."""
    working = [row for row in first if row["done"] > 0]
    third = max(1, len(working) // 3)
    early, late = working[:third], working[-third:]

    def rate(rows: list[dict[str, float]]) -> float:
        passed = rows[-1]["seconds"] - rows[0]["seconds"]
        return (rows[-1]["done"] - rows[0]["done"]) / passed if passed else 0.0

    def memory(rows: list[dict[str, float]]) -> float:
        return max(row["memory"] for row in rows) / 1e6

    masks = first[-1]["done"]
    return {
        "masks": masks,
        "seconds": round(first[-1]["seconds"], 1),
        "peak memory of the first third, MB": round(memory(early), 1),
        "peak memory of the last third, MB": round(memory(late), 1),
        "images/s of the first third": round(rate(early), 1),
        "images/s of the last third": round(rate(late), 1),
        "microseconds a mask to find it in place": round(1e6 * again[-1]["plan"] / masks, 1),
    }


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Memory and masks over time, as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    seconds = [row["seconds"] for row in rows]
    upper.plot(seconds, [row["memory"] / 1e6 for row in rows])
    upper.set_ylabel("memory, MB")
    upper.set_ylim(bottom=0)
    lower.plot(seconds, [row["done"] for row in rows])
    lower.set_ylabel("masks")
    lower.set_xlabel("seconds")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
