"""A section of a model's card: `python docs/card.py DATA MASKS --list DATA/annotations/test.txt`.

What petseg-eval does not print: breeds, confusion, calibration, the worst images, and what is found
where there is no pet.  MASKS are those that petseg-batch made of DATA/images with the model.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

import petseg
from demo import drawn_house, wheel_photo
from petseg import runtime
from petseg.classes import SegmentClass, values_to_ids
from petseg.cli.common import OK, exits
from petseg.data import dataset
from petseg.errors import DatasetError, ImageError
from petseg.masks import records
from petseg.modelfile import signature
from petseg.photos import transforms
from petseg.planning.config import find_model
from petseg.scoring import breeds, evaluation, reliability, worst
from petseg.scoring.folders import Pairs
from petseg.training import plots

FIGURES = ("pixel_accuracy", "mean_iou", "foreground_iou")
# Photographs without a cat or dog in scikit-image's wheel, beside the cat.
WITHOUT_PETS = ("astronaut.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "grass.png")


@click.command(context_settings={"show_default": True})
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("masks", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--list", "list_file", type=click.Path(path_type=Path), required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Draw the worst images in this folder."
)
@click.option("--worst", "number", type=click.IntRange(1), default=20, help="How many these are.")
@click.option("--limit", type=click.IntRange(1), help="Calibrate on so many, drawn by seed 0.")
@click.option("--model", type=click.Path(path_type=Path), help="[default: as petseg-batch]")
@click.option("--provider", type=click.Choice(runtime.PROVIDERS), default="auto")
@click.option("--precision", type=click.Choice(runtime.PRECISIONS), default="auto")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the section on stderr.")
@exits
def main(
    data: Path,
    masks: Path,
    list_file: Path,
    out: Path | None,
    number: int,
    limit: int | None,
    model: Path | None,
    provider: str,
    precision: str,
    as_json: bool,
) -> int:
    """Print a section of Markdown on the MASKS of the photos in --list, of DATA.

    DATA is in Oxford-IIIT Pet's layout; masks and trimaps meet as in petseg-eval.
    """
    path = find_model(model, precision)[0]
    classes = signature.read(path).classes
    listed = dataset.read_list(list_file)
    pairs = Pairs.find(masks, data / dataset.TRIMAPS, listed, classes)
    # Of a mask, what the list calls its sample.
    samples = {dataset.stem(name): name for name in listed} | {name: name for name in listed}
    names = [samples[name] for name in pairs.names]
    confusions = np.stack([confusion for _, confusion in pairs.confusions()])
    poorest = worst.worst(pairs.names, confusions, classes, number)

    chosen = list(pairs.names)
    random.Random(0).shuffle(chosen)
    photos = {name: dataset.image_path(data, samples[name]) for name in chosen[:limit]}
    found = {
        "model": str(path),
        "images": len(names),
        "breeds": [
            dataclasses.asdict(item)
            for item in breeds.score(confusions, dataset.name_breeds(data, names), classes)
        ],
        "confusion_percent": (100 * evaluation.row_shares(confusions.sum(axis=0))).tolist(),
        "calibration": calibrate(pairs, photos, path, provider, precision),
        "worst": [dataclasses.asdict(item) for item in poorest],
        "without_pets": without_pets(path, provider, precision),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for place, item in enumerate(poorest, start=1):
            file = out / f"{place:02}-{Path(item.name).name}.png"
            draw(data, samples[item.name], pairs.read(item.name)[1], classes, file)
    click.echo("\n".join(section(found, classes, list_file, limit)), err=as_json)
    if as_json:
        click.echo(json.dumps(evaluation.nan_to_none(found)))
    return OK


def calibrate(
    pairs: Pairs, photos: dict[str, Path], model: Path, provider: str, precision: str
) -> dict[str, Any]:
    """Compare the model's probabilities with the truth, on its own pixels.

    Raises:
        DatasetError: a mask is another model's; ImageError: a photo or trimap cannot be read.
    """
    counts = np.zeros((256, 2), np.int64)
    results = petseg.stream(photos.values(), model, provider, precision, on_error=refuse)
    for name, result in zip(photos, results, strict=True):
        _, record = records.judge(pairs.mask_bytes(name))
        if record is not None and record.maker.model != result.maker.model:
            raise DatasetError(
                f"the mask of {name} was made by another model than {model}: name it by --model, "
                "or by the --precision that the masks were made in"
            )
        truth, _ = pairs.read(name)
        size = result.probabilities.shape[1]
        counts += reliability.count(result.probabilities, transforms.trimap_to_model(truth, size))
    table = reliability.bins(counts)
    return {
        "images": len(photos),
        "size": size,
        "provider": result.provider,
        "precision": result.precision,
        "pixels": int(counts[:, 0].sum()),
        "expected_error": reliability.expected_error(table),
        "bins": [dataclasses.asdict(item) for item in table],
    }


def refuse(photo: petseg.PhotoLike, error: ImageError) -> None:
    """A photo that cannot be read would be missing from the figures."""
    del photo
    raise error


def without_pets(model: Path, provider: str, precision: str) -> dict[str, float]:
    """By each picture without a pet, the share of its pixels that is taken for foreground."""
    pictures = {
        "a drawn house on a lawn": drawn_house(),
        "plain grey": Image.new("RGB", (480, 360), (128, 128, 128)),
    } | {f"scikit-image's `{name}`": wheel_photo(name) for name in WITHOUT_PETS}
    results = petseg.stream(pictures.values(), model, provider, precision)
    pairs = zip(pictures, results, strict=True)
    return {name: float(result.foreground.mean()) for name, result in pairs}


def draw(
    data: Path, name: str, mask: np.ndarray, classes: tuple[SegmentClass, ...], path: Path
) -> None:
    """A sample of DATA as photo | true mask | mask, class ids uint8 (H, W), into a PNG."""
    photo, truth = dataset.read_sample(data, name, values_to_ids(classes))
    plots.predictions(photo[None], truth[None], mask[None], classes, path)


def section(
    found: dict[str, Any], classes: tuple[SegmentClass, ...], list_file: Path, limit: int | None
) -> Iterator[str]:
    """Lines of Markdown."""
    names = [item.name for item in classes]
    foreground = " + ".join(item.name for item in classes if item.foreground)
    command = f"python docs/card.py DATA masks --list DATA/annotations/{list_file.name}"
    command += "" if limit is None else f" --limit {limit}"
    yield f"## In detail\nOf {found['images']:,} images ({list_file.name}), by\n\n    {command}"

    yield "\n### Confusion\nIn percent of the true class' pixels, a column a predicted class:\n"
    yield f"| true | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for name, row in zip(names, found["confusion_percent"], strict=True):
        yield f"| {name} | {' | '.join(f'{share:.1f}' for share in row)} |"

    if found["breeds"]:
        yield "\n### Breeds\nThe lowest mean IoU first:\n"
        yield f"| breed | images | pixel accuracy | mIoU | {foreground} |\n|---|---|---|---|---|"
    for item in found["breeds"]:
        yield f"| {item['breed']} | {item['images']} | {figures(item)} |"

    own = found["calibration"]
    yield (
        f"\n### Calibration\nOf {own['pixels']:,} pixels of {own['images']:,} of these images, at "
        f"the network's own {own['size']}x{own['size']} ({own['provider']}, {own['precision']}), "
        f"expected calibration error {own['expected_error']:.4f}:\n"
    )
    yield "| probability of the chosen class | % of pixels | mean | right |\n|---|---|---|---|"
    for item in own["bins"]:
        share = 100 * item["pixels"] / own["pixels"]
        yield (
            f"| {item['low']:.1f} to {item['high']:.1f} | {share:.2f} | {item['predicted']:.4f} | "
            f"{item['right']:.4f} |"
        )

    yield f"\n### The worst {len(found['worst'])}\nWith `--out FOLDER` the command draws them:\n"
    yield f"| image | pixel accuracy | mIoU | {foreground} | mostly |\n|---|---|---|---|---|"
    for item in found["worst"]:
        mistake = f"{item['true']} taken for {item['taken_for']}, {item['share']:.1%} of all pixels"
        yield f"| `{item['name']}` | {figures(item)} | {mistake} |"

    yield f"\n### Without a pet\n| picture | % taken for {foreground} |\n|---|---|"
    for name, share in found["without_pets"].items():
        yield f"| {name} | {100 * share:.1f} |"


def figures(item: dict[str, Any]) -> str:
    """The figures that breeds and images have in common, as cells."""
    return " | ".join(f"{item[name]:.4f}" for name in FIGURES)


if __name__ == "__main__":
    main()
