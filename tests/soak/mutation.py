"""Files of all image formats, and how they are bent."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from batching import picture
from faults import SUFFIXES, blob, encode
from PIL import Image

from petseg.masks import png

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> dict[str, list[bytes]]:
    """By suffix: files of every format, plain and packed in other ways."""
    photo = Image.fromarray(picture(201, 48, 64))
    others = [Image.fromarray(picture(seed, 48, 64)) for seed in (203, 204)]
    large = Image.fromarray(picture(205, 300, 400))
    indexed, grey = photo.quantize(32), photo.convert("L")
    sixteen = Image.fromarray(np.array(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    frames = {"save_all": True, "append_images": others, "duration": 90}
    found = {suffix: [blob(kind)] for kind, suffix in SUFFIXES.items()}
    ways: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", photo, {"progressive": True, "exif": exif.tobytes()}),
        ("JPEG", photo.convert("CMYK"), {}),
        ("JPEG", grey, {"restart_marker_rows": 1}),
        ("PNG", indexed, {"exif": exif.tobytes(), "icc_profile": b"profile" * 20}),
        ("PNG", sixteen, {}),
        ("PNG", photo, frames),
        ("GIF", indexed, frames),
        ("WEBP", photo, {"lossless": True, "exif": exif.tobytes()}),
        ("WEBP", photo, frames),
        ("AVIF", photo, frames),
        *(
            ("TIFF", photo, {"compression": packing})
            for packing in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ),
        ("TIFF", sixteen, {}),
        ("TIFF", photo, {"save_all": True, "append_images": others}),
        ("BMP", indexed, {}),
        ("PPM", grey, {}),
        # Large enough for a network of 64 to be decoded at half their size.
        ("JPEG", large, {}),
        ("JPEG", large, {"progressive": True}),
        ("JPEG", large.convert("L"), {}),
    ]
    for kind, image, options in ways:
        found[SUFFIXES[kind]].append(encode(image, kind, **options))
    return found


def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """`data` with one to eight changes, of the sorts that fuzzers make; `other` to cut from."""
    bent = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 5, 8))):
        if not bent:
            break
        # Headers decide what is done with the rest: half of the changes are made in them.
        place = chance.randrange(min(len(bent), chance.choice((64, len(bent)))))
        length = chance.randint(1, chance.choice((4, 64, 1024)))
        chance.choice(CHANGES)(bent, place, length, other, chance)
    if bent[:8] == png.SIGNATURE and chance.random() < 0.7:
        return repaired(bytes(bent))
    return bytes(bent)


def _flip(bent: bytearray, place: int, length: int, other: bytes, chance: random.Random) -> None:
    bent[place] ^= 1 << chance.randrange(8)


def _scramble(bent: bytearray, place: int, length: int, *rest: Any) -> None:
    bent[place : place + length] = rest[-1].randbytes(len(bent[place : place + length]))


def _number(bent: bytearray, place: int, length: int, other: bytes, chance: random.Random) -> None:
    code = chance.choice(("B", "<H", ">H", "<I", ">I"))
    value = chance.choice(INTERESTING) & ((1 << (8 * struct.calcsize(code))) - 1)
    part = struct.pack(code, value)
    bent[place : place + len(part)] = part


def _cut(bent: bytearray, place: int, length: int, *rest: Any) -> None:
    del bent[place : place + length]


def _double(bent: bytearray, place: int, length: int, *rest: Any) -> None:
    bent[place:place] = bent[place : place + length]


def _splice(bent: bytearray, place: int, length: int, other: bytes, chance: random.Random) -> None:
    start = chance.randrange(len(other))
    bent[place : place + length] = other[start : start + length]


def _end(bent: bytearray, place: int, *rest: Any) -> None:
    del bent[place:]


CHANGES: tuple[Callable[..., None], ...] = (
    *(_flip, _flip, _number, _number, _scramble),
    *(_cut, _double, _splice, _end),
)


def repaired(data: bytes) -> bytes:
    """A PNG whose checksums fit its chunks: without that, no decoder would look into them."""
    found, position = [png.SIGNATURE], len(png.SIGNATURE)
    while position + png.CHUNK_HEAD.size <= len(data):
        length, kind = png.CHUNK_HEAD.unpack_from(data, position)
        start = position + png.CHUNK_HEAD.size
        content = data[start : start + length]
        crc = zlib.crc32(kind + content)
        found.append(png.CHUNK_HEAD.pack(length, kind) + content + png.CHUNK_END.pack(crc))
        position = start + length + png.CHUNK_END.size
    return b"".join(found)
