"""What an image, a name and a start cost: python benchmarks/overheads.py --json > overheads.json.

What `growth.py` needs to tell how petseg-batch grows: the times of the three steps of each photo,
of a command's start, of finding a file of one's own and of others', of finding that a mask is
there, of the page at the end, of a store's requests, and of Ray's start; each measured with the
real thing on drawn photos.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import inputs
import ray_start
import store_costs
from looking import look

from petseg.batch.run import run_batch
from petseg.cli.common import OK, exits
from petseg.engines.outcome import Outcome
from petseg.masks.reading import RESERVED
from petseg.pages.masks import NAME
from petseg.planning.config import BatchConfig
from petseg.system import machine

COMMAND = (sys.executable, "-c", "from petseg.cli.main import main; main()")


class Times:
    """Keeps every outcome's times; see `batch.Progress`."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def begin(self, todo: int, provider: str, skipped: int, failed: int) -> None:
        """Nothing to show."""

    def count(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def tick(self) -> None:
        """Nothing to show."""


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(16), default=200, help="Photos through the network.")
@click.option("--copies", type=click.IntRange(2), default=50, help="Of them and their masks.")
@click.option("--names", type=click.IntRange(1000), default=50_000, help="Of others' files.")
@click.option("--objects", type=click.IntRange(100), default=3000, help="In the store.")
@click.option("--store/--no-store", default=True, help="A store's names and requests.")
@click.option("--ray/--no-ray", default=None, help="Ray's start.  [default: if it is installed]")
@click.option("--model", type=click.Path(path_type=Path), help="As petseg-batch's, and so are:")
@click.option("--provider", default="auto")
@click.option("--precision", default="auto")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(
    count: int,
    copies: int,
    names: int,
    objects: int,
    store: bool,
    ray: bool | None,
    model: Path | None,
    provider: str,
    precision: str,
    as_json: bool,
) -> int:
    """Measure on this machine."""
    asked = ("--provider", provider, "--precision", precision)
    asked += () if model is None else ("--model", str(model))
    with tempfile.TemporaryDirectory(prefix="petseg-overheads-") as name:
        folder = Path(name)
        photos, masks = folder / "photos", folder / "masks"
        (photos / "0").mkdir(parents=True)
        inputs.draw(photos / "0", count)
        found = run(photos, masks, model, provider, precision)
        found["start_seconds"] = start(photos, folder / "one", *asked)
        there = sorted((photos / "0").iterdir())
        mask = next((masks / "0").iterdir()).read_bytes()
        few = page(photos, masks)
        for number in range(1, copies):
            shutil.copytree(photos / "0", photos / str(number))
            shutil.copytree(masks / "0", masks / str(number))
        found |= looks(photos, masks, model, folder, names)
        more = found["files"] - count
        found["page_seconds"] = (page(photos, masks) - few) / more
        found["page_bytes"] = (masks / RESERVED / NAME).stat().st_size
        fetched = folder / "fetched"
        found["store"] = store_costs.measure(there, mask, objects, fetched) if store else None
        if importlib.util.find_spec("ray") is not None if ray is None else ray:
            cluster = ("--engine", "ray", *asked, "--address")
            found["ray"] = ray_start.measure(
                lambda address: start(photos / "0", folder / "cluster", *cluster, address)
            )
        else:
            found["ray"] = None
    click.echo("\n".join(table(found)), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def run(
    photos: Path, masks: Path, model: Path | None, provider: str, precision: str
) -> dict[str, Any]:
    """Every photo's times, in a run of all of them."""
    times = Times()
    asked = {"model": model, "provider": provider, "precision": precision}
    report = run_batch(
        BatchConfig(str(photos), masks, report=False, **asked),  # type: ignore[arg-type]
        lambda line: click.echo(line, err=True),
        times,
    )
    # As if with all of the session's streams at once, like the photos of a batch.
    share = report.infer_wall_seconds / sum(one.infer_seconds for one in times.outcomes)
    return {
        "machine": machine.device_name("cpu"),
        "cores": machine.usable_cores(),
        "device": report.device,
        "provider": report.provider,
        "precision": report.precision,
        "batch_size": report.batch_size,
        "base_bytes": report.peak_memory_bytes,
        "images_per_second": report.images_per_second,
        "read_seconds": [one.read_seconds for one in times.outcomes],
        "infer_seconds": [share * one.infer_seconds for one in times.outcomes],
        "write_seconds": [one.write_seconds for one in times.outcomes],
    }


def start(photos: Path, masks: Path, *options: str) -> float:
    """Seconds from the command to its end, for one photo."""
    began = time.perf_counter()
    subprocess.run(
        [*COMMAND, "batch", photos, masks, "--limit", "1", "--quiet", "--no-report", *options],
        check=True,
    )
    return time.perf_counter() - began


def page(photos: Path, masks: Path) -> float:
    """Seconds for the page of all masks."""
    began = time.perf_counter()
    command = [*COMMAND, "report", masks, "--images", photos]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def looks(
    photos: Path, masks: Path, model: Path | None, folder: Path, names: int
) -> dict[str, float]:
    """What a file takes to find: of one's own, one whose mask is there, and others'."""
    own, done = look(photos, folder / "none"), look(photos, masks, model)
    foreign = folder / "foreign"
    foreign.mkdir()
    for number in range(names):
        (foreign / f"{number:08}.jpg").touch()
    others = look(foreign, folder / "none", others=True)
    shutil.rmtree(foreign)
    return {
        "files": own.files,
        "find_seconds": own.wall_seconds / own.files,
        "plan_bytes": own.peak_bytes / own.files,
        "resume_seconds": done.wall_seconds / done.files,
        "foreign_seconds": others.wall_seconds / others.files,
        "foreign_bytes": others.peak_bytes / others.files,
    }


def table(found: dict[str, Any]) -> Iterator[str]:
    """Markdown."""
    yield (
        f"{found['machine']}, {found['cores']} cores; {found['provider']} ({found['precision']}), "
        f"batches of {found['batch_size']}, {found['images_per_second']:.2f} images/s"
    )
    yield ""
    yield "| for each | what | takes |"
    yield "|---|---|---|"
    for step, what in (("read", "read"), ("infer", "through the network"), ("write", "write")):
        times = [1e3 * seconds for seconds in found[f"{step}_seconds"]]
        yield (
            f"| image | {what} | {statistics.median(times):.2f} ms, "
            f"95th percentile {statistics.quantiles(times, n=20)[-1]:.2f} ms |"
        )
    for each, what, seconds, held in (
        ("image", "found, no mask there", "find_seconds", "plan_bytes"),
        ("image", "found, its mask is there", "resume_seconds", None),
        ("other shard's image", "found in the same folder", "foreign_seconds", "foreign_bytes"),
        ("image", "the page of all masks", "page_seconds", None),
    ):
        memory = "" if held is None else f", {found[held]:.0f} bytes"
        yield f"| {each} | {what} | {1e6 * found[seconds]:.1f} µs{memory} |"
    yield f"| {found['files']} masks | the page of them all | {found['page_bytes'] / 1e6:.2f} MB |"
    if store := found["store"]:
        for what in ("get", "put"):
            yield f"| request | {what}, of the command's process | {1e3 * store[what]:.2f} ms |"
        yield (
            f"| name in a store | listed, of the command's process | {1e6 * store['list']:.1f} µs, "
            f"{store['list_bytes']:.0f} bytes |"
        )
        yield (f"| mask in a store | its name and time, kept | {store['kept_bytes']:.0f} bytes |")
    memory = "unknown" if (held := found["base_bytes"]) is None else f"{held / 1e6:.0f} MB"
    yield f"| node or shard | the command, one photo | {found['start_seconds']:.2f} s, {memory} |"
    if cluster := found["ray"]:
        yield f"| cluster | Ray's first node | {cluster['head']:.2f} s |"
        yield f"| node | joins Ray's cluster | {cluster['node']:.2f} s |"
        yield f"| run on two nodes | the command, one photo | {cluster['run']:.2f} s |"


if __name__ == "__main__":
    main()
