"""`petseg-export model.onnx`: the newest finished run as one ONNX file."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from petseg.cli.common import OK, command, exits, hushed, json_option, quiet_option
from petseg.cli.quiet import quiet_import
from petseg.errors import MissingPackageError

if TYPE_CHECKING:
    from petseg_export.convert import Precision

_PACKAGES = {"keras", "onnx", "tensorflow", "tf2onnx"}


@command("export")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path), metavar="MODEL.onnx")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="RUN|FILE",
    help="A run folder, a .keras file, or an .onnx file of petseg's. "
    "Default: the newest finished run.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Where the newest finished run is looked for.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="How weights are stored and what the network computes in.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="For int8: photos like those the network will see; a folder of them, or Oxford-IIIT "
    "Pet's, of which trainval.txt is used. 100 are enough.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Compare on photos of this folder in Oxford-IIIT Pet's layout: first those a run was "
    "validated on, then trainval.txt's. Default: for int8 photos of --calibration, else drawn "
    "pictures.",
)
@click.option(
    "--compared",
    # The least is parity's, which is imported late.
    type=click.IntRange(32),
    default=32,
    show_default=True,
    help="So many photos of --data are compared.",
)
@quiet_option
@json_option
@exits
def main(
    target: Path,
    source: Path | None,
    runs: Path,
    precision: Precision,
    calibration: Path | None,
    data: Path | None,
    compared: int,
    quiet: bool,
    as_json: bool,
) -> int:
    """Write a trained network to MODEL.onnx, if it computes there what it computes in Keras."""
    if target.suffix != ".onnx":
        raise click.BadParameter(f"{target} does not end in .onnx", param_hint="MODEL.onnx")
    if precision == "int8" and calibration is None:
        raise click.UsageError(
            "--precision int8 needs --calibration DIR, a folder of photos like those the network "
            "will see"
        )
    if precision != "int8" and calibration is not None:
        raise click.UsageError(f"--calibration is for --precision int8, not {precision}")
    # The conversion is TensorFlow's, whatever the network was trained on.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with quiet_import():
            from petseg_export import convert, trained
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise MissingPackageError(package, "export", "petseg-export") from error

    if source is None:
        source = trained.newest_run(runs)
    with hushed(quiet):
        click.echo(f"exporting {source}", err=True)
        result = convert.export(source, target, precision, data, calibration, compared)
        click.echo(
            f"wrote {result.path}: {result.size / 1e6:.1f} MB, {precision}\n"
            f"compared with Keras in float32: {result.parity}\n"
            f"graph and weights: {result.signature.graph_hash}\n"
            f"next: petseg-batch images/ masks/ --model {result.path}",
            err=True,
        )
    if as_json:
        told = {
            "model": str(result.path),
            "from": str(source),
            "bytes": result.size,
            "precision": precision,
            "parity": dataclasses.asdict(result.parity),
            "graph_hash": result.signature.graph_hash,
        }
        click.echo(json.dumps(told))
    return OK
