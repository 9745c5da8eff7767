"""What a store's slowness costs: python benchmarks/latency.py.

petseg-batch's ferry and engine with a network that takes no time, photos and masks in fsspec's
memory file system, and so many seconds added to every request.  Reading ahead and writing behind
are to hide them: the yardstick is the rate without the delay, from the same minute.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import click
import fsspec
import host
import inputs
from fsspec.implementations.memory import MemoryFileSystem
from null_session import NullSession

from petseg.cli.common import OK, exits
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.photos import imageio
from petseg.remote.ferry import Ferry
from petseg.remote.listing import list_photos
from petseg.remote.shelf import StoreShelf
from petseg.remote.stage import open_stage
from petseg.remote.store import Store
from petseg.system import machine

PHOTOS = "memory://bucket/photos"


class SlowStore(MemoryFileSystem):
    """fsspec's memory file system, but each request takes `delay` seconds longer."""

    cachable = False
    delay = 0.0

    def cat_file(self, path, *args, **options):
        time.sleep(self.delay)
        return super().cat_file(path, *args, **options)

    def pipe_file(self, path, *args, **options):
        time.sleep(self.delay)
        return super().pipe_file(path, *args, **options)


@click.command()
@click.option("--count", type=click.IntRange(64), default=2000, show_default=True, help="Photos.")
@click.option("--drawn", type=click.IntRange(1), default=64, help="Different ones among them.")
@click.option(
    "--delay",
    type=click.FloatRange(0, min_open=True),
    default=0.05,
    show_default=True,
    help="Seconds.",
)
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="[default: one for each core]")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(
    count: int, drawn: int, delay: float, rounds: int, workers: int | None, as_json: bool
) -> int:
    """Measure the ferry with and without a delay."""
    fsspec.register_implementation("memory", SlowStore, clobber=True)
    cores = machine.usable_cores()
    fill(count, drawn)
    rates: dict[float, list[float]] = {0.0: [], delay: []}
    for number in range(rounds):
        # One after the other, so that a slow minute meets both, and each begins in turn.
        for seconds in sorted(rates, reverse=bool(number % 2)):
            SlowStore.delay = seconds
            rates[seconds].append(measure(f"memory://bucket/{number}-{seconds}", workers or cores))
    shares = [slow / quick for quick, slow in zip(rates[0.0], rates[delay], strict=True)]
    found = {
        "delay_seconds": delay,
        "images_per_second": statistics.median(rates[delay]),
        "images_per_second_without": statistics.median(rates[0.0]),
        # Of a ratio; each way of measuring is first in every other round, and what a machine
        # does to the later one falls out of an even number of rounds.
        "share": statistics.geometric_mean(shares),
        "shares": shares,
    }
    if rounds > 1:
        error = statistics.stdev(map(math.log, shares)) / math.sqrt(rounds)
        found["share_standard_error"] = found["share"] * error
    lines = [
        f"{machine.device_name('cpu')}, {cores} cores, {count} photos of 500x375, {rounds} rounds",
        "",
        f"| without delay, images/s | {1e3 * delay:.0f} ms a request, images/s "
        "| share, mean ± standard error (min-max) |",
        "|---|---|---|",
        f"| {found['images_per_second_without']:.0f} | {found['images_per_second']:.0f} | "
        f"{found['share']:.1%} ± {found.get('share_standard_error', math.nan):.1%} "
        f"({min(shares):.1%}-{max(shares):.1%}) |",
    ]
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def fill(count: int, drawn: int) -> None:
    """Put the photos there."""
    with tempfile.TemporaryDirectory(prefix="petseg-latency-") as name:
        inputs.draw(Path(name), drawn)
        photos = [path.read_bytes() for path in sorted(Path(name).iterdir())]
    fs = fsspec.filesystem("memory")
    for number in range(count):
        fs.pipe_file(f"/bucket/photos/{number:06}.jpg", photos[number % drawn])


def measure(masks: str, workers: int) -> float:
    """Images a second, from the first tenth of them to the last put."""
    ended: list[float] = []

    def on_outcome(outcome: Outcome) -> None:
        assert outcome.status == "done", outcome.problem
        ended.append(time.perf_counter())

    def on_batch(batch: Batch) -> None:
        del batch

    with open_stage() as stage:
        store = Store(PHOTOS)
        entries = list_photos(store)
        shelf = StoreShelf(Store(masks), imageio.DEFAULT_MAX_PIXELS)
        todo = [Work(f"{PHOTOS}/{name}", name, f"{name}.png") for name in entries]
        (stage.folder / "temporary").mkdir()
        job = host.make_job(stage.masks, stage.folder / "temporary")
        engine = LocalEngine(NullSession(None), job, workers, 60)  # type: ignore[arg-type]
        ferry = Ferry(stage, (store, entries), shelf, imageio.DEFAULT_MAX_PIXELS, False, 60)
        try:
            ferry.run(engine, iter(todo), on_outcome, on_batch, lambda: False)
        finally:
            ferry.close()
            engine.close()
    # The first photos start the workers.
    warm = len(todo) // 10
    return (len(todo) - warm) / (ended[-1] - ended[warm - 1])


if __name__ == "__main__":
    main()
