"""petseg-batch: stream photos into masks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from petseg.cli.common import command, exits, json_option, numbers, paths, quiet_option
from petseg.photos.addresses import is_address
from petseg.photos.shards import Shard

# Known here as text, so that --help need not load numpy, Pillow and onnxruntime; a test compares.
PROVIDERS = ("auto", "cuda", "openvino", "cpu")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16", "int8")
FORMATS = ("index", "color", "binary", "alpha", "overlay", "coco", "parquet")
MAX_PIXELS = 250_000_000
READ_TIMEOUT = 60.0


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> Shard | None:
    try:
        return None if value is None else Shard.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _no_more(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    """Refuse what a pattern became that the shell put file names in the place of."""
    if value:
        raise click.UsageError(
            f"expected IMAGES and MASKS, found {2 + len(value)} arguments: several photos are a "
            "folder, or a pattern in quotes, as in petseg-batch 'photos/*.jpg' masks/",
            ctx,
        )


class Place(click.Path):
    """A path, or an address in a store, which stays as it is."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        if isinstance(value, str) and is_address(value):
            return value
        return super().convert(value, param, ctx)


@command("batch")
@click.argument("images", shell_complete=paths)
@click.argument("masks", type=Place(path_type=Path, file_okay=False))
@click.argument(
    # Looked at before MASKS, which would say that the second photo is no folder.
    "more",
    nargs=-1,
    is_eager=True,
    expose_value=False,
    callback=_no_more,
    metavar="",
)
@click.option(
    "--model",
    type=Place(path_type=Path),
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
@click.option(
    "--devices",
    callback=numbers,
    metavar="N,...",
    help="GPUs by their numbers, 0,1 say, which share the work; one that fails is left out.  "
    "Without a GPU, so many networks run at once and share the processor's cores.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Images at once through the network, on each device.",
)
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
    type=Place(path_type=Path, dir_okay=False),
    help="Only the files named here: paths below IMAGES, or one of Oxford's lists; in a .jsonl or "
    ".parquet under the key path, image or file_name.",
)
@click.option("--list-key", metavar="NAME", help="Another key of the paths in such a list.")
@click.option(
    "--shard",
    callback=_shard,
    metavar="K/N",
    help="Do one of N parts of the work, K from 1 to N; each part can be another machine's, at the "
    "same time, into the same MASKS.  docs/scale.md shows it for Slurm and Kubernetes.",
)
@click.option(
    "--shards",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Pack the masks into tar files of COUNT each, as WebDataset reads them: "
    "MASKS/masks-000000.tar and on, in place of a file a photo.  With --format, tables alone.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many images, of its shard.")
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
    help="Write a page about all masks, MASKS/petseg/report.html, when the run ends well.  With "
    "--shard there is none: petseg report MASKS makes it when all shards have ended.",
)
@click.option(
    "--stats",
    type=Place(path_type=Path, dir_okay=False),
    help="Where the stats go, on this machine; another file for each shard.  [default: "
    "MASKS/petseg/stats.json, or stats-K-of-N.json of a shard]",
)
@click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="This machine, or a Ray cluster, whose nodes see IMAGES and MASKS at the same paths, or "
    "in the same stores.",
)
@click.option(
    "--address",
    help="Of the Ray cluster: auto or HOST:PORT.  [default: one started here]",
)
@click.option(
    "--actors",
    type=click.IntRange(1),
    help="Sessions on the cluster.  [default: as many as it has room for]",
)
@click.option(
    "--actor-cpus",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Cores that each session on the cluster takes.",
)
@click.option(
    "--actor-gpus",
    type=click.FloatRange(0),
    help="GPUs that each takes; 0.5 lets two share one.  [default: 1 where there are any]",
)
@quiet_option
@json_option
@exits
def main(
    quiet: bool,
    as_json: bool,
    address: str | None,
    actors: int | None,
    actor_cpus: float,
    actor_gpus: float | None,
    **options: Any,
) -> int:
    """Turn the photos in IMAGES (a folder, file, glob, .zip or .tar) into masks in MASKS.

    Both may be addresses in a store, s3://bucket/photos say, and so may model and list.

    A mask is an 8-bit greyscale PNG with the values 1 pet, 2 background, 3 border.  Run the same
    command again to go on where it stopped.

    Exit codes: 0 all done; 1 could not run, or stopped early; 2 wrong usage; 3 finished, but some
    images failed (MASKS/petseg/failures.csv); 130 and 143 after Ctrl-C and SIGTERM.
    """
    from petseg.batch.run import run_batch
    from petseg.cli.progress import BatchProgress
    from petseg.engines.engine import Cluster
    from petseg.planning.config import BatchConfig

    cluster = Cluster(address, actors, actor_cpus, actor_gpus)
    try:
        config = BatchConfig(**options, cluster=cluster)
    except ValueError as error:
        # Each option is checked by itself already: these do not go together.
        raise click.UsageError(str(error)) from error
    progress = BatchProgress(quiet)
    try:
        report = run_batch(config, progress.say, progress)
    finally:
        progress.close()
    for line in report.summary().split("\n"):
        progress.say(line)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    return report.exit_code
