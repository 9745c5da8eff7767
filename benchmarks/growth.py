"""How petseg-batch grows: python benchmarks/growth.py overheads.json.

Nodes that share photos, from what `overheads.py` measured: each starts, looks at names, works
through its photos (`replay.py`), and may fail and start anew (`plans.py`).  Then what it comes to
is held against limits.  What was not measured here is an option, and its default has a source.

Photos lie in folders or in a store.  They are shared out with --shard K/N, where each node lists
all of them, or in parts: each node has a folder or prefix of its own (photos/0017 into
masks/0017), and sees nothing else.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
from plans import Limits, Plan, Way, plan
from replay import find_pace

from petseg.cli.common import OK, exits

IMAGES = (10**6, 10**8, 10**10)


@click.command(context_settings={"show_default": True})
@click.argument("overheads", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--workers", type=click.IntRange(1), help="A node's.  [default: its cores]")
@click.option("--hours", type=click.FloatRange(0, min_open=True), default=24.0, help="Done in.")
@click.option(
    "--failures", type=click.FloatRange(0), default=0.001, help="Of a node in an hour; a guess."
)
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    default=16.0,
    help="GB of a node; what Amazon's smallest machines with a GPU have (g4dn.xlarge, g5.xlarge).",
)
@click.option("--folders", type=click.IntRange(1), default=1, help="That photos are spread over.")
@click.option(
    "--in-folder",
    type=click.IntRange(1),
    default=10_000_000,
    help='Files in one; ext4 without large_dir: "approximately 10M entries" (Linux, e08ac99fa2a2).',
)
@click.option(
    "--prefixes", type=click.IntRange(1), default=1, help="A store's, photos spread over them."
)
@click.option(
    "--puts",
    type=click.IntRange(1),
    default=3500,
    help="A second and prefix; Amazon S3, Optimizing performance: 3,500 PUT, 5,500 GET.",
)
@click.option("--gets", type=click.IntRange(1), default=5500, help="The same source.")
@click.option(
    "--page-seconds",
    type=click.FloatRange(0),
    default=0.15,
    help='For a thousand names; Amazon S3, Optimizing performance: "100-200 milliseconds".',
)
@click.option(
    "--looking",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    help="Share of a node's time that looking at names may take; a choice.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(overheads: Path, workers: int | None, memory: float, as_json: bool, **assumed: Any) -> int:
    """Nodes, hours, requests and what breaks first for 10^6, 10^8 and 10^10 photos."""
    measured = json.loads(overheads.read_text(encoding="utf-8"))
    limits = Limits(memory=memory * 1e9, **assumed)
    pace = find_pace(measured, workers or measured["cores"])
    stores = (False, True) if measured["store"] else (False,)
    ways = [Way(store, parts) for store in stores for parts in (False, True)]
    plans = [plan(measured, pace, images, way, limits) for images in IMAGES for way in ways]
    lines = [
        f"{measured['device']}, {measured['provider']} ({measured['precision']}): "
        f"{measured['images_per_second']:.2f} images/s measured, "
        f"{pace.images_per_second:.2f} replayed",
        "",
        "| images | photos in, shared by | nodes | hours | idle | first look, h | lost, node h "
        "| requests | breaks first (times its limit) |",
        "|---|---|---|---|---|---|---|---|---|",
        *(row(one) for one in plans),
    ]
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps([{**vars(one), "way": str(one.way)} for one in plans]))
    return OK


def row(one: Plan) -> str:
    """A plan's line in the table."""
    over = [f"{name} ({times:.1f})" for name, times in one.over.items() if times >= 1]
    name, times = next(iter(one.over.items()))
    told = ", ".join(over) or f"nothing; nearest: {name} ({times:.2f})"
    start = f"| {one.images:.0e} | {one.way} | {one.nodes:,} |"
    if not math.isfinite(one.hours):
        return f"{start} never | - | {one.looking:.2f} | - | - | {told} |"
    requests = f"{one.requests:.1e}" if one.way.store else "-"
    return (
        f"{start} {one.hours:.2f} | {one.idle:.1%} | {one.looking:.2f} | {one.lost:.1f} | "
        f"{requests} | {told} |"
    )


if __name__ == "__main__":
    main()
