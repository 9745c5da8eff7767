"""The little of PNG that petseg does itself: masks are written fast, and with a chunk of its own.

https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What stands before and behind a chunk's data: its length and kind, and their CRC-32.
CHUNK_HEAD = struct.Struct(">I4s")
CHUNK_END = struct.Struct(">I")
# Signature and IHDR chunk: from here on other chunks may follow.
HEADER_BYTES = len(SIGNATURE) + CHUNK_HEAD.size + 13 + CHUNK_END.size

_GREYSCALE = 0
# A row's filter type "Up": what is stored is the difference to the row above.
_UP = 2
# Masks are flat areas, which the fastest level packs well, too.
_LEVEL = 1


def encode_grey(values: NDArray[np.uint8]) -> bytes:
    """8-bit greyscale PNG of values uint8 (H, W).

    Three to five times as fast as Pillow, which tries every filter on every row
    (benchmarks/host.py), and without libpng's limit of a million pixels a side.
    """
    height, width = values.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = values[0]
    np.subtract(values[1:], values[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, _GREYSCALE, 0, 0, 0)
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows.data, _LEVEL)),
            chunk(b"IEND", b""),
        )
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG: length, kind, data and checksum."""
    crc = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((CHUNK_HEAD.pack(len(data), kind), data, CHUNK_END.pack(crc)))
