"""Measure petseg-batch against what people would otherwise use: python benchmarks/bench.py.

Every contestant is a script in `contestants/` that is started anew in each round; this one only
starts them, one after the other, and makes the table.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import gpu
import inputs
import processes
import results
from lineup import BASELINE, CONTESTANTS, REFERENCE, taking_part
from results import Result

from petseg import runtime
from petseg.cli.common import FAILED, OK, PARTLY_FAILED, exits
from petseg.errors import PetsegError
from petseg.modelfile import signature
from petseg.planning.config import find_model, packaged
from petseg.runtime import cuda
from petseg.system import machine

# So many that petseg-batch's trials of batch sizes, on the first 60, are a small part; and drawn.
DEFAULT_COUNT, DRAWN = 240, 64

SCRIPTS = Path(__file__).with_name("contestants")
ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
PACKAGES = (
    *("petseg", "numpy", "pillow", "simplejpeg", "opencv-python-headless"),
    *("onnxruntime", "onnxruntime-gpu", "openvino", "tensorflow", "keras", "torch"),
)
# Beyond this load for each core, before anything is started, the machine is somebody else's.
BUSY = 0.25
# Lines of a failed contestant's stderr that are shown.
SHOWN = 20


@click.command(context_settings={"show_default": True})
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="ONNX file made by petseg-export.  [default: ./model.onnx, else the one in the package]",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="A folder of photos, in place of drawn ones of 500x375.",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    help=f"How many photos.  [default: {DEFAULT_COUNT} drawn ones, or all of --images]",
)
@click.option("--repeats", type=click.IntRange(1), default=3, help="Rounds.")
@click.option(
    "--only",
    type=click.Choice(tuple(CONTESTANTS)),
    multiple=True,
    help="Repeatable.  [default: all contestants]",
)
@click.option(
    "--provider",
    type=click.Choice(("auto", "cuda", "cpu")),
    default="auto",
    help="Of those that have no provider in their name; the others stay out on cuda.",
)
@click.option("--gpu", "settings", is_flag=True, help="First every setting of the CUDA provider.")
@click.option(
    "--int8-model",
    type=click.Path(path_type=Path),
    help="ONNX file of the same weights in int8.  [default: the one in the package]",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="A new or empty folder that photos and masks stay in.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(
    model: Path | None,
    images: Path | None,
    count: int | None,
    repeats: int,
    only: tuple[str, ...],
    provider: str,
    settings: bool,
    int8_model: Path | None,
    keep: Path | None,
    as_json: bool,
) -> int:
    """Photos in, masks out, by petseg-batch and by other ways with the same weights.

    README.md, beside this script, says what is measured and what the figures cannot show.

    Exit codes: 0 done, whatever was skipped; 1 could not run, or nobody went through; 2 wrong
    usage; 3 some contestants failed.
    """
    with working_folder(keep) as folder:
        photos = folder / "photos"
        photos.mkdir()
        if provider == "auto":
            provider = "cuda" if cuda.problem() is None else "cpu"
        else:
            runtime.choose(provider)
        contestants = [
            Result(name, known.ceiling)
            for name, known in taking_part(provider).items()
            if name in only or not only
        ]
        if not contestants:
            raise PetsegError(
                f"no contestant is left: {', '.join(only)} stay out on {provider}; name others "
                "with --only, or take another --provider"
            )
        setting = describe(model, provider, int8_model)
        path = Path(setting["model"]["path"])
        on_cuda = gpu.files(path, folder) if provider == "cuda" or settings else {}
        if settings:
            setting["gpu"] = gpu.report(on_cuda, signature.read(path), provider)
            click.echo("\n".join(gpu.table(setting["gpu"])) + "\n", err=as_json)
        files = on_cuda
        if provider == "cpu":
            files = {"float32": path, "bfloat16": path}
            if setting["int8_model"] is not None:
                files["int8"] = Path(setting["int8_model"])
        if images is None:
            inputs.draw_some(photos, count or DEFAULT_COUNT, DRAWN)
        else:
            inputs.link(photos, images, count, say)
        number = len(list(photos.iterdir()))
        if not number:
            raise PetsegError(f"{images} has no photo that all contestants can read")
        setting["photos"] = {"count": number, "from": str(images) if images else "drawn, 500x375"}
        for round_number in range(1, repeats + 1):
            # Each round begins with another one, so that nobody always runs behind the same.
            first = (round_number - 1) % len(contestants)
            for result in (*contestants[first:], *contestants[:first]):
                if result.skipped is None and result.failed is None:
                    compete(result, folder, provider, files, number)
                    say(f"round {round_number} of {repeats}: {result.name}: {outcome(result)}")
        reference = compare(contestants, folder)
    figures = results.as_dict(contestants, BASELINE)
    shown = f"{results.heading(setting, repeats)}\n\n{results.table(figures, BASELINE, reference)}"
    click.echo(shown, err=as_json)
    if as_json:
        values = {
            **setting,
            "repeats": repeats,
            "baseline": BASELINE,
            "reference": reference,
            "contestants": figures,
        }
        click.echo(json.dumps(values))
    if not any(result.done for result in contestants):
        return FAILED
    return PARTLY_FAILED if any(result.failed is not None for result in contestants) else OK


def compete(
    result: Result, folder: Path, provider: str, files: dict[str, Path], count: int
) -> None:
    """One contestant, once: a run, or why there is none, is added to its result."""
    masks = folder / "masks" / result.name
    shutil.rmtree(masks, ignore_errors=True)
    masks.mkdir(parents=True)
    known = CONTESTANTS[result.name]
    script = SCRIPTS / f"{known.script}.py"
    model = files.get(known.precision)
    if model is None:
        named = "--int8-model" if known.precision == "int8" else "--model"
        result.skipped = (
            f"no {known.precision} file: name one with {named} (petseg-export makes them)"
        )
        return
    arguments = (folder / "photos", masks, model)
    options = (
        *("--provider", known.provider or provider, "--precision", known.precision),
        *("--started", time.time()),
    )
    command = [sys.executable, *map(str, (script, *arguments, *options))]
    ended = processes.run(command, os.environ | ENVIRONMENT)
    if ended.code:
        lines = ended.stderr.strip().splitlines()[-SHOWN:] or ["nothing on stderr"]
        say("\n".join(lines))
        result.failed = f"exit code {ended.code}: {lines[-1]}"
        return
    said = json.loads(ended.stdout.splitlines()[-1])
    if "skipped" in said:
        result.skipped = said["skipped"]
        return
    written = len(list(masks.glob("*.png")))
    if written != count:
        result.failed = f"{written} masks of {count} photos"
        return
    rate = count / said["seconds"]
    memory = ended.peak_memory
    result.runs.append({**said, "images_per_second": rate, "peak_memory_bytes": memory})


def compare(contestants: list[Result], folder: Path) -> str | None:
    """Give each result its share of equal pixels; returns whose masks were the reference."""
    done = [result for result in contestants if result.done]
    if not done:
        return None
    reference = next((result for result in done if result.name == REFERENCE), done[0])
    for result in done:
        pair = (folder / "masks" / result.name, folder / "masks" / reference.name)
        result.equal_pixels = results.equal_pixels(*pair)
    return reference.name


def describe(model: Path | None, provider: str, int8_model: Path | None) -> dict[str, Any]:
    """What the figures depend on: machine, versions, models and provider."""
    path, _ = find_model(model)
    if int8_model is None and model is None and packaged("int8").exists():
        int8_model = packaged("int8")
    about = signature.read(path)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cores = machine.usable_cores()
    if load is not None and load > BUSY * cores:
        say(
            f"other programs use this machine (load {load:.1f} on {cores} cores): "
            "the figures will be of little worth"
        )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": machine.device_name("cpu"),
            "cores": cores,
            "gpu": machine.device_name("cuda") if provider == "cuda" else None,
            "system": platform.platform(),
            "load_before": load,
        },
        "versions": {"python": platform.python_version(), **versions()},
        "model": {"path": str(path), "hash": about.graph_hash, "stored": about.precision},
        "int8_model": None if int8_model is None else str(int8_model),
        "provider": provider,
    }


def versions() -> dict[str, str]:
    """The packages that the figures depend on, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def outcome(result: Result) -> str:
    """What became of a contestant just now, in a line."""
    if result.skipped is not None:
        return f"skipped: {result.skipped}"
    if result.failed is not None:
        return f"failed: {result.failed}"
    return f"{result.runs[-1]['images_per_second']:.2f} images/s"


@contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    """A folder for photos and masks: `keep`, or one that is removed at the end."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="petseg-bench-") as folder:
            yield Path(folder)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise PetsegError(f"{keep} is not empty; --keep takes a new or an empty folder")
    yield keep.resolve()


def say(line: str) -> None:
    """Tell people."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
