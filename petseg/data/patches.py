"""Rectangles cut out of training samples, or filled from other samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petseg.classes import IGNORED

# Sides of a cut-out, and of a patch from another sample, as shares of the sample's.
_CUTOUT_SIDES = (0.1, 0.4)
_PATCH_SIDES = (0.3, 0.7)

Rectangle = tuple[slice, slice]


def cut_out(
    image: NDArray[np.uint8], trimap: NDArray[np.uint8], random: np.random.Generator
) -> None:
    """Fill a rectangle of a sample with one drawn colour (DeVries and Taylor 2017), in place.

    What cannot be seen is not asked for: its class ids become `classes.IGNORED`.

    Args:
        image: RGB uint8 (S, S, 3).
        trimap: class ids uint8 (S, S).
        random: where the draws come from.
    """
    hole = _rectangle(len(trimap), _CUTOUT_SIDES, random)
    image[hole] = random.integers(0, 256, 3, np.uint8)
    trimap[hole] = IGNORED


def mix(
    images: NDArray[np.uint8],
    trimaps: NDArray[np.uint8],
    share: float,
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Fill a rectangle of some samples with that of the sample before (CutMix, Yun et al. 2019).

    Args:
        images: RGB uint8 (B, S, S, 3); changed in place.
        trimaps: class ids uint8 (B, S, S); changed in place.
        share: of the samples that are changed, 0..1.
        random: where the draws come from.

    Returns:
        The part of each sample's area that is another's, float32 (B,), 0..1.  The other is the
        sample before it in the batch, the first one's is the last.
    """
    count, size = trimaps.shape[:2]
    parts = np.zeros(count, np.float32)
    before, ids_before = np.roll(images, 1, axis=0), np.roll(trimaps, 1, axis=0)
    for place in np.flatnonzero(random.random(count) < share):
        patch = _rectangle(size, _PATCH_SIDES, random)
        images[place][patch] = before[place][patch]
        trimaps[place][patch] = ids_before[place][patch]
        parts[place] = trimaps[place][patch].size / size**2
    return parts


def _rectangle(size: int, sides: tuple[float, float], random: np.random.Generator) -> Rectangle:
    height, width = (np.maximum(size * random.uniform(*sides, 2), 1)).astype(int)
    top, left = random.integers(0, size - height + 1), random.integers(0, size - width + 1)
    return slice(top, top + height), slice(left, left + width)
