"""The one resize to the network's size, and the one way back to the photo's size.

Training, evaluation and batch all call these, so that a network sees at work what it saw in
training.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

RESIZE_FILTER = "bilinear"
# Names what is done to an image and to its mask; a mask made by another transform is another mask.
TRANSFORM = "squash-bilinear/argmax-of-bilinear-uint8-probabilities/3"

_BILINEAR = Image.Resampling.BILINEAR
_NEAREST = Image.Resampling.NEAREST


def to_model(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Squash a whole photo into the network's square, bilinear with antialiasing.

    Args:
        image: RGB, uint8 (H, W, 3).
        size: side of the square, pixels.

    Returns:
        RGB, uint8 (size, size, 3).
    """
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), _BILINEAR))


def trimap_to_model(trimap: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Squash class ids or trimap values (H, W) into (size, size) by nearest neighbour."""
    if trimap.shape == (size, size):
        return trimap
    return np.array(Image.fromarray(trimap).resize((size, size), _NEAREST))


def to_source(probabilities: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Class ids at the photo's size: each class's probabilities enlarged, then the largest taken.

    Enlarging probabilities rather than class ids gives edges finer than the network's pixels.
    Where two classes are equal the lower id is taken.  Peak memory: 4 bytes for each pixel of the
    photo.

    Args:
        probabilities: uint8 (C, S, S), 255 is certainty.
        height, width: the photo's size, pixels.

    Returns:
        Class ids, uint8 (height, width), 0..C-1.
    """
    ids = np.zeros((height, width), np.uint8)
    best = enlarge(probabilities[0], height, width)
    for class_id in range(1, len(probabilities)):
        plane = enlarge(probabilities[class_id], height, width)
        np.copyto(ids, np.uint8(class_id), where=plane > best)
        np.maximum(best, plane, out=best)
    return ids


def enlarge(plane: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """One plane uint8 (h, w) at another size, uint8 (height, width).

    Bilinear, with antialiasing where a side shrinks, which OpenCV's lacks.
    """
    if plane.shape == (height, width):
        return np.array(plane)
    if height < plane.shape[0] or width < plane.shape[1]:
        return np.array(Image.fromarray(plane).resize((width, height), _BILINEAR))
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
