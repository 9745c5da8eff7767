"""The classes a segmenter tells apart: names, values on disk, colours, and which are foreground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# In place of a class id: a pixel that no loss and no score counts.
IGNORED = 255


@dataclass(frozen=True)
class SegmentClass:
    """One class; its id is its position among the others.

    Attributes:
        name: as printed in tables.
        value: the grey value that stands for it in a mask on disk, 0..255.
        color: RGB, 0..255 each, in colour masks and plots.
        foreground: whether it belongs to what is looked for.
    """

    name: str
    value: int
    color: tuple[int, int, int]
    foreground: bool

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise ValueError("a class needs a name")
        if not _is_byte(self.value):
            raise ValueError(f"class {self.name}: value {self.value} is outside 0..255")
        if len(self.color) != 3 or not all(map(_is_byte, self.color)):
            raise ValueError(f"class {self.name}: color {self.color} is not three of 0..255")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SegmentClass:
        """The inverse of `dataclasses.asdict`.

        Raises:
            TypeError, KeyError, ValueError: these are no class' values.
        """
        return cls(**{**values, "color": tuple(values["color"])})


def _is_byte(value: object) -> bool:
    # A model file may hold anything here.
    return isinstance(value, int) and 0 <= value <= 255


# Ids and values are those of Oxford-IIIT Pet's trimaps.
PET_CLASSES = (
    SegmentClass("pet", 1, (230, 85, 60), foreground=True),
    SegmentClass("background", 2, (45, 80, 135), foreground=False),
    SegmentClass("border", 3, (250, 205, 80), foreground=True),
)


def ids_to_values(classes: tuple[SegmentClass, ...]) -> NDArray[np.uint8]:
    """Look-up table uint8 (C,): class id to value on disk."""
    return np.array([item.value for item in classes], np.uint8)


def values_to_ids(classes: tuple[SegmentClass, ...]) -> NDArray[np.uint8]:
    """Look-up table uint8 (256,): value on disk to class id, IGNORED where it is no class's."""
    table = np.full(256, IGNORED, np.uint8)
    table[ids_to_values(classes)] = np.arange(len(classes), dtype=np.uint8)
    return table
