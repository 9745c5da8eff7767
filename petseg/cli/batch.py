"""petseg-batch: stream photos into masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from petseg.cli.common import FAILED, exits
from petseg.errors import PetsegError

# Known here as text, so that --help need not load numpy, Pillow and onnxruntime; a test compares.
PROVIDERS = ("auto", "cuda", "openvino", "cpu")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16", "int8")
FORMATS = ("index", "color", "binary", "alpha", "overlay", "coco", "parquet")
MAX_PIXELS = 250_000_000
READ_TIMEOUT = 60.0


@click.command()
@click.argument("images")
@click.argument("masks", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="ONNX file made by petseg-export.  [default: ./model.onnx, else the one in the package]",
)
@click.option("--provider", type=click.Choice(PROVIDERS), default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="What the network is computed in.  auto: the provider's fastest for this model file.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Images at once through the network.")
@click.option("--workers", type=click.IntRange(1), help="Processes that decode and encode.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=("index",),
    show_default=True,
    help="Repeatable.  index is always written; others go to MASKS/petseg/FORMAT/, for masks "
    "that are there already, too.",
)
@click.option(
    "--size",
    type=click.Choice(("source", "model")),
    default="source",
    show_default=True,
    help="Masks of the photo's size, or of the network's.",
)
@click.option(
    "--names",
    type=click.Choice(("stem", "full")),
    default="stem",
    show_default=True,
    help="x.jpg gives x.png, or x.jpg.png.",
)
@click.option(
    "--list",
    "list_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Only the files named here: paths below IMAGES, or one of Oxford's lists.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many images.")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Larger images fail.",
)
@click.option(
    "--read-timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    default=READ_TIMEOUT,
    show_default=True,
    help="Images that take longer to read fail, on a network share that does not answer, say.",
)
@click.option("--redo", is_flag=True, help="Make petseg's own masks again.")
@click.option("--overwrite", is_flag=True, help="Make all masks again, a person's too.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first image that fails.")
@click.option("--verify", is_flag=True, help="Compare photos by content, not by size and time.")
@click.option("--check", is_flag=True, help="First compare some photos' masks with float32's.")
@click.option("--dry-run", is_flag=True, help="Look, count, and do nothing.")
@click.option(
    "--review-below",
    type=click.FloatRange(0, 1),
    metavar="CONFIDENCE",
    help="List the masks whose mean probability is lower, least first, in "
    "MASKS/petseg/review.txt; 0.8, say.",
)
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="Write a page about all masks, MASKS/petseg/report.html, when the run ends well.",
)
@click.option(
    "--stats",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the stats go.  [default: MASKS/petseg/stats.json]",
)
@click.option("--quiet", is_flag=True, help="Errors only.")
@click.option(
    "--json", "as_json", is_flag=True, help="End with one JSON object on stdout: the stats."
)
@exits
def main(quiet: bool, as_json: bool, **options: Any) -> int:
    """Turn the photos in IMAGES (a folder, a file or a glob) into masks in MASKS.

    A mask is an 8-bit greyscale PNG with the values 1 pet, 2 background, 3 border.  Run the same
    command again to go on where it stopped.

    Exit codes: 0 all done; 1 could not run, or stopped early; 2 wrong usage; 3 finished, but some
    images failed (MASKS/petseg/failures.csv); 130 and 143 after Ctrl-C and SIGTERM.
    """
    from petseg.batch import run_batch
    from petseg.batch_config import BatchConfig
    from petseg.cli.progress import BatchProgress

    progress = BatchProgress(quiet)
    try:
        report = run_batch(BatchConfig(**options), progress.say, progress)
    except PetsegError as error:
        if as_json:
            click.echo(json.dumps({"exit_code": FAILED, "error": str(error)}))
        raise
    finally:
        progress.close()
    for line in report.summary().split("\n"):
        progress.say(line)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    return report.exit_code
