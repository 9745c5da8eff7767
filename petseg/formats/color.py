"""The mask in the classes' colours, for people to look at."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from petseg.formats.index import to_values
from petseg.masks.segmented import Segmented

# Masks are flat areas, which the fastest level packs well, too.
_COMPRESS_LEVEL = 1


def encode(segmented: Segmented) -> bytes:
    """PNG whose palette index is the class's value and whose palette holds the classes' colours."""
    palette = np.zeros((256, 3), np.uint8)
    for item in segmented.classes:
        palette[item.value] = item.color
    image = Image.fromarray(to_values(segmented.ids, segmented.classes))
    image.putpalette(palette[: max(item.value for item in segmented.classes) + 1].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()
