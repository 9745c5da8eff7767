"""What masks in tar files cost (`petseg-batch --shards`): python benchmarks/packing.py.

Microseconds a mask, on this machine's file system and without a network: to append it, to find it
when a run begins, and to read its record.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path

import click

from petseg.cli.common import OK, exits
from petseg.masks import packs
from petseg.remote.packer import Packer
from petseg.system import machine

# A palette mask of 500x375 has some 3,000 bytes; its record lies in the first 4096.
MASK_BYTES, HEAD_BYTES = 3000, 4096


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(1), default=20_000, help="Masks.")
@click.option("--shards", type=click.IntRange(1), default=5000, help="Masks in a tar file.")
@click.option("--folder", type=click.Path(path_type=Path), help="[default: TMPDIR]")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(count: int, shards: int, folder: Path | None, as_json: bool) -> int:
    """Pack, find and read."""
    data = random.Random(1).randbytes(MASK_BYTES)
    found = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        packer = Packer(Path(name), shards)
        packer.find()
        started = time.perf_counter()
        for number in range(count):
            packer.put(f"a/{number:08}.png", data, False)
        packer.tidy()
        found["append"] = time.perf_counter() - started
        started = time.perf_counter()
        members = packs.index(Path(name))
        found["find"] = time.perf_counter() - started
        started = time.perf_counter()
        for member in members.values():
            packs.read(member, HEAD_BYTES)
        found["read the record"] = time.perf_counter() - started
    found = {name: seconds / count * 1e6 for name, seconds in found.items()}
    lines = [
        f"{machine.device_name('cpu')}, {count} masks of {MASK_BYTES} bytes, {shards} a tar file",
        "",
        "| | microseconds a mask |",
        "|---|---|",
        *(f"| {name} | {value:.0f} |" for name, value in found.items()),
    ]
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


if __name__ == "__main__":
    main()
