"""Whether a core idles while petseg-batch works: python benchmarks/cores.py.

The bare session, alone, at its best setting, takes so many core-seconds an image, and reading and
writing, measured by themselves, so many more: `cores` by their sum is what the machine's cores
allow.  petseg-batch is to reach 95 % of it.  All three are measured in the same run, one behind
the other in each round, because a machine's slow minutes meet them all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bare_session
import click
import inputs
import saturation

from petseg.cli.common import OK, exits
from petseg.errors import PetsegError
from petseg.planning.config import find_model, packaged
from petseg.runtime import openvino
from petseg.system import machine

# What each precision is computed with where there is no GPU.
PROVIDERS = {"float32": "cpu", "bfloat16": "openvino", "int8": "openvino"}
GOAL = 0.95
COMMAND = (sys.executable, "-c", "from petseg.cli.batch import main; main()")

Row = dict[str, Any]


@click.command(context_settings={"show_default": True})
@click.option("--model", type=click.Path(path_type=Path), help="[default: as petseg-batch]")
@click.option(
    "--int8-model",
    type=click.Path(path_type=Path),
    help="ONNX file of the same weights in int8.  [default: the one in the package]",
)
@click.option("--count", type=click.IntRange(16), default=400, help="Photos through petseg-batch.")
@click.option("--drawn", type=click.IntRange(1), default=64, help="Different ones among them.")
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=4.0, help="Of each setting."
)
@click.option(
    "--only", type=click.Choice(tuple(PROVIDERS)), multiple=True, help="Repeatable.  [default: all]"
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the tables on stderr.")
@exits
def main(
    model: Path | None,
    int8_model: Path | None,
    count: int,
    drawn: int,
    rounds: int,
    seconds: float,
    only: tuple[str, ...],
    as_json: bool,
) -> int:
    """Measure petseg-batch against what session and host leave it."""
    path, _ = find_model(model)
    if int8_model is None and model is None and packaged("int8").exists():
        int8_model = packaged("int8")
    files = {"float32": path, "bfloat16": path, "int8": int8_model}
    asked = {name: files[name] for name in PROVIDERS if name in only or not only}
    lacking = {name: why for name, file in asked.items() if (why := lack(name, file))}
    for name, why in lacking.items():
        click.echo(f"{name}: skipped: {why}", err=True)
    competing = {
        name: file for name, file in asked.items() if name not in lacking and file is not None
    }
    if not competing:
        raise PetsegError("no precision is left to measure")
    cores = machine.usable_cores()
    taken: dict[str, list[Row]] = {name: [] for name in competing}
    with tempfile.TemporaryDirectory(prefix="petseg-cores-") as temporary:
        folder = Path(temporary)
        photos = folder / "photos"
        photos.mkdir()
        inputs.draw_some(photos, count, drawn)
        different = sorted(photos.iterdir())[:drawn]
        for number in range(1, rounds + 1):
            for name, file in competing.items():
                place = folder / f"{number}-{name}"
                row = {
                    "bare": bare_session.measured(file, PROVIDERS[name], name, seconds),
                    "host_seconds": saturation.measure_host(different, place / "host"),
                    "batch": run(file, name, photos, place / "masks"),
                }
                taken[name].append(row)
                now = summary(name, [row], cores)
                click.echo(
                    f"round {number} of {rounds}: {name}: {now['images_per_second']:.2f} images/s "
                    f"of {now['allowed']:.2f}",
                    err=True,
                )
    found = [summary(name, taken[name], cores) for name in competing]
    shown = (
        f"{machine.device_name('cpu')}, {cores} cores, {count} photos of 500x375, "
        f"medians of {rounds} rounds, nobody spins\n\n{table(found)}\n\n{sweeps(found)}"
    )
    click.echo(shown, err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def lack(precision: str, model: Path | None) -> str | None:
    """Why a precision cannot be measured here; None where it can."""
    if model is None:
        return "no int8 file: name one with --int8-model (petseg-export makes them)"
    if PROVIDERS[precision] != "openvino":
        return None
    if (missing := openvino.problem()) is not None:
        return str(missing)
    if precision == "bfloat16" and not openvino.has_bfloat16(openvino.shared_core()):
        return "this processor has no bfloat16 arithmetic"
    return None


def run(model: Path, precision: str, photos: Path, masks: Path) -> Row:
    """petseg-batch, the command, as a process of its own; its stats."""
    options = (
        *("--model", model, "--provider", PROVIDERS[precision], "--precision", precision),
        *("--quiet", "--json", "--no-report"),
    )
    command = [str(part) for part in (*COMMAND, photos, masks, *options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    stats: Row = json.loads(done.stdout)
    return stats


def summary(precision: str, rounds: list[Row], cores: int) -> Row:
    """Medians over all rounds; of ratios, too, which are taken round by round.

    Args:
        precision: for the row.
        rounds: "bare", the rows of `bare_session.sweep`, always in the same order;
            "host_seconds", core-seconds a photo; and "batch", the stats of petseg-batch.
        cores: of the machine.

    Returns:
        All in images a second and core-seconds an image: "bare_seconds" and "bare_rate" at the
        best setting, "host_seconds", "allowed" by the cores, "images_per_second" of petseg-batch,
        their "share", "batch_seconds" of processor time it took while it worked, its last
        "batch_size" and "workers", and "sweep", the settings' medians.
    """
    sweep = [
        {
            **settings[0],
            **{
                figure: statistics.median(row[figure] for row in settings)
                for figure in ("images_per_second", "core_seconds", "rest")
            },
        }
        for settings in zip(*(row["bare"] for row in rounds), strict=True)
    ]
    best = sweep.index(bare_session.fastest(sweep))
    allowed = [cores / (row["bare"][best]["core_seconds"] + row["host_seconds"]) for row in rounds]
    stats = [row["batch"] for row in rounds]
    rates = [one["images_per_second"] for one in stats]
    busy = [
        sum(stage["busy_core_seconds"] for stage in one["stages"].values()) / one["counts"]["done"]
        for one in stats
    ]
    return {
        "precision": precision,
        "provider": PROVIDERS[precision],
        "bare_rate": sweep[best]["images_per_second"],
        "bare_seconds": sweep[best]["core_seconds"],
        "host_seconds": statistics.median(row["host_seconds"] for row in rounds),
        "allowed": statistics.median(allowed),
        "images_per_second": statistics.median(rates),
        "share": statistics.median(
            rate / limit for rate, limit in zip(rates, allowed, strict=True)
        ),
        "batch_seconds": statistics.median(busy),
        "batch_size": stats[-1]["batch_size"],
        "workers": stats[-1]["workers"],
        "sweep": sweep,
    }


def table(found: list[Row]) -> str:
    """Markdown: a row for each precision."""
    lines = [
        "| precision | bare session, images/s | bare, core-ms | host, core-ms "
        f"| the cores allow, images/s | petseg-batch, images/s | share (goal {GOAL:.0%}) "
        "| petseg-batch, core-ms | batches of | workers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        lines.append(
            f"| {row['precision']} ({row['provider']}) | {row['bare_rate']:.2f} "
            f"| {1e3 * row['bare_seconds']:.1f} | {1e3 * row['host_seconds']:.2f} "
            f"| {row['allowed']:.2f} | {row['images_per_second']:.2f} | {row['share']:.1%} "
            f"| {1e3 * row['batch_seconds']:.1f} | {row['batch_size']} | {row['workers']} |"
        )
    return "\n".join(lines)


def sweeps(found: list[Row]) -> str:
    """Markdown: a row for each setting of the bare session, the best of each precision marked."""
    lines = [
        "| bare session | streams x threads | batch | spinning | images/s | core-ms an image "
        "| cores busy behind the runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        best = bare_session.fastest(row["sweep"])
        for setting in row["sweep"]:
            rate = f"{setting['images_per_second']:.2f}"
            lines.append(
                f"| {row['precision']} | {setting['streams']} x {setting['threads']} "
                f"| {setting['batch']} | {'on' if setting['spinning'] else 'off'} "
                f"| {f'**{rate}**' if setting is best else rate} "
                f"| {1e3 * setting['core_seconds']:.1f} | {setting['rest']:.2f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
