"""Foreground and the rest: 8-bit greyscale PNG of 255 and 0."""

from __future__ import annotations

from petseg.masks import png
from petseg.masks.segmented import Segmented


def encode(segmented: Segmented) -> bytes:
    """PNG, greyscale: 255 where the class is marked as foreground (pet and border), else 0."""
    return png.encode(segmented.foreground())
