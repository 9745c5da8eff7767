"""What every picture of a mask is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass


@dataclass(frozen=True)
class Segmented:
    """A photo, and which pixel of it is what.

    Attributes:
        ids: class ids, uint8 (H, W).
        classes: what the ids stand for.
        photo: RGB uint8 (H, W, 3); None where it is not asked for.
        probabilities: of the network, uint8 (C, S, S), 255 is certainty; None for a mask that a
            person drew.
    """

    ids: NDArray[np.uint8]
    classes: tuple[SegmentClass, ...]
    photo: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.uint8] | None = None

    def foreground(self) -> NDArray[np.uint8]:
        """uint8 (H, W): 255 where the class belongs to what is looked for, else 0."""
        return foreground(self.ids, self.classes)


def foreground(ids: NDArray[np.uint8], classes: tuple[SegmentClass, ...]) -> NDArray[np.uint8]:
    """`Segmented.foreground` for class ids alone."""
    table = np.zeros(256, np.uint8)
    table[: len(classes)] = [255 * item.foreground for item in classes]
    return look_up(ids, table)


def look_up(ids: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`table[ids]` in C order, for ids uint8 (H, W) and a table uint8 (256,) or (256, 3)."""
    ids = np.ascontiguousarray(ids)
    if table.ndim == 1:
        return np.asarray(cv2.LUT(ids, table), np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([ids] * 3), table[:, None]), np.uint8)
