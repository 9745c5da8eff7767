"""The README's pictures: `python docs/pictures.py` makes them anew, in docs/pictures/.

`cat.jpg` is the demo's photo, its mask and the mask laid over it, by the model in the package;
the others are the curves of the runs in docs/training-log.md, whose histories are in docs/runs/.
"""

from __future__ import annotations

import csv
from pathlib import Path

import click
import numpy as np
from PIL import Image

import petseg
from demo import cat_photo
from petseg.classes import PET_CLASSES
from petseg.planning.config import packaged
from petseg.training import plots

PICTURES = Path(__file__).with_name("pictures")
RUNS = Path(__file__).with_name("runs")
WIDTH = 360  # pixels, of each of the three
GAP = 6


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=PICTURES)
def main(folder: Path) -> None:
    """Write the pictures into FOLDER, docs/pictures unless told."""
    folder.mkdir(exist_ok=True)
    strip(cat_photo()).save(folder / "cat.jpg", quality=85)
    for history in sorted(RUNS.glob("*.csv")):
        with history.open(encoding="utf-8", newline="") as file:
            plots.curves(list(csv.DictReader(file)), folder / f"{history.stem}.png")


def strip(photo: Image.Image) -> Image.Image:
    """Photo, mask in the classes' colours, and the mask laid over the photo, side by side."""
    # The same pixels on every machine.
    result = petseg.segment(photo, packaged(), "cpu", "float32")
    colors = np.array([item.color for item in PET_CLASSES], np.uint8)
    pictures = (photo, Image.fromarray(colors[result.ids]), result.overlay())
    height = round(WIDTH * photo.height / photo.width)
    sheet = Image.new("RGB", (3 * WIDTH + 2 * GAP, height), "white")
    for place, picture in enumerate(pictures):
        small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
        sheet.paste(small, (place * (WIDTH + GAP), 0))
    return sheet


if __name__ == "__main__":
    main()
