"""What a folder of masks looks like as a whole, from one walk over it, in bounded memory."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
from collections import Counter
from typing import NamedTuple

from petseg.classes import SegmentClass
from petseg.masks.reading import MaskFile
from petseg.system.distributions import Histogram, OverTime

# Masks of each kind that are shown.
SHOWN = 12
# More than anybody has; a folder of crafted masks may hold any number.
_MOST_MAKERS = 100


class Made(NamedTuple):
    """What made a mask, as its record tells; empty where a person did, or where they are too many.

    Attributes:
        by: "petseg", "person", "another version of petseg", or "others".
        model: the model's hash.
        size: "source" or "model".
        provider, precision: what the model ran on.
    """

    by: str
    model: str = ""
    size: str = ""
    provider: str = ""
    precision: str = ""


class Least:
    """The masks with the least keys; of equal ones, always the same, whatever the order."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._rows: list[tuple[float, bytes, MaskFile]] = []

    def add(self, key: float, digest: bytes, mask: MaskFile) -> None:
        if len(self._rows) == self.count and (key, digest) >= self._rows[-1][:2]:
            return
        # Pixels of photos as large as they may be would add up.
        row = (key, digest, dataclasses.replace(mask, ids=None))
        bisect.insort(self._rows, row, key=lambda row: row[:2])
        del self._rows[self.count :]

    @property
    def masks(self) -> list[MaskFile]:
        """Least first."""
        return [mask for _, _, mask in self._rows]


class Survey:
    """Grows by a mask at a time.

    Attributes:
        classes: what the masks' values mean.
        masks, by_person, empty: how many there are, how many a person made or changed, and how
            many hold no foreground.
        pixels: of all photos.
        areas: the foreground's share of each photo.
        class_areas: the share of each class, by class id.
        confidence, uncertain: of the masks with a record (see `measures.certainty`).
        makers: how many masks each of them made.
        written: when, seconds since 1970.
        random, unsure, largest, smallest: masks to be shown.
    """

    def __init__(self, classes: tuple[SegmentClass, ...]) -> None:
        self.classes = classes
        self.masks = self.by_person = self.empty = 0
        self.pixels = 0
        self.areas = Histogram()
        self.class_areas = [Histogram() for _ in classes]
        self.confidence, self.uncertain = Histogram(), Histogram()
        self.makers: Counter[Made] = Counter()
        self.written = OverTime(1.0)
        self.random, self.unsure = Least(SHOWN), Least(SHOWN)
        self.largest, self.smallest = Least(SHOWN), Least(SHOWN)

    def add(self, mask: MaskFile) -> None:
        self.masks += 1
        self.by_person += mask.by_person
        self.pixels += mask.height * mask.width
        self.written.add(mask.written_ns / 1e9)
        share = foreground_share(mask, self.classes)
        self.empty += share == 0
        self.areas.add(share)
        for histogram, pixels in zip(self.class_areas, mask.class_pixels, strict=True):
            histogram.add(pixels / sum(mask.class_pixels))
        made = _made(mask)
        known = made in self.makers or len(self.makers) < _MOST_MAKERS
        self.makers[made if known else Made("others")] += 1
        name = mask.name.encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(name, digest_size=8).digest()
        # As good as drawn, and the same ones whoever walks, in whatever order.
        self.random.add(0, digest, mask)
        self.largest.add(-share, digest, mask)
        self.smallest.add(share, digest, mask)
        if mask.record is not None:
            self.confidence.add(mask.record.confidence)
            self.uncertain.add(mask.record.uncertain)
            self.unsure.add(mask.record.confidence, digest, mask)


def foreground_share(mask: MaskFile, classes: tuple[SegmentClass, ...]) -> float:
    """That part of a mask which belongs to what is looked for, 0..1."""
    pixels = zip(classes, mask.class_pixels, strict=True)
    return sum(count for item, count in pixels if item.foreground) / sum(mask.class_pixels)


def _made(mask: MaskFile) -> Made:
    record = mask.record
    if record is None:
        return Made("person" if mask.by_person else "another version of petseg")
    maker = record.maker
    return Made("petseg", maker.model, maker.size, record.provider, record.precision)
