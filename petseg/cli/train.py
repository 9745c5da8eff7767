"""`petseg-train`: fit the segmenter, and write a run folder."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from click.core import ParameterSource

from petseg.cli.common import (
    OK,
    Terminated,
    command,
    exits,
    hushed,
    json_option,
    numbers,
    quiet_option,
    variable,
)
from petseg.cli.quiet import quiet_import
from petseg.cli.train_options import configure, hyperparameters
from petseg.data import download
from petseg.errors import DatasetError, MissingPackageError, PetsegError
from petseg.training.reached import told
from petseg.training.recipes import RECIPES
from petseg.training.runs import RunFolder, fresh_folder, newest_unfinished

RUNS = Path("runs")

# What --resume may be given with: where things are and run, and what is shown.
_PLACES = {"resume", "out", "data", "tensorboard", "devices", "quiet", "as_json"}


@command("train")
@click.option(
    "--recipe",
    type=click.Choice(sorted(RECIPES)),
    default="article",
    show_default=True,
    help="Where the options below take their values from when they are not given.  What each "
    "reaches: " + ".  ".join(f"{name}: {told(name)}" for name in RECIPES) + ".",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    envvar="PETSEG_DATA",
    show_envvar=True,
    help="Folder in Oxford-IIIT Pet's layout; without it the data set is downloaded.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run folder.  [default: runs/<time>-<recipe>]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the newest unfinished run in runs/, or with the one in --out.",
)
@click.option(
    "--tensorboard", is_flag=True, help="Write what TensorBoard reads, too, in RUN/tensorboard."
)
@click.option(
    "--devices",
    callback=numbers,
    metavar="N,...",
    help="GPUs by their numbers, 0,1 say, which share each batch.  [default: the backend's choice]",
)
@click.option("--summary", is_flag=True, help="Print the network's layers and leave.")
@quiet_option
@json_option
@hyperparameters
@click.pass_context
@exits
def main(
    ctx: click.Context,
    /,
    recipe: str,
    data: Path | None,
    out: Path | None,
    resume: bool,
    tensorboard: bool,
    devices: tuple[int, ...] | None,
    summary: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train the VGG16 skip segmenter on Oxford-IIIT Pet or a folder in its layout.

    Writes a run folder: model.keras, metrics.json, history.csv, pictures, and report.html, which
    shows all of it and can be looked at after each epoch.  Its path is printed to stdout, or an
    object with the run's figures (--json), everything else to stderr.
    """
    if summary and as_json:
        raise click.UsageError("--summary prints a table and trains nothing; leave out --json")
    if resume:
        _refuse_options(ctx)
        folder = _unfinished(out)
        out, config = folder.path, folder.config()
        data = _data_of_resumed(ctx, folder, data)
    else:
        config = configure(RECIPES[recipe], options)
        if out is not None and RunFolder(out).begun and not summary:
            raise DatasetError(
                f"{out} holds a run already; go on with it by "
                f"petseg-train --resume --out {out}, or choose another folder"
            )
    trainer = _import_trainer()
    if summary:
        click.echo(trainer.summary(config))
        return OK
    with hushed(quiet):
        data = data or download.oxford_iiit_pet()
        folder = RunFolder(out or fresh_folder(RUNS, f"{time.strftime('%Y%m%d-%H%M%S')}-{recipe}"))
        click.echo(f"run: {folder.path}\ndata: {data}", err=True)
        try:
            result = trainer.fit(config, data, folder.path, tensorboard, devices or ())
        except (KeyboardInterrupt, Terminated):
            if folder.begun:
                again = f"petseg-train --resume --out {folder.path}"
                click.echo(f"\ngo on from the last whole epoch: {again}", err=True)
            raise
        finally:
            if out is None:
                with contextlib.suppress(OSError):
                    folder.path.rmdir()  # where nothing was begun in it
        report = folder.path / "report.html"
        click.echo(
            f"\non {result.images} images of the validation part:\n{result.scores.table()}\n\n"
            f"report: {report}\nnext: petseg-export model.onnx --from {folder.path}",
            err=True,
        )
    if as_json:
        figures = {"images": result.images, **result.scores.as_dict()}
        click.echo(json.dumps({"run": str(folder.path), "report": str(report), **figures}))
    else:
        click.echo(folder.path)
    return OK


def _refuse_options(ctx: click.Context) -> None:
    """Refuse what would have no effect, whether it is given here or by the environment."""
    given = [
        variable(ctx, parameter) or parameter.opts[0]
        for parameter in ctx.command.params
        if parameter.name not in _PLACES
        and parameter.name is not None
        and ctx.get_parameter_source(parameter.name)
        in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    ]
    if given:
        raise click.UsageError(
            f"--resume takes everything from the run's config.json; leave out {', '.join(given)}"
        )


def _unfinished(out: Path | None) -> RunFolder:
    if out is None:
        return newest_unfinished(RUNS)
    folder = RunFolder(out)
    if not folder.begun:
        raise DatasetError(f"{out} holds no run to go on with: it has no config.json")
    return folder


def _data_of_resumed(ctx: click.Context, folder: RunFolder, data: Path | None) -> Path | None:
    """What the command line says, else where the run found its data, else PETSEG_DATA."""
    if ctx.get_parameter_source("data") is not ParameterSource.COMMANDLINE:
        begun_with = folder.data()
        if begun_with is not None and begun_with.is_dir():
            return begun_with
    return data


def _import_trainer() -> ModuleType:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    try:
        with quiet_import():
            from petseg.training import trainer
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"keras", "tensorflow"}:
            raise MissingPackageError(missing, "train", "petseg-train") from error
        if missing == backend:
            raise PetsegError(
                f"KERAS_BACKEND is {backend}, a package that is not installed: "
                f"pip install {backend}"
            ) from error
        raise
    return trainer
