"""A photo and its mask as two small pictures of one size, to be laid over each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from petseg import steps
from petseg.classes import SegmentClass, values_to_ids
from petseg.errors import ImageError
from petseg.formats import color
from petseg.masks import reading
from petseg.masks.reading import MaskFile
from petseg.masks.segmented import Segmented
from petseg.pages.html import data_address
from petseg.pages.survey import foreground_share
from petseg.photos import imageio

# The longer side, pixels.
_SIDE = 320
# A photo is stored at the first of these that makes it small enough; noise alone needs the last.
_QUALITIES = (80, 60, 40, 20)
_MOST_BYTES = 32 << 10


@dataclass(frozen=True)
class Pair:
    """One mask, as a page shows it.

    Attributes:
        name: the photo's where it is known, else the mask's.
        photo: `data:` address of a JPEG; None where it cannot be shown, which `note` explains.
        mask: `data:` address of a PNG in the classes' colours.
        width, height: of both, pixels.
        area: the foreground's share, 0..1.
        confidence: see `measures.certainty`; None for a person's mask.
        note: "" where there is nothing to say.
    """

    name: str
    photo: str | None
    mask: str
    width: int
    height: int
    area: float
    confidence: float | None
    note: str


def draw(
    mask: MaskFile, folder: Path, images: Path | None, classes: tuple[SegmentClass, ...]
) -> Pair | None:
    """The two pictures of a mask.

    Args:
        mask: the mask, without class ids.
        folder: of the masks.
        images: the folder of the photos, where it is known.
        classes: what the mask's values mean.

    Returns:
        None where the mask is gone, or is another one by now.
    """
    path = folder / mask.name
    try:
        data, _ = reading.load(path, mask.packed)
        ids = reading.decode(data, values_to_ids(classes), path)
    except (OSError, ImageError):
        return None
    scale = _SIDE / max(mask.height, mask.width)
    size = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    small = np.asarray(cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    try:
        photo, note = _photo(mask, images, size), ""
    except ImageError as error:
        photo, note = None, str(error)
    return Pair(
        name=mask.photo or mask.name,
        photo=photo,
        mask=data_address("image/png", color.encode(Segmented(small, classes))),
        width=size[0],
        height=size[1],
        area=foreground_share(mask, classes),
        confidence=None if mask.record is None else mask.record.confidence,
        note=note,
    )


def _photo(mask: MaskFile, images: Path | None, size: tuple[int, int]) -> str | None:
    """The address of the small photo; None where nobody said where photos lie.

    Raises:
        ImageError: the photo is not there, cannot be read, or is not the one of the mask.
    """
    if images is None:
        return None
    if mask.photo is None:
        raise ImageError("nothing tells which photo this mask is of")
    # The name stands in the mask, which may be anybody's: it must not lead out of the folder.
    name = PurePosixPath(mask.photo)
    if name.is_absolute() or ".." in name.parts:
        raise ImageError("the photo's name leads out of the folder of photos")
    identity, data = steps.identify(str(images / name), imageio.DEFAULT_MAX_PIXELS)
    if mask.photo_sha256 not in (None, identity.sha256):
        raise ImageError("the photo is no longer the one that the mask was made from")
    pixels, (height, width) = imageio.decode_reduced(data, _SIDE)
    if (height, width) != (mask.height, mask.width):
        raise ImageError(
            f"the photo has {width}x{height} pixels, and the mask is of {mask.width}x{mask.height}"
        )
    return data_address("image/jpeg", _jpeg(pixels, size))


def _jpeg(pixels: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    larger = size[0] > pixels.shape[1]
    how = cv2.INTER_LINEAR if larger else cv2.INTER_AREA
    small = np.ascontiguousarray(cv2.resize(pixels, size, interpolation=how))
    for quality in _QUALITIES:
        encoded: bytes = simplejpeg.encode_jpeg(
            small, quality=quality, colorspace="RGB", colorsubsampling="420"
        )
        if len(encoded) <= _MOST_BYTES:
            break
    return encoded
