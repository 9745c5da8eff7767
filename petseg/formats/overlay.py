"""The photo with its mask laid over it, to be judged at a glance."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from petseg.errors import ImageError
from petseg.masks.segmented import Segmented, look_up

_TINT = 0.45
_QUALITY = 90
# The width of each of the outline's lines, as a share of the shorter side.
_OUTLINE = 1 / 300
# libjpeg's JPEG_MAX_DIMENSION.
_MOST_PIXELS_A_SIDE = 65500


def encode(segmented: Segmented) -> bytes:
    """JPEG of what `draw` draws.

    Raises:
        ImageError: a side is longer than JPEG allows.
    """
    height, width = segmented.ids.shape
    if max(height, width) > _MOST_PIXELS_A_SIDE:
        raise ImageError(
            f"an overlay is a JPEG, whose sides are at most {_MOST_PIXELS_A_SIDE} pixels; the "
            f"photo is {width}x{height}: leave out --format overlay"
        )
    return to_jpeg(draw(segmented))


def draw(segmented: Segmented) -> NDArray[np.uint8]:
    """Foreground classes tinted in their colours, the foreground's edge outlined.

    The outline is white inside and black outside, to be seen on every photo.

    Returns:
        RGB uint8 (H, W, 3).
    """
    photo = segmented.photo
    assert photo is not None
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(segmented.classes)] = [item.color for item in segmented.classes]
    tinted = cv2.addWeighted(photo, 1 - _TINT, look_up(segmented.ids, colors), _TINT, 0)
    inside = segmented.foreground()
    picture = cv2.copyTo(tinted, inside, photo.copy())
    thickness = max(1, round(min(inside.shape) * _OUTLINE))
    picture[_edge(inside, thickness)] = 255
    picture[_edge(~inside, thickness)] = 0
    return np.ascontiguousarray(picture, np.uint8)


def to_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """JPEG of an overlay, RGB uint8 (H, W, 3)."""
    encoded: bytes = simplejpeg.encode_jpeg(
        picture, quality=_QUALITY, colorspace="RGB", colorsubsampling="420"
    )
    return encoded


def _edge(inside: NDArray[np.uint8], thickness: int) -> NDArray[np.bool_]:
    """The rim of an area uint8 (H, W) of 255 and 0, on its inner side: bool (H, W)."""
    kernel = np.ones((2 * thickness + 1,) * 2, np.uint8)
    # Not along the photo's own edge: there the pet goes on.
    core = cv2.erode(inside, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray((inside != 0) & (core == 0))
