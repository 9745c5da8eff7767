"""How long a start takes: python benchmarks/startup.py.

From starting petseg-batch's process, interpreter, imports and model and all, until its first mask
is in place, on the CPU provider and on OpenVINO; and `petseg-batch --help`.  The first start of
each, with empty folders for caches, stands for itself; the others find what it left there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import inputs

from petseg.cli.common import OK, exits
from petseg.errors import PetsegError
from petseg.runtime import openvino
from petseg.system import machine

COMMAND = (sys.executable, "-c", "from petseg.cli.batch import main; main()")
# Seconds.
GOALS = {"cpu": 2.0, "openvino": 2.0, "help": 0.3}
# Enough for every kind of batch that a run begins with; the first mask is what counts.
PHOTOS = 4
# The longest that a mask may be there without being seen.
_LOOK_SECONDS = 0.002


@click.command(context_settings={"show_default": True})
@click.option("--model", type=click.Path(path_type=Path), help="[default: as petseg-batch]")
@click.option("--rounds", type=click.IntRange(2), default=7, help="The first stands for itself.")
@click.option(
    "--only", type=click.Choice(tuple(GOALS)), multiple=True, help="Repeatable.  [default: all]"
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(model: Path | None, rounds: int, only: tuple[str, ...], as_json: bool) -> int:
    """Measure starts."""
    starts = [name for name in GOALS if name in only or not only]
    if "openvino" in starts and (missing := openvino.problem()) is not None:
        click.echo(f"openvino: skipped: {missing}", err=True)
        starts.remove("openvino")
    seconds: dict[str, list[float]] = {name: [] for name in starts}
    with tempfile.TemporaryDirectory(prefix="petseg-startup-") as temporary:
        folder = Path(temporary)
        photos = folder / "photos"
        photos.mkdir()
        inputs.draw(photos, PHOTOS)
        environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
        for number in range(rounds):
            for name in starts:
                if name == "help":
                    seconds[name].append(help_seconds(environment))
                else:
                    masks = folder / f"{number}-{name}"
                    seconds[name].append(
                        first_mask_seconds(photos, masks, name, model, environment)
                    )
    found = {
        name: {
            "first_seconds": taken[0],
            "seconds": statistics.median(taken[1:]),
            "least": min(taken[1:]),
            "most": max(taken[1:]),
            "goal": GOALS[name],
        }
        for name, taken in seconds.items()
    }
    lines = [
        f"{machine.device_name('cpu')}, {machine.usable_cores()} cores, "
        f"medians of {rounds - 1} starts behind the first",
        "",
        "| start | first, s | later, s | min-max | goal, s |",
        "|---|---|---|---|---|",
    ]
    for name, row in found.items():
        what = "petseg-batch --help" if name == "help" else f"first mask, {name}"
        lines.append(
            f"| {what} | {row['first_seconds']:.2f} | {row['seconds']:.2f} "
            f"| {row['least']:.2f}-{row['most']:.2f} | {row['goal']} |"
        )
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def help_seconds(environment: dict[str, str]) -> float:
    """From start to end of `petseg-batch --help`."""
    began = time.perf_counter()
    subprocess.run([*COMMAND, "--help"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_mask_seconds(
    photos: Path, masks: Path, provider: str, model: Path | None, environment: dict[str, str]
) -> float:
    """From the start of petseg-batch until the first mask has its name.

    Raises:
        PetsegError: the command ended without a mask, having said why.
    """
    masks.mkdir()
    options = ["--provider", provider, "--quiet", "--no-report"]
    if model is not None:
        options += ["--model", str(model)]
    began = time.perf_counter()
    with subprocess.Popen([*COMMAND, str(photos), str(masks), *options], env=environment) as run:
        while run.poll() is None and not any(masks.glob("*.png")):
            time.sleep(_LOOK_SECONDS)
        seconds = time.perf_counter() - began
    if run.returncode or not any(masks.glob("*.png")):
        raise PetsegError(f"petseg-batch on {provider} ended with exit code {run.returncode}")
    return seconds


if __name__ == "__main__":
    main()
