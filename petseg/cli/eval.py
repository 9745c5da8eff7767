"""`petseg-eval masks/ trimaps/`: score masks against ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import click

from petseg.cli.common import OK, exits
from petseg.dataset import read_list
from petseg.scoring import score_folders


@click.command()
@click.argument("masks", type=click.Path(path_type=Path))
@click.argument("trimaps", type=click.Path(path_type=Path))
@click.option(
    "--list",
    "list_file",
    type=click.Path(path_type=Path),
    help="Compare only the names in this file, one a line, or one of Oxford's own lists.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object in place of a table.")
@exits
def main(masks: Path, trimaps: Path, list_file: Path | None, as_json: bool) -> int:
    """Score the masks in MASKS against the ground truth in TRIMAPS.

    Files meet by their path below the two folders, and hold the values 1 pet, 2 background and
    3 border.  All figures come from one confusion matrix over all pixels of all images.
    """
    names = None if list_file is None else read_list(list_file)
    result = score_folders(masks, trimaps, names)
    if as_json:
        values = {
            "images": result.images,
            **result.scores.as_dict(),
            "confusion": result.confusion.tolist(),
        }
        click.echo(json.dumps(values, indent=1))
    else:
        click.echo(f"{'images':<20}{result.images:8}\n{result.scores.table()}")
    return OK
