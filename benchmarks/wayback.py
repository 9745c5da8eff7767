"""What the way back to a photo's size is worth, and costs: python benchmarks/wayback.py.

From the same probabilities: each class's enlarged and the largest taken, as petseg does, against
the largest taken at the network's size and its class ids enlarged to the nearest.  Scored at the
photos' own size against trimaps of that size: wayback.py PHOTOS TRIMAPS.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from petseg import runtime
from petseg.classes import SegmentClass, values_to_ids
from petseg.cli.common import OK, exits
from petseg.data.dataset import read_trimap
from petseg.errors import PetsegError
from petseg.photos import imageio, transforms
from petseg.planning.config import find_model, read_signature
from petseg.scoring import evaluation
from petseg.system import machine

# Of the photo's diagonal: how far a boundary may be off (Csurka et al. 2013 take 0.75 %).
TOLERANCE = 0.0075
# The quickest counts.
REPEATS = 5

Ids = NDArray[np.uint8]


def nearest(probabilities: NDArray[np.uint8], height: int, width: int) -> Ids:
    """The class ids of the network's size, each pixel of the photo given the nearest one's."""
    ids = transforms.to_source(probabilities, *probabilities.shape[1:])
    return np.asarray(
        cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
    )


WAYS: dict[str, Callable[[NDArray[np.uint8], int, int], Ids]] = {
    "scores enlarged": transforms.to_source,
    "nearest ids": nearest,
}


@dataclass
class Sums:
    """What one way came to: all photos' pixels, and a list of what each photo gave."""

    confusion: evaluation.Confusion
    boundary: list[NDArray[np.float64]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@click.command(context_settings={"show_default": True})
@click.argument("photos", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("trimaps", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", type=click.Path(path_type=Path), help="[default: as petseg-batch]")
@click.option("--provider", default="auto", help="As petseg-batch's.")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many, by name.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=TOLERANCE,
    help="How far a boundary may be off, as a share of the photo's diagonal.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(
    photos: Path,
    trimaps: Path,
    model: Path | None,
    provider: str,
    limit: int | None,
    tolerance: float,
    as_json: bool,
) -> int:
    """Compare the two ways on the photos of PHOTOS that have a trimap in TRIMAPS."""
    cv2.setNumThreads(1)
    path, _ = find_model(model)
    about = read_signature(path)
    classes = about.classes
    stream = runtime.open_session(path, about, runtime.choose(provider).provider).open_stream()
    table = values_to_ids(classes)
    named = {file.stem: file for file in sorted(photos.iterdir())}
    drawn = sorted(trimaps.glob("*.png"))
    pairs = [(named[file.stem], file) for file in drawn if file.stem in named]
    if not pairs:
        raise PetsegError(f"no photo in {photos} has a trimap of its name in {trimaps}")
    sums = {name: Sums(np.zeros((len(classes), len(classes)), np.int64)) for name in WAYS}
    for photo, trimap in pairs[:limit]:
        pixels, (height, width) = imageio.decode_reduced(photo.read_bytes(), about.size)
        (probabilities,) = stream.run(transforms.to_model(pixels, about.size)[None])
        truth = read_trimap(trimap, table)
        if truth.shape != (height, width):
            raise PetsegError(
                f"{trimap} is {truth.shape[1]}x{truth.shape[0]} and its photo {width}x{height}: "
                "trimaps of the photos' own size are wanted"
            )
        for name, way in WAYS.items():
            ids = way(probabilities, height, width)
            one = sums[name]
            one.confusion += evaluation.confusion_matrix(truth, ids, len(classes))
            pixels_off = tolerance * float(np.hypot(height, width))
            one.boundary.append(evaluation.boundary_f_score(truth, ids, len(classes), pixels_off))
            one.seconds.append(least_seconds(way, probabilities, height, width))
    found = {name: figures(one, classes) for name, one in sums.items()}
    names = [item.name for item in classes]
    lines = [
        f"{machine.device_name('cpu')}; {len(pairs[:limit])} photos; "
        f"a boundary may be off by {tolerance:.2%} of the diagonal",
        "",
        f"| way back | mean IoU | boundary F | {' | '.join(names)} | core-ms a photo |",
        "|---|---|---|" + "---|" * len(names) + "---|",
    ]
    for name, row in found.items():
        each = " | ".join(f"{row[f'boundary_f_{item}']:.4f}" for item in names)
        lines.append(
            f"| {name} | {row['mean_iou']:.4f} | {row['boundary_f']:.4f} | {each} "
            f"| {1e3 * row['core_seconds']:.2f} |"
        )
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def figures(sums: Sums, classes: tuple[SegmentClass, ...]) -> dict[str, float]:
    """Mean IoU over all pixels; boundary F of each class and of all, means over photos; seconds."""
    boundary = np.array(sums.boundary)
    each = {
        f"boundary_f_{item.name}": float(np.nanmean(boundary[:, number]))
        for number, item in enumerate(classes)
    }
    return {
        "mean_iou": evaluation.scores(sums.confusion, classes).mean_iou,
        "boundary_f": float(np.mean([np.nanmean(photo) for photo in boundary])),
        **each,
        "core_seconds": float(np.mean(sums.seconds)),
    }


def least_seconds(
    way: Callable[[NDArray[np.uint8], int, int], Ids],
    probabilities: NDArray[np.uint8],
    height: int,
    width: int,
) -> float:
    """Processor time of the quickest of several rounds."""
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        way(probabilities, height, width)
        seconds.append(time.process_time() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
