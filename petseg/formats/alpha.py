"""The photo cut out: RGBA, soft where the network hesitates."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass
from petseg.masks import png
from petseg.masks.segmented import Segmented, look_up
from petseg.photos.transforms import enlarge

# Below the first the photo is gone, above the second it is whole; between them alpha rises evenly.
# Without the ends cut off a breath of the whole background would stay.
_GONE, _WHOLE = 0.3, 0.7
# A trimap's border lies on both sides of the pet's edge: counted in full it would leave a halo.
_BORDER = "border"


def encode(segmented: Segmented) -> bytes:
    """PNG of what `draw` draws."""
    return png.encode(draw(segmented))


def draw(segmented: Segmented) -> NDArray[np.uint8]:
    """RGBA uint8 (H, W, 4), straight alpha.

    Alpha follows the probability that a pixel is foreground, where the border counts half.  For a
    mask that a person drew there are no probabilities: alpha falls evenly across the border that
    was drawn.  Pixels that are gone are black, so that nothing of them is left in the file.
    """
    assert segmented.photo is not None
    opacity = _drawn(segmented) if segmented.probabilities is None else _likely(segmented)
    rgba = np.empty((*opacity.shape, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = segmented.photo, opacity
    return np.asarray(cv2.copyTo(rgba, opacity, np.zeros_like(rgba)), np.uint8)


def _shares(classes: tuple[SegmentClass, ...]) -> NDArray[np.float32]:
    """How much of each class is the pet's: float32 (C,), 0..1."""
    return np.array(
        [item.foreground * (0.5 if item.name == _BORDER else 1.0) for item in classes], np.float32
    )


def _likely(segmented: Segmented) -> NDArray[np.uint8]:
    assert segmented.probabilities is not None
    expected = np.tensordot(_shares(segmented.classes), segmented.probabilities, 1)
    plane = np.clip(np.rint(expected), 0, 255).astype(np.uint8)
    levels = np.clip((np.arange(256) / 255 - _GONE) / (_WHOLE - _GONE), 0, 1)
    table = np.rint(levels * 255).astype(np.uint8)
    return look_up(enlarge(plane, *segmented.ids.shape), table)


def _drawn(segmented: Segmented) -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    table[: len(segmented.classes)] = np.rint(_shares(segmented.classes) * 255).astype(np.uint8)
    opacity = look_up(segmented.ids, table)
    inward, outward = _distance(opacity != 255), _distance(opacity != 0)
    border = (opacity > 0) & (opacity < 255)
    share = outward[border] / (inward[border] + outward[border])
    opacity[border] = np.rint(share * 255).astype(np.uint8)
    return opacity


def _distance(elsewhere: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Of each pixel to the nearest that is not elsewhere, pixels: float32 (H, W)."""
    found = cv2.distanceTransform(elsewhere.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    # Where there is none, OpenCV's distance is the largest float, which cannot be added up.
    return np.asarray(np.minimum(found, sum(elsewhere.shape)), np.float32)
