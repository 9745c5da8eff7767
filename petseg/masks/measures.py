"""What one mask measures: how sure the network was, how large each class is, where the pet is."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass
from petseg.errors import ImageError
from petseg.masks.record import Box
from petseg.masks.segmented import foreground

# A pixel whose largest probability lies below this is uncertain: its class is hardly more than the
# toss of a coin.  On 60 photos of Oxford-IIIT Pet that it was validated on the model in the package
# is right in 53 % of these pixels, 9 % of all (python benchmarks/certainty.py DATA --limit 60).
UNCERTAIN_BELOW = 0.6


def certainty(probabilities: NDArray[np.uint8]) -> tuple[float, float]:
    """How sure the network was of a photo, over its own pixels.

    Args:
        probabilities: uint8 (C, S, S), 255 is certainty.

    Returns:
        Confidence, the mean of each pixel's largest probability; and the share of uncertain
        pixels, whose largest lies below `UNCERTAIN_BELOW`.  Both 0..1, four decimals.

    Raises:
        ImageError: no class of some pixel has a probability.
    """
    largest = probabilities.max(axis=0)
    # NaN becomes 0 when it is cast to an integer, in every class, and all of the photo would be of
    # the first one.  The largest of a softmax is never so small.
    if not largest.all():
        raise ImageError(
            "the network's scores are no numbers (NaN): expected a probability above 0 for some "
            "class of each pixel, found none; see whether --provider cpu --precision float32 "
            "does better, or export the model again"
        )
    uncertain = np.count_nonzero(largest < UNCERTAIN_BELOW * 255) / largest.size
    return round(float(largest.mean()) / 255, 4), round(uncertain, 4)


def class_pixels(ids: NDArray[np.uint8], classes: tuple[SegmentClass, ...]) -> tuple[int, ...]:
    """Pixels of each class, by class id."""
    return tuple(int(np.count_nonzero(ids == k)) for k in range(len(classes)))


def bounding_box(
    ids: NDArray[np.uint8], classes: tuple[SegmentClass, ...], height: int, width: int
) -> Box | None:
    """The smallest box around the foreground.

    Args:
        ids: class ids, uint8 (h, w).
        classes: what the ids stand for.
        height, width: of the photo, whose pixels the box is counted in.

    Returns:
        None without foreground.
    """
    x, y, across, down = cv2.boundingRect(foreground(ids, classes))
    if not across:
        return None
    (rows, columns), right, bottom = ids.shape, x + across, y + down
    # In whole numbers: rounded up after a product of floats, a box would reach beyond the photo.
    left, top = x * width // columns, y * height // rows
    right, bottom = -(-right * width // columns), -(-bottom * height // rows)
    return Box(left, top, right - left, bottom - top)
