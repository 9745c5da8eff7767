"""`petseg-eval masks/ trimaps/`: score masks against ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import click

from petseg.classes import PET_CLASSES
from petseg.cli.common import OK, Here, command, exits, hushed, json_option, quiet_option
from petseg.data import class_file
from petseg.data.dataset import read_list
from petseg.scoring.folders import score_folders


@command("eval")
@click.argument("masks", type=Here(path_type=Path))
@click.argument("trimaps", type=Here(path_type=Path))
@click.option(
    "--list",
    "list_file",
    type=Here(path_type=Path),
    help="Compare only the names in this file, one a line, or one of Oxford's own lists.",
)
@click.option(
    "--classes",
    "classes_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the values mean: FILE.csv with name,value,color,foreground of each class, or the "
    "FILE.onnx that made the masks.  [default: pet 1, background 2, border 3]",
)
@quiet_option
@json_option
@exits
def main(
    masks: Path,
    trimaps: Path,
    list_file: Path | None,
    classes_file: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Score the masks in MASKS against the ground truth in TRIMAPS.

    Files meet by their path below the two folders, and hold the classes' values.  All figures
    come from one confusion matrix over all pixels of all images.  They are a table on stdout, or an
    object (--json).
    """
    names = None if list_file is None else read_list(list_file)
    classes = PET_CLASSES if classes_file is None else class_file.read(classes_file)
    with hushed(quiet):
        result = score_folders(masks, trimaps, names, classes)
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
