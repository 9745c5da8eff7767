"""One affine warp of a photo and its class ids: crop, zoom, stretch, rotation and mirror."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

# Bilinear interpolation reads 2x2 pixels.  Where more of the photo's pixels than this fall on one
# of the result's, in each direction, they are averaged first.
_MAX_REDUCTION = 1.2


def warp(
    image: NDArray[np.uint8],
    trimap: NDArray[np.uint8],
    size: int,
    zoom: float = 1.0,
    stretch: float = 1.0,
    angle: float = 0.0,
    mirrored: bool = False,
    place: tuple[float, float] = (0.5, 0.5),
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What a square frame laid on a photo shows, and the class ids in it.

    What the frame shows from outside the photo is the photo reflected at its edges, class ids
    alike, so that every pixel of the result has a true class.

    Args:
        image: RGB uint8 (H, W, 3).
        trimap: class ids uint8 (H, W).
        size: side of the result, pixels.
        zoom: at 1 the frame is as large as the photo, at 2 half as wide and high: the photo is
            enlarged; below 1 it is reduced.
        stretch: the frame's height to its width is this many times what it would be.
        angle: by which the frame is turned clockwise, degrees.
        mirrored: whether left and right change places.
        place: x and y of the frame, 0..1 each, within the room between its outermost positions:
            inside the photo or, where the frame is larger, around it.

    Returns:
        RGB uint8 (size, size, 3), bilinear, averaged first where it shrinks, and class ids uint8
        (size, size), nearest neighbour.
    """
    height, width = trimap.shape
    frame = np.array([width, height]) / zoom * np.array([stretch**-0.5, stretch**0.5])
    room = np.abs([width, height] - frame)
    middle = np.array([width, height]) / 2 + room * (np.array(place) - 0.5)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    mirror = -1.0 if mirrored else 1.0
    # From the result's coordinates to the photo's, both with pixel edges at whole numbers.
    linear = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
    linear *= (frame / size)[:, None]
    shift = middle - linear @ np.full(2, size / 2)
    ids = _sample(trimap, linear, shift, size, cv2.INTER_NEAREST)

    reduction = math.sqrt(frame[0] * frame[1]) / size
    if reduction > _MAX_REDUCTION:
        smaller = (max(round(width / reduction), 1), max(round(height / reduction), 1))
        image = np.asarray(cv2.resize(image, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        factor = np.array(smaller) / (width, height)
        linear, shift = linear * factor[:, None], shift * factor
    return _sample(image, linear, shift, size, cv2.INTER_LINEAR), ids


def _sample(
    pixels: NDArray[np.uint8],
    linear: NDArray[np.float64],
    shift: NDArray[np.float64],
    size: int,
    interpolation: int,
) -> NDArray[np.uint8]:
    # OpenCV's coordinates have pixel centres at whole numbers.
    offset = linear @ np.full(2, 0.5) + shift - 0.5
    matrix = np.concatenate([linear, offset[:, None]], axis=1)
    flags = interpolation | cv2.WARP_INVERSE_MAP
    result = cv2.warpAffine(
        pixels, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(result, np.uint8)
