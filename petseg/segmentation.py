"""A photo, segmented: the class of each pixel, what that measures, and the file it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass
from petseg.formats import index
from petseg.masks import measures, png, records
from petseg.masks.record import Box, ImageIdentity, Maker, Record
from petseg.photos import transforms


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """What the network makes of one photo.

    Attributes:
        ids: class ids, uint8 (h, w); of the photo's size, or of the network's.
        probabilities: of the network, uint8 (C, S, S), 255 is certainty.
        classes: the C classes that the ids stand for.
        height, width: of the photo, upright, pixels.
        class_pixels: pixels of each class in `ids`, by class id.
        box: of the foreground, in the photo's pixels; None without foreground.
        confidence, uncertain: see `measures.certainty`, 0..1.
    """

    ids: NDArray[np.uint8]
    probabilities: NDArray[np.uint8]
    classes: tuple[SegmentClass, ...]
    height: int
    width: int
    class_pixels: tuple[int, ...]
    box: Box | None
    confidence: float
    uncertain: float

    def pack(
        self,
        image: ImageIdentity,
        maker: Maker,
        provider: str,
        precision: str,
        padded: int | None = None,
    ) -> tuple[bytes, Record]:
        """The mask as a file: PNG of the classes' values, with the record of what made it.

        Args:
            image: the photo.
            maker, provider, precision, padded: for the record.

        Returns:
            The file's bytes, and the record in it.
        """
        # As `index.encode` does, but the values are looked up once: the record holds their hash.
        values = index.to_values(self.ids, self.classes)
        packed = png.encode(values)
        record = Record(
            image=image,
            maker=maker,
            height=self.height,
            width=self.width,
            provider=provider,
            precision=precision,
            class_pixels=self.class_pixels,
            box=self.box,
            confidence=self.confidence,
            uncertain=self.uncertain,
            pixels_sha256=records.hash_pixels(values),
            data_crc32=records.data_crc32(packed),
            padded=padded,
        )
        return records.embed(packed, record), record


def segment(
    probabilities: NDArray[np.uint8],
    height: int,
    width: int,
    classes: tuple[SegmentClass, ...],
    side: int | None = None,
) -> Segmentation:
    """The way back from the network to the photo.

    Args:
        probabilities: uint8 (C, S, S), 255 is certainty.
        height, width: of the photo, pixels.
        classes: the C classes.
        side: of a square mask, pixels; None for one of the photo's size.

    Raises:
        ImageError: the probabilities are none; see `measures.certainty`.
    """
    confidence, uncertain = measures.certainty(probabilities)
    ids = transforms.to_source(probabilities, side or height, side or width)
    return Segmentation(
        ids=ids,
        probabilities=probabilities,
        classes=classes,
        height=height,
        width=width,
        class_pixels=measures.class_pixels(ids, classes),
        box=measures.bounding_box(ids, classes, height, width),
        confidence=confidence,
        uncertain=uncertain,
    )
