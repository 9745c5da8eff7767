"""`petseg report masks/`: one page that tells of a folder of masks."""

from __future__ import annotations

from pathlib import Path

import click

from petseg.cli.common import OK, exits
from petseg.errors import PetsegError
from petseg.text import printable


@click.command()
@click.argument("masks", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--images",
    help="Where the photos lie: a folder, a file or a glob, as petseg-batch was given it.  "
    "Without it, masks are shown alone.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes.  [default: MASKS/petseg/report.html]",
)
@click.option(
    "--stats",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The stats of the last run.  [default: MASKS/petseg/stats.json, where it is there]",
)
@exits
def main(masks: Path, images: str | None, out: Path | None, stats: Path | None) -> int:
    """Write a page about the masks in MASKS: one HTML file that needs nothing beside it.

    It is made from the masks alone, in however many runs and on however many machines they were
    made; speed and times are the last run's.
    """
    from tqdm import tqdm

    from petseg import sources
    from petseg.classes import PET_CLASSES
    from petseg.masks import RESERVED, read_all
    from petseg.pages import masks as page
    from petseg.pages.run import read_stats, understand
    from petseg.pages.survey import Survey

    if not masks.is_dir():
        raise PetsegError(f"expected a folder of masks, and there is none at {masks}")
    if images is not None and not sources.root(images).is_dir():
        raise PetsegError(f"expected photos in {images}, and there is no such folder")
    if stats is not None and not stats.exists():
        raise PetsegError(f"there is no {stats}; leave out --stats, or name the file of the run")
    try:
        found = read_stats(stats or masks / RESERVED / "stats.json")
        run = None if found is None else understand(found)
    except PetsegError as error:
        if stats is not None:
            raise
        # The masks tell the rest.
        click.echo(f"without the last run: {printable(str(error))}", err=True)
        run = None
    survey = Survey(PET_CLASSES)
    out = out or masks / RESERVED / page.NAME
    try:
        for mask in tqdm(
            read_all(masks, PET_CLASSES, {}, with_ids=False), unit=" masks", disable=None
        ):
            survey.add(mask)
        if not survey.masks and run is None:
            raise PetsegError(f"there are no masks in {masks}, and no run has left its stats there")
        folder = None if images is None else sources.root(images)
        page.write(out, survey, masks, folder, run)
    except OSError as error:
        raise PetsegError(f"cannot write {error.filename or out}: {error.strerror}") from error
    click.echo(out)
    return OK
