"""Random changes to training samples, in numpy and Pillow, so that every backend sees the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Augmentation:
    """How far a training sample may be changed.

    Attributes:
        flip: mirror half of the samples left to right.
        zoom: the crop's side is the image's divided by 1..zoom.
        brightness: added to every pixel: up to this share of 255, either way.
        contrast: the distance to the mean colour is multiplied by 1 +- this.
        saturation: the distance to grey is multiplied by 1 +- this.
    """

    flip: bool = True
    zoom: float = 1.4
    brightness: float = 0.15
    contrast: float = 0.25
    saturation: float = 0.3

    def __post_init__(self) -> None:
        if self.zoom < 1:
            raise ValueError(f"zoom must be at least 1, not {self.zoom}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, not {getattr(self, name)}")


def augment(
    image: NDArray[np.uint8],
    trimap: NDArray[np.uint8],
    size: int,
    how: Augmentation,
    random: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One random variant of a sample.

    Args:
        image: RGB uint8 (H, W, 3).
        trimap: class ids uint8 (H, W).
        size: side of the result, pixels.
        how: the ranges to draw from.
        random: where the draws come from.

    Returns:
        RGB uint8 (size, size, 3) and class ids uint8 (size, size), cut and mirrored alike.
    """
    height, width = trimap.shape
    zoom = random.uniform(1.0, how.zoom)
    left = random.uniform(0, width - width / zoom)
    top = random.uniform(0, height - height / zoom)
    box = (left, top, left + width / zoom, top + height / zoom)
    target = (size, size)
    pixels = Image.fromarray(image).resize(target, Image.Resampling.BILINEAR, box=box)
    ids = np.array(Image.fromarray(trimap).resize(target, Image.Resampling.NEAREST, box=box))
    values = np.asarray(pixels, np.float32)
    if how.flip and random.random() < 0.5:
        values, ids = values[:, ::-1], np.ascontiguousarray(ids[:, ::-1])
    return _recolor(values, how, random), ids


def _recolor(
    values: NDArray[np.float32], how: Augmentation, random: np.random.Generator
) -> NDArray[np.uint8]:
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * random.uniform(1 - how.saturation, 1 + how.saturation)
    mean = values.mean(axis=(0, 1))
    values = mean + (values - mean) * random.uniform(1 - how.contrast, 1 + how.contrast)
    values = values + 255 * random.uniform(-how.brightness, how.brightness)
    pixels: NDArray[np.uint8] = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return pixels
