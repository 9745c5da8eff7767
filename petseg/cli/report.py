"""`petseg report FOLDER`: one page that tells of a folder of masks, or of a training run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petseg.cli.common import OK, Here, command, exits, hushed, json_option, paths, quiet_option
from petseg.errors import PetsegError
from petseg.system.text import printable

if TYPE_CHECKING:
    from petseg.pages.run import Run
    from petseg.training.runs import RunFolder


@command("report")
@click.argument("folder", type=Here(path_type=Path, file_okay=False))
@click.option(
    "--images",
    shell_complete=paths,
    help="Where the photos lie: a folder, a file or a glob, as petseg-batch was given it.  "
    "[default: where the last run found them; where they are not there, masks are shown alone]",
)
@click.option(
    "--out",
    type=Here(path_type=Path, dir_okay=False),
    help="Where the page goes.  [default: MASKS/petseg/report.html, RUN/report.html]",
)
@click.option(
    "--stats",
    type=Here(path_type=Path, dir_okay=False),
    help="The stats of the last run.  [default: MASKS/petseg/stats.json, or stats-K-of-N.json of "
    "all shards, where they are there]",
)
@click.option(
    "--classes",
    "classes_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the masks' values mean: FILE.csv with name,value,color,foreground of each class, or "
    "the FILE.onnx that made the masks.  [default: what the last run says, else pet 1, background "
    "2, border 3]",
)
@quiet_option
@json_option
@exits
def main(
    folder: Path,
    images: str | None,
    out: Path | None,
    stats: Path | None,
    classes_file: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Write a page about the masks in FOLDER: one HTML file that needs nothing beside it.

    It is made from the masks alone, in however many runs and on however many machines they were
    made; speed and times are the last run's.  Where that was made in shards, their stats are added
    up, and those that are missing are named.

    Where FOLDER is a training run's, the page is about that, as far as the run has come.

    The page's path is printed to stdout, or an object that holds it (--json).
    """
    from petseg.training.runs import RunFolder

    if not folder.is_dir():
        raise PetsegError(
            f"expected a folder of masks, or one of a training run, and there is none at {folder}"
        )
    run = RunFolder(folder)
    if run.begun and (images, stats, classes_file) != (None, None, None):
        raise click.UsageError(
            f"{folder} is a training run; leave out --images, --stats and --classes, which are for "
            "masks"
        )
    try:
        with hushed(quiet):
            if run.begun:
                told = _of_training(run, out)
            else:
                told = _of_masks(folder, images, out, stats, classes_file)
    except OSError as error:
        raise PetsegError(f"cannot write {error.filename or out}: {error.strerror}") from error
    click.echo(json.dumps(told) if as_json else told["page"])
    return OK


def _of_training(run: RunFolder, out: Path | None) -> dict[str, Any]:
    from petseg.training import page as page

    return {"page": str(page.write(run, out))}


def _of_masks(
    masks: Path,
    images: str | None,
    out: Path | None,
    stats: Path | None,
    classes_file: Path | None,
) -> dict[str, Any]:
    from tqdm import tqdm

    from petseg.classes import PET_CLASSES
    from petseg.data import class_file
    from petseg.masks.reading import RESERVED, Others, read_all
    from petseg.pages import masks as page
    from petseg.pages.run import Failures, read_stats, understand
    from petseg.pages.shards import read_last
    from petseg.pages.survey import Survey
    from petseg.photos.imageio import DEFAULT_MAX_PIXELS
    from petseg.remote.archives import photos_here

    photos = None if images is None else photos_here(images)
    if images is not None and photos is None:
        raise PetsegError(
            f"expected photos in {images}, and there is no such folder on this machine; unpack or "
            "copy photos that lie in an archive or a store, or leave out --images"
        )
    if stats is not None and not stats.exists():
        raise PetsegError(f"there is no {stats}; leave out --stats, or name the file of the run")
    try:
        if stats is None:
            run = read_last(masks / RESERVED)
        else:
            found = read_stats(stats)
            run = None if found is None else understand(found)
    except PetsegError as error:
        if stats is not None:
            raise
        # The masks tell the rest.
        click.echo(f"without the last run: {printable(str(error))}", err=True)
        run = None
    shards = {} if run is None or not run.shards else _tell_of_shards(run)
    if run is not None and images is None:
        last = dict(run.options).get("images")
        photos = None if last is None else photos_here(last)
        if photos is not None:
            click.echo(f"photos: {printable(str(photos))}, where the last run found them", err=True)
    try:
        failures = page.failures_of(masks, run)
    except PetsegError as error:
        click.echo(f"without the list of failures: {printable(str(error))}", err=True)
        failures = Failures([])
    classes = PET_CLASSES if run is None else run.classes
    if classes_file is not None:
        classes = class_file.read(classes_file)
    survey = Survey(classes)
    out = out or masks / RESERVED / page.NAME
    others = Others(classes)
    # As large as that run's may be.
    limit = None if run is None else dict(run.options).get("max_pixels")
    most = int(limit) if limit and limit.isdecimal() else DEFAULT_MAX_PIXELS
    there = read_all(masks, classes, {}, with_ids=False, max_pixels=most, on_other=others.add)
    for mask in tqdm(there, unit=" masks", disable=None):
        survey.add(mask)
    if others.count:
        click.echo(str(others), err=True)
    if not survey.masks and run is None:
        raise PetsegError(f"there are no masks in {masks}, and no run has left its stats there")
    page.write(out, survey, masks, photos, run, failures)
    return {"page": str(out), "masks": survey.masks, **shards}


def _tell_of_shards(run: Run) -> dict[str, Any]:
    """Say how far the shards are, and return it."""
    facts, counts = dict(run.facts), (f"{count} {name}" for name, count in run.counts)
    stopped = {shard.name: shard.stopped for shard in run.shards if shard.stopped}
    click.echo(f"shards: {facts['shards']}", err=True)
    click.echo(f"together: {', '.join(counts)}; {facts['speed']}", err=True)
    for name, signal in stopped.items():
        click.echo(f"shard {name}: stopped by {signal}", err=True)
    found = {"shards": facts["shards"], "counts": dict(run.counts), "speed": facts["speed"]}
    return {**found, "stopped": stopped}
