"""The same few photos after each epoch: rows of small pictures, in a folder of the run's own.

`photos.jpg`, `truth.png`, and for each epoch's masks `epoch-NNNN.png`; each of them one picture of
all photos side by side.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petseg.classes import SegmentClass
from petseg.system.temporary import replacing

# The side of one small picture, pixels.
SIDE = 160
PHOTOS, TRUTH = "photos.jpg", "truth.png"


def write_samples(
    folder: Path,
    images: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    classes: tuple[SegmentClass, ...],
) -> None:
    """Write the rows that no epoch changes.

    Args:
        folder: of the rows; made if it is not there.
        images: RGB uint8 (N, SIDE, SIDE, 3).
        truth: class ids uint8 (N, SIDE, SIDE).
        classes: for the colours.
    """
    folder.mkdir(exist_ok=True)
    _write(folder / PHOTOS, images)
    _write(folder / TRUTH, _colors(truth, classes))


def write_epoch(
    folder: Path, epoch: int, predicted: NDArray[np.uint8], classes: tuple[SegmentClass, ...]
) -> None:
    """Write the row of an epoch.

    Args:
        folder: that of `write_samples`.
        epoch: counted from 1.
        predicted: class ids uint8 (N, S, S).
        classes: for the colours.
    """
    small = [cv2.resize(ids, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for ids in predicted]
    _write(folder / f"epoch-{epoch:04d}.png", _colors(np.stack(small), classes))


def epochs(folder: Path, most: int, done: int) -> dict[int, Path]:
    """Up to `most` rows of the first `done` epochs by epoch, the first and the last among them."""
    found = {}
    for path in folder.glob("epoch-*.png"):
        number = path.stem.removeprefix("epoch-")
        if number.isdecimal() and int(number) <= done:
            found[int(number)] = path
    numbers = sorted(found)
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return {numbers[place]: found[numbers[place]] for place in places}


def _colors(ids: NDArray[np.uint8], classes: tuple[SegmentClass, ...]) -> NDArray[np.uint8]:
    return np.array([item.color for item in classes], np.uint8)[ids]


def _write(path: Path, pictures: NDArray[np.uint8]) -> None:
    with replacing(path) as temporary:
        Image.fromarray(np.concatenate(list(pictures), axis=1)).save(temporary, quality=85)
