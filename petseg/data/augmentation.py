"""Random changes to training samples, in numpy and OpenCV, so that every backend sees the same."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petseg.data import coloring, patches, warping

# What 1 leaves as it is, and what 0 does.
_FACTORS = ("zoom", "shrink", "stretch", "gamma")
_SHARES = ("brightness", "contrast", "saturation", "greyscale", "sharpen", "cutout", "cutmix")
_ANGLES = ("rotation", "hue")


@dataclass(frozen=True)
class Augmentation:
    """How far a training sample may be changed.

    Factors are drawn evenly on a logarithmic scale, everything else evenly.

    Attributes:
        flip: mirror half of the samples left to right.
        zoom: enlarge by up to this factor, which shows a part of the photo.
        shrink: reduce by up to this factor, which shows more than the photo, reflected.
        stretch: change the ratio of the sides by up to this factor, either way.
        rotation: turn by up to this angle, either way, degrees.
        brightness: added to every pixel: up to this share of 255, either way.
        contrast: the distance to the mean is multiplied by 1 +- this.
        gamma: the exponent is up to this, or one divided by it.
        saturation: the distance to grey is multiplied by 1 +- this.
        hue: turn colours about the grey axis by up to this angle, either way, degrees.
        greyscale: share of the samples that lose all colour.
        blur: a third of the samples are blurred by up to this standard deviation, pixels.
        sharpen: another third are sharpened by up to this amount (see `coloring.sharpen`).
        cutout: share of the samples that a rectangle is cut out of.
        cutmix: share of the samples that a rectangle of another sample is put into.
    """

    flip: bool = True
    zoom: float = 1.4
    shrink: float = 1.0
    stretch: float = 1.0
    rotation: float = 0.0
    brightness: float = 0.15
    contrast: float = 0.25
    gamma: float = 1.0
    saturation: float = 0.3
    hue: float = 0.0
    greyscale: float = 0.0
    blur: float = 0.0
    sharpen: float = 0.0
    cutout: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in _FACTORS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, not {getattr(self, name)}")
        for name in _ANGLES:
            if not 0 <= getattr(self, name) <= 180:
                raise ValueError(f"{name} must lie in 0..180 degrees, not {getattr(self, name)}")
        if self.blur < 0:
            raise ValueError(f"blur cannot be negative: {self.blur}")

    def times(self, strength: float) -> Augmentation:
        """Every range narrowed to this part of it, 0..1; mirroring stays as it is."""
        changes = {name: getattr(self, name) ** strength for name in _FACTORS}
        changes |= {name: getattr(self, name) * strength for name in (*_SHARES, *_ANGLES, "blur")}
        return dataclasses.replace(self, **changes)


def augment(
    image: NDArray[np.uint8],
    trimap: NDArray[np.uint8],
    size: int,
    how: Augmentation,
    random: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One random variant of a sample; `cutmix`, which takes two, is left to `patches.mix`.

    Args:
        image: RGB uint8 (H, W, 3).
        trimap: class ids uint8 (H, W).
        size: side of the result, pixels.
        how: the ranges to draw from.
        random: where the draws come from.

    Returns:
        RGB uint8 (size, size, 3) and class ids uint8 (size, size), warped alike; the ids are
        `classes.IGNORED` where something was cut out.
    """
    pixels, ids = warping.warp(
        image,
        trimap,
        size,
        zoom=_factor(1 / how.shrink, how.zoom, random),
        stretch=_factor(1 / how.stretch, how.stretch, random),
        angle=_either_way(how.rotation, random),
        mirrored=how.flip and random.random() < 0.5,
        place=(random.random(), random.random()),
    )
    focus, amount = random.random(), random.random()
    if how.blur and focus < 1 / 3:
        pixels = coloring.blur(pixels, max(how.blur * amount, 0.1))
    elif how.sharpen and focus > 2 / 3:
        pixels = coloring.sharpen(pixels, how.sharpen * amount)
    pixels = coloring.change_tone(
        pixels,
        gamma=_factor(1 / how.gamma, how.gamma, random),
        contrast=1 + _either_way(how.contrast, random),
        brightness=_either_way(how.brightness, random),
    )
    saturation = 1 + _either_way(how.saturation, random)
    pixels = coloring.change_chroma(
        pixels,
        saturation=0.0 if random.random() < how.greyscale else saturation,
        hue=_either_way(how.hue, random),
    )
    if random.random() < how.cutout:
        patches.cut_out(pixels, ids, random)
    return pixels, ids


def _either_way(most: float, random: np.random.Generator) -> float:
    return random.uniform(-most, most)


def _factor(least: float, most: float, random: np.random.Generator) -> float:
    return math.exp(random.uniform(math.log(least), math.log(most)))
