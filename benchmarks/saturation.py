"""Where reading and writing saturate: python benchmarks/saturation.py.

petseg-batch's engine with a network that takes no processor time and passes 5,000 and 10,000
images a second: what it reaches is what the machine's cores can read and write.  The yardstick is
`cores / core-seconds a photo`, the latter measured just before, with every core at work.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import cv2
import host
import inputs
import numpy as np
from null_session import NullSession

from petseg import steps
from petseg.cli.common import OK, exits
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.system import machine

RATES = (5_000.0, 10_000.0)


@click.command()
@click.option("--count", type=click.IntRange(64), default=4000, show_default=True, help="Photos.")
@click.option("--drawn", type=click.IntRange(1), default=64, help="Different ones among them.")
@click.option("--workers", type=click.IntRange(1), help="[default: one for each core]")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(count: int, drawn: int, workers: int | None, as_json: bool) -> int:
    """Measure the engine without a network."""
    cores = machine.usable_cores()
    found = []
    with tempfile.TemporaryDirectory(prefix="petseg-saturation-") as name:
        folder = Path(name)
        (folder / "drawn").mkdir()
        inputs.draw(folder / "drawn", drawn)
        photos = sorted((folder / "drawn").iterdir())
        for rate in RATES:
            alone = measure_host(photos, folder / f"alone-{rate:.0f}")
            run = measure(photos, folder / f"{rate:.0f}", count, rate, workers or cores)
            limit = min(rate, cores / alone)
            share = run["images_per_second"] / limit
            found.append({"rate": rate, "host_seconds": alone, **run, "share_of_limit": share})
    lines = [
        f"{machine.device_name('cpu')}, {cores} cores, {count} photos of 500x375",
        "",
        "| network, images/s | reached, images/s | host alone, core-ms | in the run: workers "
        "| this process | of what the cores allow |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        lines.append(
            f"| {row['rate']:.0f} | {row['images_per_second']:.0f} | "
            f"{1e3 * row['host_seconds']:.2f} | {1e3 * row['worker_seconds']:.2f} | "
            f"{1e3 * row['parent_seconds']:.2f} | {row['share_of_limit']:.0%} |"
        )
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def measure_host(photos: list[Path], folder: Path) -> float:
    """Core-seconds for a photo in and its mask out, with every core at the same work.

    Cores share caches, memory and, often, two by two, everything else: one that works alone is
    faster than each of them can be.
    """
    cores = machine.usable_cores()
    with ProcessPoolExecutor(cores) as processes:
        folders = [folder / str(number) for number in range(cores)]
        return statistics.mean(processes.map(_host_seconds, [photos] * cores, folders))


def _host_seconds(photos: list[Path], folder: Path) -> float:
    cv2.setNumThreads(1)
    (folder / "temporary").mkdir(parents=True)
    job = host.make_job(folder, folder / "temporary")
    pixels = np.empty((host.SIDE, host.SIDE, 3), np.uint8)
    scores = host.draw_probabilities()

    def work() -> None:
        for photo in photos:
            read = steps.read(str(photo), pixels, job.max_pixels)
            steps.write(f"{photo.stem}.png", read, scores, job)

    return host.core_milliseconds(work) / 1e3 / len(photos)


def measure(
    photos: list[Path], folder: Path, count: int, rate: float, workers: int
) -> dict[str, float]:
    """One run of the engine: images a second, and processor time a photo."""
    (folder / "temporary").mkdir(parents=True)
    job = host.make_job(folder / "masks", folder / "temporary")
    (folder / "masks").mkdir()
    todo = [
        Work(str(photos[number % len(photos)]), f"{number}.jpg", f"{number}.png")
        for number in range(count)
    ]
    seconds = [0.0]
    # The first photos start the workers.
    warm = count // 10
    begun: list[float] = []

    def on_outcome(outcome: Outcome) -> None:
        assert outcome.status == "done", outcome.problem
        seconds[0] += outcome.read_seconds + outcome.write_seconds
        begun.append(time.perf_counter())

    def on_batch(batch: Batch) -> None:
        del batch

    engine = LocalEngine(NullSession(None, rate), job, workers, 60)  # type: ignore[arg-type]
    try:
        engine.run(iter(todo), on_outcome, on_batch, lambda: False)
        parent = engine.cpu_seconds
    finally:
        engine.close()
    return {
        "images_per_second": (count - warm) / (begun[-1] - begun[warm - 1]),
        "worker_seconds": seconds[0] / count,
        "parent_seconds": parent / count,
        "workers": workers,
    }


if __name__ == "__main__":
    main()
