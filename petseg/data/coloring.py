"""Changes of a photo's colours and sharpness, a few passes over its bytes."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVELS = np.arange(256, dtype=np.float32)
_GREY = np.full((3, 3), 1 / 3)
# The product of this matrix with a colour is the cross product with the grey axis.
_AROUND_GREY = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)


def change_tone(
    image: NDArray[np.uint8], gamma: float, contrast: float, brightness: float
) -> NDArray[np.uint8]:
    """Every channel alike: gamma, then contrast about the mean, then brightness.

    Args:
        image: RGB uint8 (H, W, 3).
        gamma: exponent of the values 0..1; above 1 darkens.
        contrast: factor of the distance to the mean of all values.
        brightness: added, as a share of 255.

    Returns:
        RGB uint8 (H, W, 3), values beyond 0..255 cut off.
    """
    values = 255 * (_LEVELS / 255) ** np.float32(gamma)
    mean = 255 * (sum(cv2.mean(image)[:3]) / 3 / 255) ** gamma
    values = mean + (values - mean) * contrast + 255 * brightness
    table = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


def change_chroma(image: NDArray[np.uint8], saturation: float, hue: float) -> NDArray[np.uint8]:
    """Turn colours about the grey axis of the RGB cube, and move them from it or to it.

    Args:
        image: RGB uint8 (H, W, 3).
        saturation: factor of the distance to grey; 0 leaves the mean of the channels.
        hue: angle, degrees; 120 makes red green.

    Returns:
        RGB uint8 (H, W, 3), values beyond 0..255 cut off.
    """
    angle = math.radians(hue)
    # Rodrigues' formula; the grey part of a colour stays what it was.
    turned = math.cos(angle) * (np.eye(3) - _GREY) + math.sin(angle) * _AROUND_GREY
    matrix = (_GREY + saturation * turned).astype(np.float32)
    return np.asarray(cv2.transform(image, matrix), np.uint8)


def blur(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) under a Gaussian of this standard deviation, pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def sharpen(image: NDArray[np.uint8], amount: float) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) with its distance to itself blurred by 1 pixel added `amount` times."""
    return np.asarray(cv2.addWeighted(image, 1 + amount, blur(image, 1.0), -amount, 0), np.uint8)
