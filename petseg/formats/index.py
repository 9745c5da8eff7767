"""The mask itself: 8-bit greyscale PNG of the classes' values, a trimap as Oxford-IIIT Pet's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass, ids_to_values
from petseg.masks import png
from petseg.masks.segmented import Segmented, look_up


def to_values(ids: NDArray[np.uint8], classes: tuple[SegmentClass, ...]) -> NDArray[np.uint8]:
    """Class ids uint8 (H, W) to the values that stand for them on disk, in C order."""
    table = np.zeros(256, np.uint8)
    table[: len(classes)] = ids_to_values(classes)
    return look_up(ids, table)


def encode(segmented: Segmented) -> bytes:
    """PNG, greyscale: the value of each pixel's class."""
    return png.encode(to_values(segmented.ids, segmented.classes))
