"""The little of PNG that petseg does itself: masks are written fast, and with a chunk of its own.

https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What stands before and behind a chunk's data: its length and kind, and their CRC-32.
CHUNK_HEAD = struct.Struct(">I4s")
CHUNK_END = struct.Struct(">I")
# Signature and IHDR chunk: from here on other chunks may follow.
HEADER_BYTES = len(SIGNATURE) + CHUNK_HEAD.size + 13 + CHUNK_END.size

# Colour types, by the number of channels.
_COLOR_TYPES = {1: 0, 4: 6}
# A row's filter type "Up": what is stored is the difference to the row above.
_UP = 2
# The fastest.
_LEVEL = 1
# Masks are flat areas: run lengths pack them smaller than zlib's own search does, in the same time
# (benchmarks/host.py).  Photos, which are what RGBA is for, have no runs.
_STRATEGIES = {1: zlib.Z_RLE, 4: zlib.Z_DEFAULT_STRATEGY}


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of pixels uint8 (H, W), greyscale, or (H, W, 4), RGBA.

    About twice as fast as Pillow, which tries every filter on every row (measured by
    benchmarks/host.py), and without libpng's limit of a million pixels a side.
    """
    height, width = pixels.shape[:2]
    channels = pixels.size // (height * width)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    packer = zlib.compressobj(_LEVEL, strategy=_STRATEGIES[channels])
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", header),
            chunk(b"IDAT", packer.compress(filtered(pixels).data) + packer.flush()),
            chunk(b"IEND", b""),
        )
    )


def filtered(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is packed: each row's filter type, then its differences to the row above.

    Args:
        pixels: uint8 (H, W) or (H, W, C).

    Returns:
        uint8 (H, 1 + W * C).
    """
    lines = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    rows = np.empty((len(lines), lines.shape[1] + 1), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=rows[1:, 1:])
    return rows


class Chunk(NamedTuple):
    """A part of a PNG as it stands in the file.

    Attributes:
        kind: its type, four bytes.
        data: what it holds.
        crc32: what the file says that the CRC-32 of both is.
        sound: whether it is that.
    """

    kind: bytes
    data: memoryview
    crc32: int
    sound: bool

    @property
    def first_data_crc32(self) -> int:
        """The CRC-32 of the data alone when the chunk was written, whatever became of them.

        A CRC is linear: what `kind`, which comes before, does to it depends on nothing but how many
        bytes follow.
        """
        zeros = bytes(len(self.data))
        return self.crc32 ^ zlib.crc32(zeros, zlib.crc32(self.kind)) ^ zlib.crc32(zeros)


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG, up to one that is cut off, or the second of two damaged ones.

    None where it is no PNG.  One damaged chunk may stand between others; after two in succession it
    is their lengths that are damaged, and what follows is anything.
    """
    if not data.startswith(SIGNATURE):
        return
    view = memoryview(data)
    position = len(SIGNATURE)
    was_sound = True
    while position + CHUNK_HEAD.size <= len(data):
        length, kind = CHUNK_HEAD.unpack_from(data, position)
        start = position + CHUNK_HEAD.size
        end = start + length
        if end + CHUNK_END.size > len(data):
            return
        (crc32,) = CHUNK_END.unpack_from(data, end)
        sound = crc32 == zlib.crc32(view[position + 4 : end])
        if not sound and not was_sound:
            return
        yield Chunk(kind, view[start:end], crc32, sound)
        was_sound = sound
        position = end + CHUNK_END.size


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG: length, kind, data and checksum."""
    crc = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((CHUNK_HEAD.pack(len(data), kind), data, CHUNK_END.pack(crc)))
