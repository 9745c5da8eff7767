"""Mask formats: class ids in, an encoded file out."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petseg import png
from petseg.classes import SegmentClass, ids_to_values

# Everything in `masks/` that is no mask lies below this name.
RESERVED = "petseg"

# Masks are flat areas, which the fastest level packs well, too.
_COMPRESS_LEVEL = 1

Encoder = Callable[[NDArray[np.uint8], tuple[SegmentClass, ...]], bytes]


@dataclass(frozen=True)
class MaskFormat:
    """One way to write a mask.

    Attributes:
        name: as in `--format`, and the folder's name in `masks/petseg/`.
        suffix: of the files.
        encode: class ids uint8 (H, W) and the classes, to the bytes of a file.
    """

    name: str
    suffix: str
    encode: Encoder


def to_values(ids: NDArray[np.uint8], classes: tuple[SegmentClass, ...]) -> NDArray[np.uint8]:
    """Class ids uint8 (H, W) to the values that stand for them on disk, in C order."""
    table = np.zeros(256, np.uint8)
    table[: len(classes)] = ids_to_values(classes)
    return np.asarray(cv2.LUT(np.ascontiguousarray(ids), table), np.uint8)


def encode_index(ids: NDArray[np.uint8], classes: tuple[SegmentClass, ...]) -> bytes:
    """8-bit greyscale PNG of the classes' values: a trimap, as Oxford-IIIT Pet writes them."""
    return png.encode_grey(to_values(ids, classes))


def encode_color(ids: NDArray[np.uint8], classes: tuple[SegmentClass, ...]) -> bytes:
    """Palette PNG whose index is the class's value and whose palette holds the classes' colours."""
    palette = np.zeros((256, 3), np.uint8)
    for item in classes:
        palette[item.value] = item.color
    image = Image.fromarray(to_values(ids, classes))
    image.putpalette(palette[: max(item.value for item in classes) + 1].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


# The mask itself: always written, in `masks/`, because it carries the record.
INDEX = MaskFormat("index", ".png", encode_index)
# Written beside it when asked for, each in a folder of its own.
EXTRA = {item.name: item for item in (MaskFormat("color", ".png", encode_color),)}
NAMES = (INDEX.name, *EXTRA)
